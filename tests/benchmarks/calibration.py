"""How much miscalibration does each calibrator remove, in worlds whose truth is known? All of it is simulated.

python -m tests.benchmarks.calibration [--worlds null,walk,trend,step,prod] [--replicates 8] [--impressions 40000] [--folder F]

Per world and seed: 21 days are simulated and built by the real ETL, then jobs/backtest.py walks over days 7 to 14, each measured one day after the
last fit day; a stale model is of days 1 to 5, a fresh one of five days as well. Seeds are the last eight of a world, which no tuning saw; the ridge
of `featured` (20) and the pooling (10) were set beforehand, `own ridge` is estimated by each fit (calibration.ridge: null). Finished worlds are
kept in the folder, so it goes on where it stopped; tables and counted traffic too, so that --again only lays methods side by side anew.

Errors are against the true probabilities, of cells with 100 positives and more on the fit day, intervals by drawing seeds again, of a single seed its
days. Printed a world and regime: the claims of the README, and every method's figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from conf.load import load, load_text
from conf.schema import Conf
from conf.world import load_world
from etl.session import start
from etl.simulate import simulate
from etl.splits import Night
from etl.tables import create_tables
from jobs import build_examples, ingest
from jobs.backtest import REGIMES, backtest, write_frame
from jobs.nightly import run_night
from models.methods import NOISE, ORACLE, RAW
from models.walk_summary import Cells, Estimate
from tests.benchmarks.impressions_only import impressions_only
from validation.backtest import ENOUGH, summary, told

ROOT = Path(__file__).parents[2]
WORLDS = ("null", "walk", "trend", "step", "prod")
FADED = "of 7, half-life 2"  # what a night does by default
SHOWN = (
    *("platt", f"platt {FADED}", "pooled", "pooled of 7", "isotonic"),
    *("featured", "own ridge", f"featured {FADED}", f"own ridge {FADED}"),
)
DAYS, FIRST_MEASURED, MEASURED, TRAIN_DAYS = 21, 7, 8, 5


def settings(folder: Path, world: str, seed: int, impressions: int) -> Conf:
    """conf/demo.yaml in that world, without inventory. `seed`: place among its last eight."""
    replicate = len(load_world(world).seeds) - 8 + seed
    simulation = {"world": world, "replicate": replicate, "days": DAYS, "impressions_a_day": impressions}
    text = impressions_only(ROOT / "conf" / "demo.yaml", **simulation)
    text["clock"] |= {"train_days": TRAIN_DAYS}
    text["calibration"] |= {"features": ["country", "device"]}
    return load_text("calibration", text | {"workdir": str(folder / f"{world}-{seed}"), "landing": ""})


def build(spark: SparkSession, conf: Conf) -> None:
    assert conf.simulation is not None
    first = conf.simulation.first_day
    simulate(spark, conf, lambda line: print(f"calibration: {line}", file=sys.stderr))
    create_tables(spark, conf)
    run_night(spark, conf, first, Night.of(first + timedelta(days=DAYS - 1), conf).day, (ingest.STAGE, build_examples.STAGE))
    (Path(conf.workdir) / "built").touch()


def walked(spark: SparkSession, conf: Conf) -> pd.DataFrame:
    assert conf.simulation is not None
    begin = conf.simulation.first_day + timedelta(days=FIRST_MEASURED - 1)
    return backtest(spark, conf, REGIMES, begin, begin + timedelta(days=MEASURED - 1))


def kept(folder: Path, world: str, seed: int) -> Path:
    return folder / f"{world}-{seed}.parquet"


def measure(folder: Path, worlds: Sequence[str], seeds: int, impressions: int, again: bool) -> None:
    """One seed of each world, then the next: stopped early, all worlds have as many."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(world, seed) for seed in range(seeds) for world in worlds if again or not kept(folder, world, seed).is_file()]
    if not missing:
        return
    spark = start(load(ROOT / "conf" / "demo.yaml").spark, "benchmark calibration")
    try:
        for world, seed in missing:
            began, conf = time.monotonic(), settings(folder, world, seed, impressions)
            if not (Path(conf.workdir) / "built").exists():
                build(spark, conf)
            rows = walked(spark, conf).assign(world=world, seed=seed)
            for logs in ("landing", "truth"):
                shutil.rmtree(Path(conf.workdir) / logs, ignore_errors=True)
            write_frame(kept(folder, world, seed), rows)
            print(f"calibration: {world} {seed + 1}/{seeds} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        spark.stop()


def claims(rows: pd.DataFrame, unit: str) -> Iterator[dict[str, object]]:
    """By world and regime, against the truth where nothing else is said. `unit`: what intervals draw again."""
    for (world, regime), part in rows.groupby(["world", "regime"], sort=False):
        large, small = (part[of] for of in (part["fit_positives"] >= ENOUGH, part["fit_positives"] < ENOUGH))
        cells, few, scored = Cells(large, unit), Cells(small, unit), Cells(large, unit, "scored")
        line: dict[str, object] = {
            "benchmark": "calibration",
            "simulated": True,
            "world": world,
            "regime": regime,
            "seeds": int(part["seed"].nunique()),
        }
        line |= {"interval_over": unit, "cells": len(cells.units), "oracle": rounded(cells.mean("error_true", ORACLE))}
        line |= {"noise_of_labels": rounded(cells.mean("error_observed", NOISE))}
        for method in (RAW, *SHOWN):
            if method not in cells.methods:  # of a look-back that a fresh model does not have
                continue
            alike = f"platt {FADED}" if method.endswith(FADED) else "platt"
            line[method] = {
                "error": rounded(cells.mean("error_true", method)),
                "beyond_oracle": rounded(cells.more("error_true", method, ORACLE)),
                "removed": rounded(cells.removed("error_true", method)),
                "removed_against_labels": rounded(cells.removed("error_observed", method)),
                "removed_on_scored_days": rounded(scored.removed("error_true", method)),
                "log_loss_over_platt": rounded(cells.more_loss(method, "platt")),
                "segments": rounded(cells.mean("segments_true", method)),
                "segments_below_platt": rounded(cells.removed("segments_true", method, alike)),
                "small_cells": rounded(few.mean("error_true", method)),
                "small_cells_minus_raw": rounded(few.more("error_true", method, RAW)),
            }
        yield line


def rounded(estimate: Estimate) -> list[float]:
    return [round(value, 4) for value in estimate]


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--worlds", default=",".join(WORLDS))
    options.add_argument("--replicates", type=int, default=8, choices=range(1, 9))
    options.add_argument("--impressions", type=int, default=40_000, help="a day")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "calibration")
    options.add_argument("--again", action="store_true", help="lay methods side by side anew, on traffic that is kept")
    given = options.parse_args()
    chosen = given.worlds.split(",")
    measure(given.folder, chosen, given.replicates, given.impressions, given.again)
    found = pd.concat(
        [pd.read_parquet(kept(given.folder, world, seed)) for world in chosen for seed in range(given.replicates)], ignore_index=True
    )
    unit = "seed" if given.replicates > 1 else "day"
    for world in chosen:
        print(world, *told(summary(found[found["world"] == world], unit)), sep="\n", file=sys.stderr)
    for line in claims(found, unit):
        print(json.dumps(line), flush=True)
