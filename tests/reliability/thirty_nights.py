"""Thirty nights in a row, each with a fault that is mended before the next: do they end with the tables of nights without any?

python -m tests.reliability.thirty_nights [--nights 30] [--whole]

Simulated logs of conf/tiny.yaml, the video source optional. Faults, in turn: a late file, a missing optional source, duplicates, a corrupt
file, a source of ten times or of a tenth of its rows, a re-delivery. The nights run one by one in one driver: ingest, build_examples, gate; with
--whole all stages, from day 7 on, and what a night made of a faulty delivery is made again once it is mended. Compared are the content hashes of
every day of every table that the nights write. After each pair of nights the driver's open files, threads and processes are counted, and the bytes
on disk that came in: of those, the last third of the nights may have no more than the third before, within GROWN.

What a night found is kept in the folder, and nights that were stopped go on where they were; after a change of code they begin anew.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from pyspark.sql import SparkSession

from conf.load import load
from etl.commits import folder_bytes
from etl.runs import code_hash
from etl.session import start
from etl.simulate import simulate
from etl.tables import create_tables
from jobs.common import DONE, REFUSED, Stage, code_of, day_option
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import ROOT, Place, day, place
from tests.reliability.faults import FAULTS, Fault, deliver
from tests.reliability.kept import Kept
from tests.reliability.lakes import CODE, hashes

#: What ETL writes; whole nights are compared by every table but the ledger.
TABLES = ("impressions", "engagements", "users", "ads", "inventory", "quarantine", "history", "examples")
#: Days that are built as one range before the first whole night, so that it has something to train on.
BEFORE = 6
#: How much more of something the last third of thirty nights may have than the third before. One open file a night would be 3% more; pools of
#: threads come and go, and what a night adds to the disk depends on its fault.
GROWN = {"bytes": 1.1, "open_files": 1.02, "threads": 1.1, "other_processes": 1.0}


@dataclass(frozen=True)
class Nights:
    """Two working folders: `plain` is run on what was delivered well, `faulty` on deliveries that were spoilt and mended."""

    plain: Place
    faulty: Place
    days: list[date]
    before: list[date]
    stages: Sequence[Stage]

    @property
    def made(self) -> Path:
        return Path(self.plain.conf.landing)

    @property
    def landing(self) -> Path:
        return Path(self.faulty.conf.landing)


def placed(folder: Path, nights: int, whole: bool) -> Nights:
    before = BEFORE if whole else 0
    simulation = {"days": before + nights, "inventory_days": list(range(2, before + nights + 2))}
    sources = {name: {"required": not name.startswith("video")} for name in load(ROOT / "conf" / "tiny.yaml").sources}
    knobs: dict[str, Any] = {"name": "nights", "simulation": simulation, "sources": sources}
    plain = place(folder / "plain", "tiny", landing=folder / "made", **knobs)
    faulty = place(folder / "faulty", "tiny", landing=folder / "landing", **knobs)
    days = [day_option(day(1)) + timedelta(days=number) for number in range(before + nights)]
    return Nights(plain, faulty, days[before:], days[:before], STAGES if whole else ETL)


def run(nights: int, whole: bool, folder: Path) -> dict[str, Any]:
    kept = Kept(folder / "nights.jsonl", {"code_hash": code_hash(*CODE), "nights": nights, "whole": whole})
    found = kept.rows
    if not found:
        shutil.rmtree(folder, ignore_errors=True)
    of = placed(folder, nights, whole)
    spark = start(of.plain.conf.spark, "thirty nights")
    if not found:
        begin(spark, of)
    for number, night in list(enumerate(of.days))[len(found) :]:
        begun = time.monotonic()
        fault = FAULTS[(number - 1) % len(FAULTS)]  # the first is a re-delivery: the others need a day before
        stood = disk_of(folder)
        wanted = ended(spark, of.plain, night, of.stages)
        assert wanted in (DONE, REFUSED), f"the night of {night} without a fault ended with {wanted}"
        night_with(fault, spark, of, night, wanted)
        found.append({"night": str(night), "fault": fault.name, "code": wanted, "bytes": disk_of(folder) - stood, **held(spark)})
        found[-1]["seconds"] = round(time.monotonic() - begun, 1)
        kept.add(found[-1])
    ended(spark, of.faulty, of.days[-1], of.stages)  # what is mended after the last night has no later one to rebuild it
    differing = differences(spark, of, whole)
    spark.stop()
    growth = grown(found)
    return {
        "reliability": "nights",
        "simulated": True,
        "nights": nights,
        "stages": [stage.name for stage in of.stages],
        "faults": dict(Counter(row["fault"] for row in found)),
        "refused": sum(row["code"] == REFUSED for row in found),
        "equal": not differing,
        "differing": differing,
        "growth": growth,
        "level": all(growth[what] <= most for what, most in GROWN.items()) if growth else None,
    }


def begin(spark: SparkSession, of: Nights) -> None:
    """The logs of all days; both folders' tables, with the days before the first night."""
    simulate(spark, of.plain.conf, lambda line: print(line, file=sys.stderr))
    first = min(of.before + of.days)
    deliver(of.made, of.landing, first - timedelta(days=1))  # the state of users and ads before the first day
    for earlier in of.before:
        come(of, earlier)
    for at in (of.plain, of.faulty):
        create_tables(spark, at.conf)
        if of.before:
            assert run_night(spark, at.conf, of.before[0], of.before[-1], ETL) == DONE


