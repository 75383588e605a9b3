"""ETL with its gates against a hand-written Spark job on the same simulated logs: how much do tables that can be trusted cost?

python -m tests.benchmarks.etl [--impressions 2000000] [--days 5] [--rounds 2]

Ours: ingest, build_examples and gate of a range of days into Delta. Peer: tests/benchmarks/etl_peer.py, one job to plain Parquet. Both end
with the same examples (compared by content hash), in one warm Spark session, in turns; the best round of each counts. Neither has
history features: the hand-written job would need a second one for them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from conf.load import load_text
from conf.schema import Conf
from etl import schemas
from etl.session import start
from etl.simulate import simulate
from etl.tables import conform_to, content_hashes, create_tables, read
from jobs.nightly import ETL, run_night
from tests.benchmarks.etl_peer import write_examples
from tests.benchmarks.impressions_only import impressions_only

ROOT = Path(__file__).parents[2]


def sized(workdir: Path, landing: Path, impressions: int, days: int, history: bool = False, heavy_user: bool = False) -> Conf:
    """The demo's sources at another size, with its history features or without; a heavy user has 1% of all impressions."""
    demo = ROOT / "conf" / "demo.yaml"
    text = impressions_only(demo, impressions_a_day=impressions // days, days=days, users=100_000, ads_alive=10_000)
    text["template"]["features"] = [feature for feature in text["template"]["features"] if history or feature["family"] != "history"]
    for columns in (block["columns"] for block in text["sources"].values() if block["kind"] == "impressions" and heavy_user):
        columns["user_id"] = f"if(pmod(xxhash64({columns['impression_id']}), 100) = 0, 'u000001', {columns['user_id']})"
    return load_text("benchmark", text | {"workdir": str(workdir), "landing": str(landing)})


def ours(spark: SparkSession, conf: Conf, first: date, last: date) -> tuple[float, dict[str, float]]:
    """Seconds in all, and by stage."""
    shutil.rmtree(conf.workdir, ignore_errors=True)
    create_tables(spark, conf)  # once in a table's life
    began = time.monotonic()
    run_night(spark, conf, first, last, ETL)
    seconds = time.monotonic() - began
    summary = json.loads((Path(conf.workdir) / "runs" / last.isoformat() / "run_summary.json").read_text())
    return seconds, {row["stage"]: row["seconds"] for row in summary["stages"]}


def peer(spark: SparkSession, landing: Path, out: Path, first: date, last: date) -> float:
    began = time.monotonic()
    write_examples(spark, str(landing), str(out), first, last)
    return time.monotonic() - began


def measure(impressions: int, days: int, rounds: int, folder: Path) -> dict[str, object]:
    landing, out = folder / "landing", folder / "peer"
    conf = sized(folder / "ours", landing, impressions, days)
    assert conf.simulation is not None
    first = conf.simulation.first_day
    last = first + timedelta(days=days - 1)
    spark = start(conf.spark, "benchmark etl")
    simulate(spark, sized(folder / "made", landing, impressions, days), lambda line: print(line, file=sys.stderr))
    found, stages, others = [], [], []
    for _ in range(rounds):
        seconds, by_stage = ours(spark, conf, first, last)
        found.append(seconds)
        stages.append(by_stage)
        others.append(peer(spark, landing, out, first, last))
        print(f"round: ours {found[-1]:.1f} s {by_stage}, peer {others[-1]:.1f} s", file=sys.stderr)
    table = schemas.examples(conf)
    mine, theirs = (
        content_hashes(read(spark, conf.workdir, table), table),
        content_hashes(conform_to(spark.read.parquet(str(out)), table), table),
    )
    spark.stop()
    best = found.index(min(found))
    etl_seconds = sum(seconds for stage, seconds in stages[best].items() if stage != "gate")
    return {
        "benchmark": "etl",
        "simulated": True,
        "impressions": sum(int(value.split(":")[0]) for value in mine.values()),
        "equal_by_hash": mine == theirs,
        "ours": round(min(found), 1),
        "peer": round(min(others), 1),
        "ratio": round(min(found) / min(others), 2),
        "stages": stages[best],
        "gate_share": round(stages[best]["gate"] / etl_seconds, 3),
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--impressions", type=int, default=2_000_000)
    options.add_argument("--days", type=int, default=5)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "etl")
    given = options.parse_args()
    print(json.dumps(measure(given.impressions, given.days, given.rounds, given.folder)))
