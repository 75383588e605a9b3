"""A head `share` and a fourth source come in by configuration alone: do the old heads predict the old sources as well as before?

python -m tests.benchmarks.growing [--impressions 40000] [--days 11] [--folder var/benchmarks/growing]

A simulated platform of three sources and four heads trains a model. Then its YAML grows: tables are migrated, the days built again, and the
model goes on, warm, on the next day, with the new source's rows and the new head's labels. The peer is the same warm start on the same day
under the old YAML. Both score the same later day. The simulator knows three sources and no shares, so tablets' rows of `standard` are the
third source here, `video` is the one that comes in, and its saves are called shares.

Printed for each old head x old source: normalized entropy (NE) without and with the growth, the 95% interval of the first, and that of their
difference, paired; both by bootstrap over users. Promised: no NE moves by more than half the width of its own interval. The history features
of old rows change too, as they count what users did in the new source.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from conf.load import load, load_text
from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded
from etl.migrations import migrate
from etl.session import start
from etl.simulate import simulate
from etl.snapshot import write_snapshot
from etl.splits import Night
from etl.tables import create_tables, pin, read_days
from jobs import build_examples, ingest
from jobs.nightly import run_night
from models.manifest import parents_of
from models.predictor import Predictor
from models.trainer import TrainRequest, TrainResult, train
from tests.benchmarks.impressions_only import impressions_only

ROOT = Path(__file__).parents[2]
NEW_SOURCE, NEW_HEAD = "video", "share"
OLD_SOURCES = ["standard", "shopping", "tablet"]
REPLICATES = 1000


def platform(folder: Path, impressions: int, days: int) -> dict[str, Any]:
    """conf/demo.yaml as a mapping: no inventory, tablets apart, no head `save` yet."""
    text = impressions_only(ROOT / "conf" / "demo.yaml", days=days, impressions_a_day=impressions)
    sources = text["sources"]
    standard = sources["standard_impressions"]
    sources["tablet_impressions"] = standard | {"source": "tablet", "where": "device = 'tablet'"}
    sources["standard_impressions"] = standard | {"where": "coalesce(device, '') <> 'tablet'"}
    del text["heads"]["save"]
    text["template"]["features"] = [one for one in text["template"]["features"] if "_save_" not in one["column"]]
    return text | {"sources": sources, "workdir": str(folder / "tables"), "landing": str(folder / "landing")}


def before(text: dict[str, Any]) -> Conf:
    old = with_source_vocabulary(text, OLD_SOURCES)
    old["sources"] = {name: block for name, block in old["sources"].items() if block["source"] != NEW_SOURCE}
    return load_text("before", old)


def grown(text: dict[str, Any]) -> Conf:
    new = with_source_vocabulary(text, [*OLD_SOURCES, NEW_SOURCE])
    new["heads"][NEW_HEAD] = {"action": "save", "window_hours": 24, "utility_weight": 2}
    return load_text("grown", new)


def with_source_vocabulary(text: dict[str, Any], sources: list[str]) -> dict[str, Any]:
    """What a person who adds a source also writes into the template."""
    changed = copy.deepcopy(text)
    for feature in changed["template"]["features"]:
        if feature["column"] == "source":
            feature["vocabulary"] = sources
    return changed


def snapshot(spark: SparkSession, conf: Conf, name: str, first: date, last: date) -> Path:
    table, target = schemas.examples(conf), Path(conf.workdir) / "snapshots" / name
    source = pin(spark, conf.workdir, table)
    rows = read_days(spark, conf.workdir, table, first, last, source.version)
    write_snapshot(rows, conf, target, examples_version=source.version, table_id=source.table_id, days=(first, last))
    return target


def trained(conf: Conf, rows: Path, parent: TrainResult | None = None) -> TrainResult:
    bundle = Path(conf.workdir) / "models" / rows.name
    parent_dir = parent.bundle_dir if parent else None
    return train(TrainRequest(str(rows), str(bundle), rows.name, conf.model, conf.training, epochs=1, seed=conf.seed, parent=parent_dir))


def scored(spark: SparkSession, conf: Conf, model: TrainResult, day: date) -> pd.DataFrame:
    """Rows of a day, by impression_id: who (its user), where (its tower), label_<head>, and z_<head>, the model's log-odds."""
    predictor = Predictor(model.bundle_dir)
    labels = [f"label_{head}" for head in conf.heads]
    rows = read_days(spark, conf.workdir, schemas.examples(conf), day, day)
    rows = rows.withColumns({"who": rows["user_id"], "where": rows["tower"]})  # beside their encoded namesakes
    found = encoded(rows, conf.template, predictor.towers, keep=("impression_id", "who", "where", *labels)).toPandas()
    log_odds = predictor.log_odds({str(name): found[name].to_numpy() for name in found})
    kept = found[["impression_id", "who", "where", *labels]]
    return kept.assign(**{f"z_{head}": log_odds[:, h] for h, head in enumerate(conf.heads)}).set_index("impression_id").sort_index()


@dataclass(frozen=True)
class Compared:
    """One head in one source; NE with its half interval, and the paired difference with its interval (95%, over users)."""

    head: str
    tower: str
    rows: int
    positives: int
    without: float
    half: float
    with_growth: float
    low: float
    high: float

    @property
    def moved(self) -> float:
        return self.with_growth - self.without

    def __str__(self) -> str:
        return (
            f"{self.head:<11}{self.tower:<10}{self.rows:>8,} rows {self.positives:>6,} positives  NE {self.without:.4f} ± {self.half:.4f} "
            f"without, {self.with_growth:.4f} with, {self.moved:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
        )