def ended(spark: SparkSession, of: Place, night: date, stages: Sequence[Stage]) -> int:
    """The exit code that jobs/nightly.py would end with."""
    try:
        return run_night(spark, of.conf, night, night, stages)
    except Exception as error:
        print(f"{night} stopped: {error}", file=sys.stderr)
        return code_of(error)


def night_with(fault: Fault, spark: SparkSession, of: Nights, night: date, wanted: int) -> None:
    """Deliver, spoil, run the night, mend; a night that the fault stopped, or whose model and scores come of it, is run again."""
    come(of, night)
    fault.spoil(of.landing, night)
    code = ended(spark, of.faulty, night, of.stages)
    allowed = (DONE, REFUSED) if fault.exit_code == DONE else (fault.exit_code,)
    assert code in allowed, f"{fault.name} on {night} ended with {code}, not {fault.exit_code}"
    deliver(of.made, of.landing, night)
    if fault.exit_code != DONE or of.stages == STAGES:
        code = ended(spark, of.faulty, night, of.stages)
        assert code == wanted, f"{night}, mended, ended with {code}, not {wanted}"


def come(of: Nights, night: date) -> None:
    """What a night finds: the day's logs, and the inventory of the day after."""
    deliver(of.made, of.landing, night)
    inventory = Path("inventory", (night + timedelta(days=1)).isoformat())
    if (of.made / inventory).is_dir():
        shutil.copytree(of.made / inventory, of.landing / inventory, dirs_exist_ok=True)


def differences(spark: SparkSession, of: Nights, whole: bool) -> dict[str, list[str]]:
    """Table -> days that are not the same in both."""
    one, other = hashes(spark, of.plain), hashes(spark, of.faulty)
    found = {
        table: sorted(day for day in one[table] | other[table] if one[table].get(day) != other[table].get(day))
        for table in (one if whole else TABLES)
    }
    return {table: days for table, days in found.items() if days}


def disk_of(folder: Path) -> int:
    return folder_bytes(folder / "plain") + folder_bytes(folder / "faulty")


def held(spark: SparkSession) -> dict[str, int]:
    """Open files, threads and memory of the driver, which is this process and Java; and how many processes there are beside.

    Garbage is collected first: what is closed by its finalizer is not held.
    """
    gc.collect()
    spark.sparkContext._jvm.java.lang.System.gc()  # type: ignore[union-attr]
    below = psutil.Process().children(recursive=True)
    driver = [psutil.Process(), *(process for process in below if process.name() == "java")]
    return {
        "open_files": sum(process.num_fds() for process in driver),
        "threads": sum(process.num_threads() for process in driver),
        "memory_mb": sum(process.memory_info().rss for process in driver) >> 20,
        "other_processes": len(below) - len(driver) + 1,
    }


def grown(found: list[dict[str, Any]]) -> dict[str, float]:
    """The median of the last third of the nights over that of the third before."""
    third = len(found) // 3
    if not third:
        return {}

    def of(what: str) -> float:
        values = [row[what] for row in found]
        return round(median(values[-third:]) / max(1, median(values[-2 * third : -third])), 3)

    return {what: of(what) for what in GROWN}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--nights", type=int, default=30)
    options.add_argument("--whole", action="store_true", help="all stages, not ETL alone")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "reliability" / "nights")
    given = options.parse_args()
    result = run(given.nights, given.whole, given.folder / ("whole" if given.whole else "etl"))
    print(json.dumps(result))
    sys.exit(not result["equal"] or result["level"] is False)
