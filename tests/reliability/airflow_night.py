"""A whole night by Airflow, each task a spark-submit of its own: does it end with the tables of the same night in one process?

python -m tests.reliability.airflow_night

Simulated logs of conf/tiny.yaml. Days 1 to 6 by the DAG adtower_backfill; then the night of day 7, which trains, calibrates, publishes and
scores, by adtower_nightly, and on a copy of the tables by jobs/nightly.py. Compared are the content hashes of every day of every table but
`runs`. Prints one line of JSON with the seconds of each. Needs ./build.sh airflow.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable

from etl.schemas import RUNS
from etl.session import start
from etl.tables import read
from jobs.common import DONE
from jobs.nightly import STAGES
from tests.jobs.airflow_home import AirflowHome
from tests.jobs.nights import ROOT, copied, day, place


def main() -> int:
    folder = ROOT / "var" / "reliability" / "airflow_night"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    airflow, by_airflow = AirflowHome(folder / "home").with_database(), place(folder / "by_airflow", "tiny")
    conf_file, seconds = str(by_airflow.conf_file), dict[str, int]()

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        seconds[name] = round(time.monotonic() - began)
        print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)

    def night() -> None:
        code, told = one_process.run("nightly", "--day", day(7), launcher="spark-submit")
        assert code == DONE, told

    timed("simulation", lambda: by_airflow.run("simulate"))
    span = {"first": day(1), "last": day(6), "tables_only": True}
    timed("backfill by Airflow", lambda: airflow.run_dag("adtower_backfill", span, adtower_conf_file=conf_file))
    one_process = copied(by_airflow, folder / "one_process")
    timed("night by Airflow", lambda: airflow.run_dag("adtower_nightly", {"date": day(7)}, adtower_conf_file=conf_file))
    timed("night in one process", night)

    spark = start(by_airflow.conf.spark, "airflow night")
    try:
        runs = read(spark, by_airflow.workdir, RUNS).where(f"day = '{day(7)}'").collect()
        assert [row["stage"] for row in sorted(runs, key=lambda row: row["started_at"])] == [stage.name for stage in STAGES]
        assert len({row["run_id"] for row in runs}) == 1 and {row["status"] for row in runs} == {"done"}
        same = by_airflow.hashes(spark, "runs") == one_process.hashes(spark, "runs")
    finally:
        spark.stop()
    print(json.dumps({"check": "airflow_night", "same_tables": same, "seconds": seconds}))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
