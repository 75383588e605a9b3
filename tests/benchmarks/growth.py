"""Four times the rows, the same driver memory: how much longer does ETL with its gates take?

python -m tests.benchmarks.growth [--impressions 400000] [--days 5]

Each size runs in a driver of its own with 2 GB of heap, after a small range that warms it up. `peer` is the small size, `ours` the large one.
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


def seconds(impressions: int, days: int, folder: Path) -> float:
    """One size in this process: a range of `days` days, after one of 1/20 of its rows."""
    for size in (max(impressions // 20, 1000 * days), impressions):
        place = folder / str(size)
        conf = sized(place / "ours", place / "landing", size, days)
        assert conf.simulation is not None
        spark = start(conf.spark.model_copy(update={"driver_memory": MEMORY}), "benchmark growth")
        simulate(spark, sized(place / "made", place / "landing", size, days), lambda line: print(line, file=sys.stderr))
        first = conf.simulation.first_day
        found, stages = ours(spark, conf, first, first + timedelta(days=days - 1))
        print(f"{size:,} impressions: {found:.1f} s {stages}", file=sys.stderr)
    spark.stop()
    return found


def in_a_driver_of_its_own(impressions: int, days: int, folder: Path) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--one", "--impressions", str(impressions), "--days", str(days)]
    ended = subprocess.run([*command, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(ended.stdout)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--impressions", type=int, default=400_000)
    options.add_argument("--days", type=int, default=5)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "growth")
    options.add_argument("--one", action="store_true", help="only this size, in this process; prints its seconds")
    given = options.parse_args()
    if given.one:
        print(seconds(given.impressions, given.days, given.folder))
        sys.exit()
    small, large = (in_a_driver_of_its_own(times * given.impressions, given.days, given.folder) for times in (1, 4))
    told = {"benchmark": "growth", "simulated": True, "impressions": [given.impressions, 4 * given.impressions], "driver_memory": MEMORY}
    print(json.dumps(told | {"ours": round(large, 1), "peer": round(small, 1), "ratio": round(large / small, 2), "needed": 4.4}))
