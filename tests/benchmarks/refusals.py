"""How often the gate refuses a candidate that is worse by so much: 40 simulated held-out days for each of five amounts.

python -m tests.benchmarks.refusals [--runs 40] [--rows 60000]

Simulated, without training: true log-odds of users and rows, three towers, five heads. Production knows them with an error; a candidate shares
half of its variance and has another one of its own, which is widened until the normalised entropy of all heads together is higher by 0, 0.5, 1, 2 or
5% on many rows. Each run draws a day to calibrate both on and a day to judge them on, and asks for the verdict as publish_model does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from conf.load import load
from etl.session import start
from jobs.publish_model import verdict_on
from models.calibration import Cell
from models.metrics import sigmoid
from models.platt import fit_platt

ROOT = Path(__file__).parents[2]
RATES = {"click": 0.035, "good_click": 0.4, "scroll_up": 0.085, "save": 0.007, "hide": 0.002}  # good_click: given a click
TOWERS, SHARES = ("standard", "shopping", "video"), (0.6, 0.3, 0.1)
USERS = 20_000
SHARED, OWN = 0.5, 0.25  # sd of the error that both models make, and of production's own
WORSE = (0.0, 0.005, 0.01, 0.02, 0.05)
Cells = dict[tuple[str, str], Cell]


def drawn(random: np.random.Generator, rows: int, wide: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A day's rows of `served` by the candidate, whose own error has sd `wide`, and by production."""
    rank = np.arange(1, USERS + 1) ** -0.8
    user = random.choice(USERS, rows, p=rank / rank.sum())
    fixed = {
        "impression_id": np.arange(rows).astype(str),
        "user_id": user.astype(str),
        "tower": random.choice(TOWERS, rows, p=SHARES),
    }
    labels: dict[str, np.ndarray] = {}
    ours, theirs = {}, {}
    for head, rate in RATES.items():
        z = np.log(rate / (1 - rate)) - 0.4 + random.normal(0, 0.6, USERS)[user] + random.normal(0, 0.7, rows)
        label = (random.random(rows) < sigmoid(z)).astype(float)
        if head == "good_click":
            label = np.where(labels["label_click"] == 1, label, 0.0)
        if head == "scroll_up":
            label[fixed["tower"] == "video"] = np.nan
        labels[f"label_{head}"] = label
        # Half of each error is the user's, on all of the user's rows alike.
        both, own, other = (sd * (random.normal(0, 0.7, USERS)[user] + random.normal(0, 0.7, rows)) for sd in (SHARED, wide, OWN))
        ours[f"logit_{head}"], theirs[f"logit_{head}"] = z + both + own, z + both + other
    frame = pd.DataFrame(fixed | labels)
    return frame.assign(**ours), frame.assign(**theirs)


def known(rows: pd.DataFrame, head: str, tower: str) -> pd.DataFrame:
    chosen = rows[(rows["tower"] == tower) & rows[f"label_{head}"].notna()]
    return chosen[chosen["label_click"] == 1] if head == "good_click" else chosen


def fitted(rows: pd.DataFrame, min_positives: int) -> Cells:
    cells: Cells = {}
    for head in RATES:
        for tower in TOWERS:
            part = known(rows, head, tower)
            label = part[f"label_{head}"].to_numpy()
            if label.sum() >= min_positives:
                cells[head, tower] = Cell("platt", *fit_platt(part[f"logit_{head}"].to_numpy(), label, np.ones(len(label))))
    return cells


def loss(rows: pd.DataFrame, cells: Cells) -> float:
    total = 0.0
    for (head, tower), cell in cells.items():
        part = known(rows, head, tower)
        z = part[f"logit_{head}"].to_numpy() * (1 + cell.b1) + cell.b0
        total += float((np.logaddexp(0, z) - part[f"label_{head}"].to_numpy() * z).sum())
    return total


def width_for(worse: float, rows: int = 500_000) -> float:
    """The sd of the candidate's own error with which its normalised entropy is higher by `worse`, on many rows."""
    if not worse:
        return OWN
    low, high = OWN, 4.0
    for _ in range(9):
        middle = (low + high) / 2
        ours, theirs = drawn(np.random.default_rng(7), rows, middle)
        rise = loss(ours, fitted(ours, 1)) / loss(theirs, fitted(theirs, 1)) - 1
        low, high = (middle, high) if rise < worse else (low, middle)
    return (low + high) / 2


def frame(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False))


def main(runs: int, rows: int) -> dict[str, object]:
    conf = load(ROOT / "conf" / "demo.yaml")
    spark = start(conf.spark, "refusals")
    curve = {}
    for place, worse in enumerate(WORSE):
        wide, begun, counted = width_for(worse), time.monotonic(), Counter[str]()
        for number in range(runs):
            random = np.random.default_rng([place, number])
            fits = tuple(fitted(day, conf.calibration.min_positives) for day in drawn(random, rows, wide))
            ours, theirs = (frame(spark, day) for day in drawn(random, rows, wide))
            counted[verdict_on(ours, theirs, (fits[0], fits[1]), conf).verdict] += 1
        curve[f"{worse:.1%}"] = {verdict: counted[verdict] for verdict in ("refuse", "too little", "publish")}
        print(f"worse by {worse:.1%}: {dict(counted)}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return {
        "benchmark": "refusals",
        "simulated": True,
        "runs": runs,
        "rows": rows,
        "max_ne_rise": conf.publication.max_ne_rise,
        "curve": curve,
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--runs", type=int, default=40, help="held-out days for each amount")
    options.add_argument("--rows", type=int, default=60_000, help="impressions of a day")
    asked = options.parse_args()
    print(json.dumps(main(asked.runs, asked.rows)))
