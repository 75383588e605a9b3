"""Are two ranks worth having? Rows a second of two Horovod ranks of one thread each, against one rank of one thread.

python -m tests.benchmarks.ranks [--rows 400000] [--rounds 2]

Both train the same epoch from the same snapshot; what counts is the time between the first and the last step, without the start of the
ranks. The best round of each counts, in turns. One rank runs in a process of its own, with OMP_NUM_THREADS=1, as Horovod's do.
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


def trained(snapshot: Path, folder: Path, ranks: int) -> float:
    request = TrainRequest(str(snapshot), str(folder / f"bundle-{ranks}"), "benchmark", MODEL, settings(ranks), epochs=1, seed=1)
    return train(request).rows_per_second


def alone(rows: int, folder: Path) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.ranks", "--one", "--rows", str(rows), "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measure(rows: int, rounds: int, folder: Path) -> dict[str, object]:
    snapshot = made_snapshot(folder, rows)
    spark = start(load(ROOT / "conf" / "demo.yaml").spark, "benchmark ranks")
    two, one = [], []
    for _ in range(rounds):
        two.append(trained(snapshot, folder, ranks=2))
        one.append(alone(rows, folder))
    spark.stop()
    told = {"benchmark": "ranks", "rows": rows, "ours": round(max(two)), "peer": round(max(one))}
    return told | {"ratio": round(max(two) / max(one), 2), "needed": 1.5}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "training")
    options.add_argument("--one", action="store_true", help="one rank in this process; prints its rows a second")
    given = options.parse_args()
    if given.one:
        print(trained(made_snapshot(given.folder, given.rows), given.folder, ranks=1))
        sys.exit()
    print(json.dumps(measure(given.rows, given.rounds, given.folder)))
