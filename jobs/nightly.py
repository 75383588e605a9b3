"""One night, all stages in one driver: raw logs -> tables -> gate -> model -> calibrated scores -> report.

spark-submit jobs/nightly.py --conf-file conf/demo.yaml --day 2026-05-16
spark-submit jobs/nightly.py --conf-file conf/demo.yaml --from 2026-05-01 --to 2026-05-14 --only ingest,build_examples,gate
spark-submit jobs/nightly.py --conf-file conf/demo.yaml --backfill-from 2026-05-01 --from 2026-05-15 --to 2026-05-16
spark-submit jobs/nightly.py --conf-file conf/demo.yaml --from 2026-05-15 --to 2026-05-16 --on-failure go-on
spark-submit jobs/nightly.py --conf-file conf/demo.yaml --day 2026-05-16 --dry-run

Exit codes: 0 done, 1 a bug, 2 usage or configuration, 3 input missing, 4 validation failed, 5 training failed, 6 scoring failed,
7 lock held or conflict, 8 candidate refused: yesterday's model serves, 75 a rank or Spark itself was lost, or a signal stopped the night: try again.
`<workdir>/runs/<day>/run_summary.json` says the same in words.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.lock import night_lock
from etl.session import start
from etl.splits import ONE_DAY, Night, days_between
from etl.tables import create_tables, table_path
from jobs import build_examples, calibrate, evaluate, gate, ingest, publish_model, report, score, train
from jobs.common import (
    AGAIN,
    DONE,
    REFUSED,
    STOPPED,
    Run,
    Stage,
    code_of,
    conf_of,
    day_option,
    main,
    of_the_disk,
    open_run,
    parser,
    write_summary,
)
from jobs.describe import write_views
from jobs.exposition import write_metrics
from jobs.nights import GO_ON, SAID, Nights, in_order
from jobs.plan import plan
from jobs.progress import Progress
from jobs.stages import run_stage
from models import logs

ETL = (ingest.STAGE, build_examples.STAGE, gate.STAGE)
MODEL = (train.STAGE, calibrate.STAGE, evaluate.STAGE, publish_model.STAGE, score.STAGE)
STAGES: tuple[Stage, ...] = (*ETL, *MODEL, report.STAGE)


def nightly(argv: Sequence[str] | None) -> int:
    arguments = options().parse_args(argv)
    conf = configured(arguments)
    first, last = span(arguments)
    chosen = stages_named(arguments.only)
    backfill = arguments.backfill_from
    if backfill and (backfill >= first or chosen is not None):
        options().error("--backfill-from is a day before the first night, and goes without --only")
    if arguments.on_failure == GO_ON and chosen is not None:
        options().error("--on-failure go-on is for whole nights, and goes without --only: a range is one run")
    runs = [Nights(backfill, first - ONE_DAY, ETL)] if backfill else []
    if chosen is not None:
        runs += [Nights(first, last, chosen)]
    else:
        runs += [Nights(day, day, STAGES) for day in days_between(first, last)]
    spark = start(conf.spark, f"adtower {conf.name}")
    try:
        if arguments.dry_run:
            return plan(spark, conf, runs)
        create_tables(spark, conf)
        if backfill:  # nights on days that could not be built have nothing to stand on
            run_night(spark, conf, backfill, first - ONE_DAY, ETL)
        nights = runs[1:] if backfill else runs

        def night(of: Nights) -> int:
            return run_night(spark, conf, of.first, of.last, of.stages, arguments.run_id, arguments.summary)

        # Of several nights the one refusal is not hidden by a later night that passes.
        return in_order(nights, night, conf, arguments.summary) if arguments.on_failure == GO_ON else max(map(night, nights))
    finally:
        spark.stop()


def configured(arguments: argparse.Namespace) -> Conf:
    conf = conf_of(arguments)
    return conf.model_copy(update={"training": conf.training.model_copy(update={"warm_start": False})}) if arguments.full else conf


def options() -> argparse.ArgumentParser:
    given = parser((__doc__ or "").splitlines()[0])
    given.add_argument("--day", type=day_option, help="the night to run, such as 2026-05-16 (UTC)")
    given.add_argument("--from", dest="first", type=day_option, help="first night, with --to; with --only, the first day of one range")
    given.add_argument("--to", dest="last", type=day_option, help="last night")
    given.add_argument(
        "--backfill-from", type=day_option, help="first build the days from here to the first night as one range: ingest, examples, gate"
    )
    given.add_argument(
        "--only",
        help=f"stages, by comma: {', '.join(stage.name for stage in STAGES)}; with --from and --to the days are one range, built side by side",
    )
    given.add_argument("--dry-run", action="store_true", help="only print what would be done and why, stage by stage, with the inputs")
    given.add_argument(
        "--on-failure",
        choices=("stop", GO_ON),
        default="stop",
        help="after a night that failed: stop, or go on with the next ones and end with the first failed night's exit code. Exits 2, 7 and 75 "
        "stop in any case: they would be those of the next nights too",
    )
    given.add_argument("--full", action="store_true", help="train from nothing on clock.train_days, whatever training.warm_start says")
    given.add_argument("--run-id", type=run_name, help="one name for several commands of a night, so that summary and report tell of all")
    given.add_argument("--summary", type=Path, help="write run_summary.json here too, for the program that started this one")
    return given


def run_name(text: str) -> str:
    """It also names a folder of the Data Docs."""
    if not re.fullmatch(r"[\w-][\w.-]{0,249}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no run id; write letters, digits, _, - and . alone")
    return text


def span(arguments: argparse.Namespace) -> tuple[date, date]:
    if arguments.day and not (arguments.first or arguments.last):
        return arguments.day, arguments.day
    if arguments.first and arguments.last and not arguments.day and arguments.first <= arguments.last:
        return arguments.first, arguments.last
    options().error("give either --day, or --from and --to with --from not after --to")


def stages_named(only: str | None) -> tuple[Stage, ...] | None:
    """The stages of --only, in the order of the night; None without --only."""
    if only is None:
        return None
    names = {name.strip() for name in only.split(",")}
    unknown = sorted(names - {stage.name for stage in STAGES})
    if unknown:
        options().error(f"no stage {', '.join(unknown)}; stages: {', '.join(stage.name for stage in STAGES)}")
    return tuple(stage for stage in STAGES if stage.name in names)


def run_night(
    spark: SparkSession,
    conf: Conf,
    asked: date,
    day: date,
    stages: Sequence[Stage],
    run_id: str | None = None,
    summary: Path | None = None,
) -> int:
    """One night (or one range of days up to it) under its lock; a failure leaves its summary (also at `summary`) and goes on up."""
    run = open_run(spark, conf, Night.of(day, conf), asked, run_id)
    try:
        return under_lock(run, stages, summary)
    except OSError as error:  # met outside of a stage, such as by the lock
        if failure := of_the_disk(run, error):
            raise failure from error
        raise


def under_lock(run: Run, stages: Sequence[Stage], summary: Path | None) -> int:
    spark, conf, asked, day = run.spark, run.conf, run.asked, run.night.day
    progress = Progress(spark, len(stages))
    begun = time.monotonic()
    names = logs.naming(run_id=run.run_id, day=str(day))
    with night_lock(conf.workdir, day, run.run_id), logs.to_file(run.run_dir / "log.jsonl", progress.say), names:
        told = f"{asked} to {day}" if asked != day else f"{day}"
        progress.say(f"night {told}, run {run.run_id}, configuration {conf.name}, as of {run.night.as_of:%Y-%m-%d %H:%M} UTC")
        logs.tell("night started", configuration=conf.name, asked_from=str(asked), stages=[stage.name for stage in stages])
        try:
            for stage in stages:
                run_stage(run, stage, progress)
            code, reason = ending(run)
            if score.STAGE in stages:
                write_views(spark, conf)
            return finish(run, code, reason, begun, progress, summary)
        except KeyboardInterrupt:
            finish(run, AGAIN, f"{stage.name} was {STOPPED}", begun, progress, summary)
            raise
        except Exception as error:
            try:
                finish(run, code_of(error), f"{type(error).__name__}: {error}", begun, progress, summary)
                report.write_failed(run, str(error).splitlines()[0])
            except Exception as second:  # the first error is the one to show
                progress.say(f"no summary or no report: {type(second).__name__}: {second}")
            raise


def ending(run: Run) -> tuple[int, str]:
    """Exit code and reason of a night whose stages all ended; a refused candidate is told each time its night is run."""
    decided = run.counts_of("publish_model") if any(row["stage"] == "publish_model" for row in run.records) else {}
    if decided.get("refused"):
        return REFUSED, publish_model.status_of(decided)
    return DONE, "done"


def finish(run: Run, code: int, reason: str, begun: float, progress: Progress, also: Path | None = None) -> int:
    """Write `run_summary.json` (the same `also` elsewhere) and say how it ended."""
    seconds = time.monotonic() - begun
    summary = {
        "run_id": run.run_id,
        "day": run.night.day,
        "asked_from": run.asked,
        "as_of": run.night.as_of,
        "exit_code": code,
        "reason": reason,
        "seconds": round(seconds, 1),
        "stages": run.records,
        "waiting": run.waiting,
        "report": str(run.run_dir / "report.html"),
    }
    path = write_summary(run.run_dir / "run_summary.json", summary)
    if also:
        write_summary(also, summary)
    logs.tell("night ended", logging.INFO if code in SAID else logging.ERROR, exit_code=code, message=reason, seconds=round(seconds, 1))
    write_metrics(run, code, seconds, progress.say)
    progress.say(f"{ {DONE: 'done', REFUSED: 'done, candidate refused,'}.get(code, 'FAILED') } in {seconds:.1f} s; {path}")
    if any(row["stage"] == "report" and row["status"] == "done" for row in run.records):
        progress.say(f"report  {run.run_dir / 'report.html'}\nscores  {table_path(run.conf.workdir, 'scores')} (day {run.night.scored})")
    return code


if __name__ == "__main__":
    main(nightly)
