"""Does the memory of a scoring executor stay flat as the inventory grows?

python -m tests.benchmarks.score_memory [--rows 1000000 8000000]

The rows and the model of tests/benchmarks/score.py, from encoded columns to the table `scores`, each size in a driver of its own (`local[2]`: the
driver is the executor). One JSON line: the largest resident memory of the Python workers together, and of Java, whose heap is
`spark.driver_memory`, GiB each; `ratio`: that of the workers, of the largest inventory to the smallest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil

from etl import schemas
from etl.scores import encoded_inventory, score_encoded
from etl.session import start
from etl.tables import create_tables, overwrite_days
from models.calibration import Calibrator, Cell
from models.predictor import predict_probabilities
from tests.benchmarks.score import DAY, MADE_FROM, TOWERS, configured, made_bundle, made_inventory

ROOT = Path(__file__).parents[2]
LARGEST_RATIO = 1.2


class Peak(threading.Thread):
    """The largest resident memory of Java and of all Python workers, bytes, from start to `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.java, self.python, self.stopped = 0, 0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            java = python = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    held = process.memory_info().rss
                    java, python = (max(java, held), python) if process.name() == "java" else (java, python + held)
                except psutil.NoSuchProcess:
                    continue
            self.java, self.python = max(self.java, java), max(self.python, python)


def scored(rows: int, folder: Path) -> dict[str, float]:
    """In this process: peaks of scoring that many rows, GiB."""
    shutil.rmtree(folder, ignore_errors=True)
    conf = configured(folder)
    spark = start(conf.spark, "score memory")
    create_tables(spark, conf)
    model_dir, heads = str(made_bundle(conf, folder)), list(conf.heads)
    cells = {head: {tower: Cell("platt", 0.1, -0.05) for tower in TOWERS} for head in heads}
    predict = partial(predict_probabilities, model_dir, Calibrator(tuple(heads), cells).to_json())
    at = str(folder / "encoded")
    encoded_inventory(made_inventory(spark, conf, rows), conf.template, TOWERS, {}).write.format("delta").save(at)
    encoded, table = spark.read.format("delta").load(at), schemas.scores(conf)
    peak, began = Peak(), time.monotonic()
    peak.start()
    overwrite_days(score_encoded(encoded, conf, conf.template, TOWERS, predict, made_from=MADE_FROM), conf.workdir, table, DAY, DAY)
    peak.stopped.set()
    peak.join()
    shutil.rmtree(folder)
    return {"rows": rows, "seconds": time.monotonic() - began, "python": peak.python / 2**30, "java": peak.java / 2**30}


def main(sizes: list[int], folder: Path) -> dict[str, object]:
    found = []
    for rows in sizes:
        command = [sys.executable, "-m", "tests.benchmarks.score_memory", "--one", str(rows), "--folder", str(folder)]
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append(json.loads(output.splitlines()[-1]))
        print(found[-1], file=sys.stderr, flush=True)
    ratio = found[-1]["python"] / found[0]["python"]
    sizes_told = [{name: round(value, 2) for name, value in one.items()} for one in found]
    return {
        "benchmark": "score_memory",
        "sizes": sizes_told,
        "ratio": round(ratio, 2),
        "largest": LARGEST_RATIO,
        "holds": ratio <= LARGEST_RATIO,
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 8_000_000])
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "score_memory")
    options.add_argument("--one", type=int, help="score this many rows in this process")
    given = options.parse_args()
    print(json.dumps(scored(given.one, given.folder) if given.one else main(given.rows, given.folder)))
