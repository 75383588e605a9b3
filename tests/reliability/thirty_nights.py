"""Thirty nights of ETL in a row, each with a fault that is mended before the next: do they end with the tables of nights without any?

python -m tests.reliability.thirty_nights [--nights 30]

Simulated logs of conf/tiny.yaml, the video source optional. Faults, in turn: a late file, a missing optional source, duplicates, a corrupt
file, a source of ten times or of a tenth of its rows, a re-delivery. The nights run one by one in one driver: ingest, build_examples, gate.
Compared are the content hashes of every day of every table that ETL writes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from conf.load import load, load_text
from conf.schema import Conf
from etl.schemas import all_tables
from etl.session import start
from etl.simulate import simulate
from etl.tables import content_hashes, create_tables, read
from jobs.common import DONE, code_of
from jobs.nightly import ETL, run_night
from tests.reliability.faults import FAULTS, Fault, deliver

ROOT = Path(__file__).parents[2]
TABLES = ("impressions", "engagements", "users", "ads", "inventory", "quarantine", "history", "examples")


def configured(workdir: Path, landing: Path, nights: int) -> Conf:
    text = load(ROOT / "conf" / "tiny.yaml").model_dump(mode="json")
    text["simulation"] |= {"days": nights, "inventory_days": list(range(2, nights + 2))}
    for name, block in text["sources"].items():
        block["required"] = not name.startswith("video")
    return load_text("thirty nights", text | {"name": "nights", "workdir": str(workdir), "landing": str(landing)})


def hashes(spark: SparkSession, conf: Conf) -> dict[str, dict[str, str]]:
    tables = all_tables(conf)
    return {name: content_hashes(read(spark, conf.workdir, tables[name]), tables[name]) for name in TABLES}


def run(nights: int, folder: Path) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    made, landing = folder / "made", folder / "landing"
    plain, faulty = configured(folder / "plain", made, nights), configured(folder / "faulty", landing, nights)
    spark = start(plain.spark, "thirty nights")
    simulate(spark, plain, lambda line: print(line, file=sys.stderr))
    assert plain.simulation is not None
    days = [plain.simulation.first_day + timedelta(days=number) for number in range(nights)]
    for conf in (plain, faulty):
        create_tables(spark, conf)
    deliver(made, landing, days[0] - timedelta(days=1))  # the state of users and ads before the first day
    met: Counter[str] = Counter()
    for number, day in enumerate(days):
        began = time.monotonic()
        run_night(spark, plain, day, day, ETL)
        fault = FAULTS[(number - 1) % len(FAULTS)]  # the first is a re-delivery: the others need a day before
        night_with(fault, spark, faulty, made, landing, day)
        met[fault.name] += 1
        print(f"{day} {fault.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    run_night(spark, faulty, days[-1], days[-1], ETL)  # what is mended after the last night has no later one to rebuild it
    one, other = hashes(spark, plain), hashes(spark, faulty)
    spark.stop()
    differing = {
        table: sorted(day for day in one[table] | other[table] if one[table].get(day) != other[table].get(day)) for table in TABLES
    }
    differing = {table: found for table, found in differing.items() if found}
    return {
        "reliability": "nights",
        "simulated": True,
        "nights": nights,
        "faults": dict(met),
        "equal": not differing,
        "differing": differing,
    }


def night_with(fault: Fault, spark: SparkSession, conf: Conf, made: Path, landing: Path, day: date) -> None:
    """Deliver, spoil, run the night, mend; a night that the fault stops is run again."""
    deliver(made, landing, day)
    deliver_inventory(made, landing, day + timedelta(days=1))
    fault.spoil(landing, day)
    try:
        code = run_night(spark, conf, day, day, ETL)
    except Exception as error:
        code = code_of(error)
        print(f"{day} stopped: {error}", file=sys.stderr)
    assert code == fault.exit_code, f"{fault.name} on {day} ended with {code}, not {fault.exit_code}"
    deliver(made, landing, day)
    if code != DONE:
        run_night(spark, conf, day, day, ETL)


def deliver_inventory(made: Path, landing: Path, day: date) -> None:
    source, target = made / "inventory" / day.isoformat(), landing / "inventory" / day.isoformat()
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--nights", type=int, default=30)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "reliability" / "nights")
    given = options.parse_args()
    found = run(given.nights, given.folder)
    print(json.dumps(found))
    sys.exit(not found["equal"])
