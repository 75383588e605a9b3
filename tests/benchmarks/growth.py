"""Four times the rows, and one user with 1% of them, in the same driver memory: how much longer does ETL with its gates take?

python -m tests.benchmarks.growth [--impressions 400000] [--days 5]

Each runs in a driver of its own with 2 GB of heap, after a small range that warms it up, history features included. `peer` is the given
size, `ours` four times that, or the same with a heavy user.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from etl.session import start
from etl.simulate import simulate
from tests.benchmarks.etl import ROOT, ours, sized

MEMORY = "2g"


def seconds(impressions: int, days: int, heavy_user: bool, folder: Path) -> float:
    """One size in this process: a range of `days` days, after one of 1/20 of its rows."""
    for size in (max(impressions // 20, 1000 * days), impressions):
        place = folder / str(size)
        conf = sized(place / "ours", place / "landing", size, days, history=True, heavy_user=heavy_user)
        assert conf.simulation is not None
        spark = start(conf.spark.model_copy(update={"driver_memory": MEMORY}), "benchmark growth")
        simulate(spark, sized(place / "made", place / "landing", size, days), lambda line: print(line, file=sys.stderr))
        first = conf.simulation.first_day
        found, stages = ours(spark, conf, first, first + timedelta(days=days - 1))
        print(f"{size:,} impressions: {found:.1f} s {stages}", file=sys.stderr)
    spark.stop()
    return found


def in_a_driver_of_its_own(impressions: int, days: int, folder: Path, *options: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--one", "--impressions", str(impressions), "--days", str(days)]
    ended = subprocess.run([*command, "--folder", str(folder), *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(ended.stdout)


def told(benchmark: str, impressions: list[int], peer: float, ours: float, needed: float) -> str:
    line = {"benchmark": benchmark, "simulated": True, "impressions": impressions, "driver_memory": MEMORY}
    return json.dumps(line | {"ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ours / peer, 2), "needed": needed})


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--impressions", type=int, default=400_000)
    options.add_argument("--days", type=int, default=5)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "growth")
    options.add_argument("--one", action="store_true", help="only this size, in this process; prints its seconds")
    options.add_argument("--heavy-user", action="store_true", help="with --one: one user has 1% of the impressions")
    given = options.parse_args()
    if given.one:
        print(seconds(given.impressions, given.days, given.heavy_user, given.folder))
        sys.exit()
    size, days, folder = given.impressions, given.days, given.folder
    plain = in_a_driver_of_its_own(size, days, folder)
    print(told("skew", [size, size], plain, in_a_driver_of_its_own(size, days, folder, "--heavy-user"), needed=1.2))
    print(told("growth", [size, 4 * size], plain, in_a_driver_of_its_own(4 * size, days, folder), needed=4.4))
