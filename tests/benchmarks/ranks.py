"""Are two ranks worth having? Rows a second of two Horovod ranks of one thread each, against one rank of one thread.

python -m tests.benchmarks.ranks [--rows 400000] [--rounds 2]

Both train the same epoch from the same snapshot; what counts is the time between the first and the last step, without the start of the
ranks. The best round of each counts, in turns. One rank runs in a process of its own, with OMP_NUM_THREADS=1, as Horovod's do. `ceiling` is what
two such processes reach that exchange nothing: more than that no way to train on this machine's two cores can.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from conf.load import load
from etl.session import start
from models.trainer import TrainRequest, train
from tests.benchmarks.training_data import MODEL, made_snapshot, settings

ROOT = Path(__file__).parents[2]


def trained(snapshot: Path, bundle: Path, ranks: int) -> float:
    """Rows a second."""
    request = TrainRequest(str(snapshot), str(bundle), "benchmark", MODEL, settings(ranks), epochs=1, seed=1)
    return train(request).rows_per_second


def side_by_side(rows: int, folder: Path, processes: int) -> float:
    """Rows a second of as many trainings of one rank and thread as `processes`, at once, in processes that know nothing of each other."""
    command = [sys.executable, "-m", "tests.benchmarks.ranks", "--rows", str(rows), "--folder", str(folder), "--alone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = [
        subprocess.Popen([*command, f"bundle-alone-{number}"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    told = [process.communicate()[0] for process in begun]
    if any(process.returncode for process in begun):
        raise RuntimeError("a training by itself failed; what it said stands above")
    return sum(map(float, told))


def measure(rows: int, rounds: int, folder: Path) -> dict[str, object]:
    snapshot = made_snapshot(folder, rows)
    spark = start(load(ROOT / "conf" / "demo.yaml").spark, "benchmark ranks")
    two, one, apart = [], [], []
    for _ in range(rounds):
        two.append(trained(snapshot, folder / "bundle-2", ranks=2))
        one.append(side_by_side(rows, folder, 1))
        apart.append(side_by_side(rows, folder, 2))
    spark.stop()
    told = {"benchmark": "ranks", "rows": rows, "ours": round(max(two)), "peer": round(max(one)), "apart": round(max(apart))}
    return told | {"ratio": round(max(two) / max(one), 2), "needed": 1.5, "ceiling": round(max(apart) / max(one), 2)}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "training")
    options.add_argument("--alone", help="train one rank in this process, into a bundle of this name, and print its rows a second")
    given = options.parse_args()
    if given.alone:
        print(trained(made_snapshot(given.folder, given.rows), given.folder / given.alone, ranks=1))
        sys.exit()
    print(json.dumps(measure(given.rows, given.rounds, given.folder)))
