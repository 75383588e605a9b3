"""Walk forward over finished days: every way to calibrate beside the others, fitted on days before a day and judged on it.

python jobs/backtest.py --conf-file conf/demo.yaml [--from 2026-05-09] [--to 2026-05-13] [--every 1] [--regimes stale,fresh]

By the clock of a night whose held-out day M is measured, a model is trained up to M-2 and a calibrator fitted up to M-1; with --every 7 a week
takes the place of a day. `fresh` trains a model for each, `stale` keeps the first. Errors on the days on which the night's scores would be used
stand beside those on M. Reads `examples` (its labels must be final), writes the table `backtest`, `<workdir>/backtest/report.html` and, to go
on where it stopped, models and their counted traffic in `<workdir>/backtest`: these are kept until that folder is deleted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from conf.template import Template
from etl import schemas
from etl.runs import fingerprint
from etl.scores import served_rows
from etl.session import start
from etl.splits import ONE_DAY, Night
from etl.tables import TableError, create_tables, frame_of, overwrite_days, read, read_days
from etl.traffic import traffic_bins
from etl.truth import has_truth, true_rows, with_truth
from jobs import train
from jobs.common import DONE, Run, conf_of, day_option, main, open_run, parser, write_whole
from models.bundle import read_meta
from models.calibration import Segments
from models.methods import methods
from models.predictor import predict
from models.traffic import traffic_of, values_of
from models.walk_forward import Window, walk
from validation.backtest import page, summary, told

REGIMES = ("stale", "fresh")
RIDGE = 20.0  # of the methods that do not estimate it, where calibration.ridge is null: a spread of .22 between values, 1 / .22^2
POOLING = 10.0  # where calibration.pooling is 0: a spread of .3 between the levels of cells, 1 / .3^2


def run(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--from", dest="first", type=day_option, help="first measured day; by default the first with all training days before it"
    )
    options.add_argument("--to", dest="last", type=day_option, help="last measured day; by default the last whose labels are final")
    options.add_argument(
        "--every", type=int, default=1, metavar="DAYS", help="days measured, and fitted on, at a time; 7 for a week (default: 1)"
    )
    options.add_argument("--regimes", default=",".join(REGIMES), help="stale: the first model for all days; fresh: a model for each")
    arguments = options.parse_args(argv)
    regimes = arguments.regimes.split(",")
    if arguments.every < 1 or not set(regimes) <= set(REGIMES):
        options.error(f"--every is at least 1, and --regimes names {', '.join(REGIMES)}")
    conf = conf_of(arguments)
    spark = start(conf.spark, f"adtower {conf.name} backtest")
    try:
        create_tables(spark, conf)
        rows = backtest(spark, conf, regimes, arguments.first, arguments.last, arguments.every)
    finally:
        spark.stop()
    found = summary(rows, "day")
    print("\n".join(told(found)))
    path = write_whole(
        folder_of(conf) / "report.html", page(conf.name, conf.simulation is not None, rows, found, conf.calibration.features)
    )
    print(f"backtest: {path}", file=sys.stderr)
    return DONE


def backtest(
    spark: SparkSession, conf: Conf, regimes: Sequence[str], first: date | None = None, last: date | None = None, every: int = 1
) -> pd.DataFrame:
    """The rows of the walks, which the table `backtest` gets too: one a regime, kind of days, head, tower, method and window."""
    days = read(spark, conf.workdir, schemas.examples(conf)).agg(F.min("day"), F.max("day")).first()
    if days is None or days[0] is None:
        raise TableError("examples has no rows to walk over; build some days first: jobs/nightly.py --only ingest,build_examples")
    windows = list(windows_of(conf, days[0], days[1], first, last, every))
    night = open_run(spark, conf, Night.of(days[1], conf), days[1])
    found: list[dict[str, object]] = []
    for regime in regimes:
        stamp = {"regime": regime, "run_id": night.run_id}
        of_regime = [stamp | row for row in Walk(night, regime, days[0], windows).rows()]
        frame = frame_of(spark, of_regime, schemas.BACKTEST)
        overwrite_days(frame, conf.workdir, schemas.BACKTEST, date.min, date.max, also={"regime": regime})
        found += of_regime
    return pd.DataFrame(found)


def windows_of(conf: Conf, first_day: date, last_day: date, first: date | None, last: date | None, every: int) -> Iterator[Window]:
    """Windows from `first` on that end by `last`, of days first_day..last_day of which the last have no final labels yet."""
    final = last_day - (conf.label_days - 1) * ONE_DAY
    measured = first or first_day + (conf.clock.train_days + every) * ONE_DAY
    until = min(last or final, final)
    if measured - (every + 1) * ONE_DAY < first_day or measured + (every - 1) * ONE_DAY > until:
        raise TableError(
            f"no {every} days to measure from {measured} to {until}: examples has {first_day} to {last_day}, labels are final to {final}, and "
            f"before the measured days it takes {every} to fit and one or more to train (by default clock.train_days, {conf.clock.train_days}); "
            f"choose with --from and --to, or build more days"
        )
    while (end := measured + (every - 1) * ONE_DAY) <= until:
        scored = end + conf.label_days * ONE_DAY, end + (conf.label_days + every - 1) * ONE_DAY
        yield Window((measured, end), scored if scored[1] <= final else None, measured - (every + 1) * ONE_DAY)
        measured = end + ONE_DAY


@dataclass(frozen=True)
class Walk:
    """One regime over the windows. `run`: of the last night that built examples; `first_day`: the first that there is."""

    run: Run
    regime: str
    first_day: date
    windows: Sequence[Window]

    def rows(self) -> Iterator[dict[str, object]]:
        how = self.run.conf.calibration
        frames = list(self.frames())
        values = values_of(frames, how.features)
        traffic = [traffic_of(frame, values) for frame in frames]
        windows = [Window(one.measured, one.scored, self.trained_to(one)) for one in self.windows]
        # A fresh model has served no more than one window before the measured one.
        tried = [one for one in methods(how.pooling or POOLING, bool(how.features)) if one.windows == 1 or self.regime != "fresh"]
        yield from walk(windows, traffic, tried, Segments(values, how.ridge or RIDGE))

    def trained_to(self, window: Window) -> date:
        return (self.windows[0] if self.regime == "stale" else window).trained_to

    def frames(self) -> Iterator[pd.DataFrame]:
        """Counted traffic of each window's model."""
        last: tuple[date, date] | None = None
        for place, window in enumerate(self.windows):
            to = self.trained_to(window)
            if self.regime == "stale":
                until = max(one.scored[1] if one.scored else one.measured[1] for one in self.windows)
            else:
                until = window.scored[1] if window.scored else window.measured[1]
            if (to, until) != last:
                last = to, until
                frame = self.counted(to, until, f"backtest: {self.regime} {place + 1}/{len(self.windows)}")
            yield frame

    def counted(self, trained_to: date, until: date, prefix: str) -> pd.DataFrame:
        """Traffic of the model trained up to `trained_to` on the days after, as of etl/traffic.py; kept in a file."""
        conf = self.run.conf
        first = max(trained_to - (conf.clock.train_days - 1) * ONE_DAY, self.first_day)
        chosen = train.Plan(first, trained_to, None)
        inputs = self.run.contents.of_days("examples", first, trained_to)
        model = fingerprint("backtest", inputs, train.reads(conf))
        folder = folder_of(conf) / model
        seen = self.run.contents.of_days("examples", trained_to + ONE_DAY, until)
        kept = folder / f"traffic-{fingerprint(seen, list(conf.calibration.features))}.parquet"
        if kept.is_file():
            print(f"{prefix}: model {model}, kept", file=sys.stderr, flush=True)
            return pd.read_parquet(kept)
        print(f"{prefix}: model {model} trained on {first} to {trained_to}, replayed to {until}", file=sys.stderr, flush=True)
        bundle = folder / "bundle"
        if not (bundle / "bundle.json").is_file():
            train.write_training_snapshot(self.run, chosen, folder / "snapshot")
            train.fit(conf, chosen, model, bundle, folder / "snapshot")
            shutil.rmtree(folder / "snapshot")
        frame = self.replayed(bundle, model, trained_to + ONE_DAY, until)
        return write_frame(kept, frame)

    def replayed(self, bundle: Path, model: str, first: date, last: date) -> pd.DataFrame:
        spark, conf = self.run.spark, self.run.conf
        meta = read_meta(bundle)
        examples = read_days(spark, conf.workdir, schemas.examples(conf), first, last)
        predictor = partial(predict, str(bundle))
        served = served_rows(examples, conf, Template.model_validate(meta["template"]), meta["towers"], predictor, model_id=model)
        truth = has_truth(conf)
        if truth:
            served = with_truth(served, true_rows(spark, conf, "impressions", first, last))
        served = served.persist()
        try:
            return traffic_bins(served, conf.heads, conf.calibration.features, (last - first).days + 1, truth)
        finally:
            served.unpersist()


def write_frame(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Write Parquet whole or not at all; the frame."""
    scratch = path.with_suffix(".tmp")
    frame.to_parquet(scratch)
    os.replace(scratch, path)
    return frame


def folder_of(conf: Conf) -> Path:
    return Path(conf.workdir).resolve() / "backtest"


if __name__ == "__main__":
    main(run)
