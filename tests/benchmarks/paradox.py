"""Does a tower a source pay? The published paradox in simulated worlds whose truth is known, against every other way to use the same rows.

python -m tests.benchmarks.paradox [--worlds base,null,mild,nested] [--seeds 8] [--a-day 80000] [--folder var/benchmarks/paradox]

A world is simulated and built by the real ETL: six days to learn from (480,000 rows), the last of which chooses epochs, and one day to be judged
on, against the true probabilities, on 8 cells: click and good_click in three sources, scroll_up in two. Learning rates of each arm are chosen
on two development worlds of `base`, which are not judged, and fixed for the rest; the eight judged seeds of each world were seen by no
tuning. The gain is of `towers` over the best, in each world, of {separate, merged, merged_large} by their mean over cells (merged_blind is
shown, and never counted); intervals draw worlds again. In `base` also save and hide of five heads in one model against a model each.
`seconds`: of training the chosen setting of each arm once, all its models together, in one process.

Finished trainings are kept in the folder, and a world's tables until it is done, so it goes on where it stopped. One JSON line a world kind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conf.arms import arm
from conf.load import load_text
from conf.schema import Conf
from conf.world import load_world
from etl.session import start
from etl.simulate import simulate
from etl.splits import ONE_DAY, start_of
from etl.tables import create_tables
from etl.trial import Split
from jobs import build_examples, ingest
from jobs.compare import Comparison
from jobs.nightly import run_night
from models.contest import ALL, TRUTH, Judged, contest
from models.trial import Setting
from models.walk_summary import bootstrap
from tests.benchmarks.impressions_only import impressions_only

ROOT = Path(__file__).parents[2]
WORLDS = ("base", "null", "mild", "nested")
RIVALS = ("merged", "merged_large", "separate")
ARMS = ("towers", *RIVALS, "merged_blind", "single_task")
OF_TASKS = "base"  # the world in which tasks are told apart too: five models cost as much as all other arms together
CELLS = ("click", "good_click", "scroll_up")
RARE = ("save", "hide")
LEARNED, DEVELOPMENT = 6, 2  # days; worlds of base, its first seeds
RATES, EPOCHS = (0.5, 1.0, 2.0), (1, 2, 3)


def settings(folder: Path, world: str, replicate: int, a_day: int) -> Conf:
    """conf/demo.yaml in that world, without inventory; days after the judged one bring its last engagements."""
    text = impressions_only(ROOT / "conf" / "demo.yaml", world=world, replicate=replicate, impressions_a_day=a_day)
    conf = load_text("paradox", text | {"workdir": str(folder / f"{world}-{replicate}"), "landing": ""})
    assert conf.simulation is not None
    days = LEARNED + conf.label_days
    return conf.model_copy(update={"simulation": conf.simulation.model_copy(update={"days": days})})


def judged(conf: Conf, choices: Sequence[Setting] | dict[str, list[Setting]], arms: Sequence[str] = ARMS) -> tuple[pd.DataFrame, dict]:
    """The table of models/contest.py of one world, and the losses on its validation day by arm and setting."""
    done = Path(conf.workdir).with_suffix(".csv")
    told = Path(conf.workdir).with_suffix(".json")
    if done.is_file() and told.is_file():
        return pd.read_csv(done), json.loads(told.read_text())
    assert conf.simulation is not None
    spark = start(conf.spark, "benchmark paradox")
    try:
        simulate(spark, conf, lambda line: print(f"paradox: {line}", file=sys.stderr))
        create_tables(spark, conf)
        first = conf.simulation.first_day
        last = first + timedelta(days=conf.simulation.days - 1)
        run_night(spark, conf, first, last, (ingest.STAGE, build_examples.STAGE))
        test = first + LEARNED * ONE_DAY
        comparison = Comparison.of(spark, conf, Split(first, test, start_of(test - ONE_DAY), start_of(test)))
        towers = comparison.rows.towers()
        answers: dict[str, np.ndarray] = {}
        losses: dict[str, dict[str, Any]] = {}
        for name in arms:
            given = choices[name] if isinstance(choices, dict) else choices
            chosen, given_answers = comparison.answered([name], given, [conf.seed])
            answers |= given_answers
            losses[name] = {str(one): loss for one, loss in comparison.losses(arm(conf, name, towers), given, conf.seed, name).items()}
            losses[name] |= {"chosen": str(chosen[name]), "seconds": comparison.seconds(name, chosen[name], [conf.seed])}
        rows = comparison.judged("test")
        table = contest(rows, answers | {"truth": true_log_odds(rows)}, draws=2)
    finally:
        spark.stop()
    table.to_csv(done, index=False)
    told.write_text(json.dumps(losses, indent=1) + "\n")
    shutil.rmtree(conf.workdir)
    return table, losses


def tuned(folder: Path, a_day: int) -> dict[str, float]:
    """Factor of the learning rates of each arm: the best mean loss on the validation days of the development worlds, epochs being free."""
    grid = [Setting(*pair) for pair in product(RATES, EPOCHS)]
    found = [judged(settings(folder, "base", replicate, a_day), grid)[1] for replicate in range(DEVELOPMENT)]
    best = {}
    for name in ARMS:
        by_rate = {rate: np.mean([min(of[name][str(Setting(rate, epochs))] for epochs in EPOCHS) for of in found]) for rate in RATES}
        best[name] = min(by_rate, key=lambda rate: by_rate[rate])
    return best


def gains(tables: Iterable[pd.DataFrame]) -> list[dict[str, float]]:
    """Of each world: relative falls of NE against the truth, mean over cells, and how many cells were won against the best rival."""
    lines = []
    for table in tables:
        true = table[(table["against"] == TRUTH) & (table["tower"] != ALL)]
        ne = true.pivot_table(index=["head", "tower"], columns="arm", values="ne", sort=False)
        cells = ne[ne.index.get_level_values("head").isin(CELLS)]
        best = cells[list(RIVALS)].mean().idxmin()
        gain = 1 - cells["towers"] / cells[best]
        rare = ne[ne.index.get_level_values("head").isin(RARE)]
        line = {"gain": gain.mean(), "won": int((gain > 0).sum()), "cells": len(cells)}
        line |= {f"over_{name}": (1 - cells["towers"] / cells[name]).mean() for name in (*RIVALS, "merged_blind")}
        if "single_task" in rare:
            line["multi_task_save_hide"] = (1 - rare["towers"] / rare["single_task"]).mean()
        lines.append(line)
    return lines


def interval(values: Sequence[float]) -> list[float]:
    """Mean and 95% interval, worlds drawn again; of one world nan."""
    of = np.array(values)
    mean, *limits = bootstrap(np.arange(len(of)), of, of, lambda one, _: one)
    return [round(value, 5) for value in (mean, *(limits if len(of) > 1 else [float("nan")] * 2))]


def true_log_odds(rows: Judged) -> np.ndarray:
    """float64 [1, N, H]; 0 where a head does not apply."""
    assert rows.truth is not None
    true = np.stack([np.nan_to_num(rows.truth[head], nan=0.5).clip(1e-9, 1 - 1e-9) for head in rows.heads], 1)
    return (np.log(true) - np.log1p(-true))[None]


def auc_short(tables: Iterable[pd.DataFrame]) -> dict[str, float]:
    """By how much the AUC of `towers` is below that of the true probabilities, by head and tower, mean over worlds."""
    of = pd.concat(tables)
    of = of[(of["against"] == TRUTH) & (of["tower"] != ALL)]
    auc = of.pivot_table(index=["head", "tower"], columns="arm", values="auc", sort=False)
    return {"/".join(map(str, cell)): round(short, 4) for cell, short in zip(auc.index, auc["truth"] - auc["towers"], strict=True)}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--worlds", default=",".join(WORLDS))
    options.add_argument("--seeds", type=int, default=8)
    options.add_argument("--a-day", type=int, default=80_000)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "paradox")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rates = tuned(given.folder, given.a_day)
    print(f"paradox: learning rates, times the configuration's: {rates}", file=sys.stderr)
    choices = {name: [Setting(rate, epochs) for epochs in EPOCHS] for name, rate in rates.items()}
    for world in given.worlds.split(","):
        last, arms = len(load_world(world).seeds), [name for name in ARMS if name != "single_task" or world == OF_TASKS]
        found = [judged(settings(given.folder, world, last - 8 + n, given.a_day), choices, arms) for n in range(given.seeds)]
        tables = [table for table, _ in found]
        of = gains(tables)
        line = {"benchmark": "paradox", "simulated": True, "world": world, "seeds": given.seeds, "rows_a_day": given.a_day, "rates": rates}
        line |= {name: interval([one[name] for one in of]) for name in of[0] if name not in ("won", "cells")}
        line |= {"cells_won": sum(one["won"] for one in of), "cells": sum(one["cells"] for one in of), "auc_below_truth": auc_short(tables)}
        line["seconds"] = {name: round(float(np.mean([losses[name]["seconds"] for _, losses in found])), 1) for name in arms}
        print(json.dumps(line), flush=True)
