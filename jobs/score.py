"""The next day's inventory, scored and calibrated -> `scores`, then published. A stage of jobs/nightly.py."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pyspark.errors import PythonException
from pyspark.sql import functions as F

from etl import schemas
from etl.entities import first_state_day, with_entity
from etl.history import first_history_day, wanted, with_history
from etl.landing import InputMissing, pattern
from etl.registry import calibrator_file, model_dir, publish
from etl.runs import fingerprint
from etl.scores import ScoringError, score_inventory
from etl.splits import start_of
from etl.tables import overwrite_days, pin, read_days
from jobs.calibrate import candidate
from jobs.common import SCORING, Outcome, Run, Stage, StageFailed
from jobs.gate import judged_alone, of_this_night
from models.bundle import read_meta
from models.predictor import predict_probabilities
from validation.gate import Judged


def inputs(run: Run) -> dict[str, str]:
    chosen, scored = candidate(run), run.night.scored
    found = {"model": chosen.model} | run.contents.of_file(calibrator_file(chosen.model, run.night.day))
    for table in ("users", "ads"):
        found |= run.contents.of_days(table, first_state_day(scored, run.conf), run.night.day)
    if wanted(run.conf):
        found |= run.contents.of_days("history", first_history_day(scored, run.conf), run.night.day)
    return found | run.contents.of_days("inventory", scored, scored)


def work(run: Run) -> Outcome:
    conf, spark, chosen, scored = run.conf, run.spark, candidate(run), run.night.scored
    table = schemas.inventory(conf)
    source = pin(spark, conf.workdir, table)
    rows = read_days(spark, conf.workdir, table, scored, scored, source.version)
    if rows.isEmpty():
        wanted = [pattern(conf, block, scored) for block in conf.sources.values() if block.kind == "inventory"]
        raise InputMissing(f"no inventory for {scored}; deliver {' or '.join(wanted) or 'one: no block of kind inventory is configured'}")
    for family in ("user", "ad"):
        states = read_days(spark, conf.workdir, schemas.entity(conf, family), first_state_day(scored, conf), run.night.day)
        rows = with_entity(rows, states, conf, family, scored, scored, F.lit(start_of(scored)))
    history = read_days(spark, conf.workdir, schemas.history(conf), first_history_day(scored, conf), run.night.day)
    rows = with_history(rows, history, conf, scored, scored)
    bundle, calibrator = (
        model_dir(conf, chosen.model),
        (Path(conf.workdir) / calibrator_file(chosen.model, run.night.day)).read_text(encoding="utf-8"),
    )
    try:
        scores = score_inventory(
            rows,
            conf,
            read_meta(bundle)["towers"],
            partial(predict_probabilities, str(bundle), calibrator),
            model_id=chosen.model,
            calibrator_id=fingerprint(calibrator),
            inventory_version=source.version,
            run_id=run.run_id,
            scored_at=datetime.now(UTC),
        )
        overwrite_days(scores, conf.workdir, schemas.scores(conf), scored, scored)
    except (PythonException, ScoringError) as error:
        raise StageFailed(str(error), SCORING) from error
    count, table = require_balance(run), schemas.scores(conf)
    rows = read_days(spark, conf.workdir, table, scored, scored)
    judged = judged_alone(run, Judged(table, rows, scored, scored, usual=False), of_this_night(run, schemas.PUBLICATIONS))
    publish(spark, conf, run.night.day, run.run_id, "scores", chosen.model, scored)
    return Outcome(
        (f"scores/{scored}", f"publications/{run.night.day}"),
        {"rows": count, "scored": scored.isoformat(), **judged},
        f"{count:,} rows of {scored} scored",
    )


def require_balance(run: Run) -> int:
    """Every inventory row is scored exactly once."""
    scored = run.night.scored
    counts = [
        int(next(iter(run.contents.of_days(table, scored, scored).values()), "0:").split(":")[0]) for table in ("inventory", "scores")
    ]
    if counts[0] != counts[1]:
        raise StageFailed(f"{scored}: {counts[0]} inventory rows became {counts[1]} scores; one each is promised", SCORING)
    return counts[1]


STAGE = Stage(
    name="score",
    packages=("etl", "models", "validation"),
    reads=lambda conf: [conf.model_dump(mode="json", include={"heads", "template", "clock", "history"})],
    inputs=inputs,
    work=work,
)