def compared(without: pd.DataFrame, with_growth: pd.DataFrame, conf: Conf, sources: list[str]) -> Iterator[Compared]:
    """Cells of the heads of `conf` with both classes; `with_growth` may hold further rows and heads."""
    for head, parent in zip(conf.heads, parents_of(conf.heads), strict=True):
        known = without[f"label_{head}"].notna()
        if parent >= 0:
            known &= without[f"label_{list(conf.heads)[parent]}"] == 1
        for tower in sources:
            own = without[known & (without["where"] == tower)]
            other = with_growth.loc[own.index]
            label = own[f"label_{head}"].to_numpy(dtype=float)
            assert (other[f"label_{head}"].to_numpy(dtype=float) == label).all(), "the growth changed an old label"
            if 0 < label.sum() < len(label):
                log_odds = np.stack([own[f"z_{head}"], other[f"z_{head}"]], axis=1)
                yield cell(head, tower, label, log_odds, clusters(own["who"]))


def clusters(user: pd.Series) -> np.ndarray:
    """A number a user; each row without one is a user of its own."""
    codes = pd.factorize(user)[0]
    lone = codes < 0
    codes[lone] = codes.max(initial=0) + 1 + np.arange(lone.sum())
    return codes


def cell(head: str, tower: str, label: np.ndarray, log_odds: np.ndarray, user: np.ndarray) -> Compared:
    loss = np.logaddexp(0, log_odds) - label[:, None] * log_odds
    users = user.max() + 1
    sums = np.stack([np.bincount(user, values, users) for values in (np.ones(len(label)), label, loss[:, 0], loss[:, 1])], axis=1)
    draws = np.random.default_rng(1).poisson(1.0, (REPLICATES, users)) @ sums
    entropy = normalized(draws[(draws[:, 1] > 0) & (draws[:, 1] < draws[:, 0])])
    without, with_growth = normalized(sums.sum(0, keepdims=True))[0]
    low, high = np.quantile(entropy[:, 1] - entropy[:, 0], (0.025, 0.975))
    half = float(np.diff(np.quantile(entropy[:, 0], (0.025, 0.975)))[0]) / 2
    return Compared(head, tower, len(label), int(label.sum()), float(without), half, float(with_growth), float(low), float(high))


def normalized(sums: np.ndarray) -> np.ndarray:
    """[N, (rows, positives, loss, other loss)] -> NE of both [N, 2]."""
    rate = sums[:, 1] / sums[:, 0]
    return (sums[:, 2:] / sums[:, :1]) / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))[:, None]


def measure(spark: SparkSession, impressions: int, days: int, folder: Path) -> dict[str, object]:
    text = platform(folder, impressions, days)
    old, new = before(text), grown(text)
    assert old.simulation is not None
    simulate(spark, load_text("world", text | {"workdir": str(folder / "world")}), lambda line: print(f"growing: {line}", file=sys.stderr))
    shutil.rmtree(old.workdir, ignore_errors=True)
    first = old.simulation.first_day
    night = Night.of(first + timedelta(days=days - 1), old)
    known_to, next_day, stages = night.train_to - timedelta(days=1), night.train_to, (ingest.STAGE, build_examples.STAGE)

    create_tables(spark, old)
    run_night(spark, old, first, night.day, stages)
    parent = trained(old, snapshot(spark, old, "parent", first, known_to))
    plain = trained(old, snapshot(spark, old, "plain", next_day, next_day), parent)
    without = scored(spark, old, plain, night.held_out)

    changes = migrate(spark, new)
    run_night(spark, new, first, night.day, stages)
    child = trained(new, snapshot(spark, new, "grown", next_day, next_day), parent)
    with_growth = scored(spark, new, child, night.held_out)

    cells = list(compared(without, with_growth, old, OLD_SOURCES))
    for one in cells:
        print(one, file=sys.stderr)
    added = [
        one
        for one in compared(with_growth, with_growth, new, [*OLD_SOURCES, NEW_SOURCE])
        if one.head == NEW_HEAD or one.tower == NEW_SOURCE
    ]
    return {
        "benchmark": "growing",
        "simulated": True,
        "impressions_a_day": impressions,
        "trained_on": {"parent_days": (known_to - first).days + 1, "plain": plain.rows, "grown": child.rows},
        "migrated": len(changes),
        "carried": len(child.carried),
        "fresh": child.fresh,
        "cells": len(cells),
        "moved_beyond_interval": [f"{one.head}/{one.tower}" for one in cells if abs(one.moved) > one.half],
        "worse_beyond_paired_interval": [f"{one.head}/{one.tower} {one.moved:+.4f}" for one in cells if one.low > 0],
        "mean_move": round(float(np.mean([one.moved for one in cells])), 5),
        "new_cells_ne": {f"{one.head}/{one.tower}": round(one.with_growth, 3) for one in added},
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--impressions", type=int, default=40_000, help="a day, of all sources")
    options.add_argument("--days", type=int, default=11, help="simulated; the last five are later than the last training day")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "growing")
    given = options.parse_args()
    session = start(load(ROOT / "conf" / "demo.yaml").spark, "benchmark growing")
    try:
        found = measure(session, given.impressions, given.days, given.folder.resolve())
    finally:
        session.stop()
    print(json.dumps(found))
    sys.exit(bool(found["moved_beyond_interval"]))
