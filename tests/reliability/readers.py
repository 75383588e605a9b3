"""Do readers of the views ever see a part of a day, or two of them mixed, while days are published and publishers are killed?

python -m tests.reliability.readers [--publications 20] [--rows 20000] [--seed 1]

A publisher in a process of its own writes a day's scores, publishes it and writes the views, as a night's end does, 20 times: every second
time a new day, else the same day made anew, as by a rollback. Every third time it is killed (kill -9 of its process group) at a random moment,
and started again from there. Meanwhile a reader opens `views/duckdb.sql` and, every tenth time, `views/spark.sql` afresh. Each publication has
a number of rows and a run of its own, so that what was read is told by them; no reader of one engine may be led back. Made-up rows; prints one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import duckdb
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.registry import publish
from etl.session import start
from etl.splits import ONE_DAY
from etl.tables import create_tables, overwrite_days
from etl.views import make_views
from jobs.describe import write_views
from tests.small import small_conf

ROOT = Path(__file__).parents[2]
FIRST = date(2026, 5, 1)
ASKED = "SELECT day, count(*) AS rows, min(run_id) AS low, max(run_id) AS high FROM scores_current GROUP BY day"


def day_of(number: int) -> date:
    return FIRST + timedelta(days=number // 2)


def made_scores(spark: SparkSession, conf: Conf, number: int, rows: int) -> DataFrame:
    table = schemas.scores(conf)
    fixed = {"day": F.lit(day_of(number)), "run_id": F.lit(f"r{number:03d}"), "model": F.lit("m1"), "source": F.lit("feed")}
    fixed |= {"tower": F.lit("feed"), "inventory_id": F.col("id").cast("string"), "flags": F.array(F.lit("made"))}
    columns = [
        fixed.get(field.name, F.lit(0.25 if field.name.startswith("p_") else None)).cast(field.dataType).alias(field.name)
        for field in table.columns
    ]
    return spark.range(rows + number).select(*columns)


def publisher(folder: Path, first: int, last: int, rows: int) -> None:
    conf = small_conf(str(folder))
    spark = start(conf.spark, "publisher")
    create_tables(spark, conf)
    for number in range(first, last):
        day = day_of(number)
        print(f"begun {number}", flush=True)
        overwrite_days(made_scores(spark, conf, number, rows), conf.workdir, schemas.scores(conf), day, day)
        publish(spark, conf, day - ONE_DAY, f"r{number:03d}", "scores", "m1", day)
        write_views(spark, conf)
        print(f"done {number}", flush=True)


class Reader(threading.Thread):
    """Reads until it is told to stop; `wrong` are the readings that no publication is."""

    def __init__(self, spark: SparkSession, folder: Path, rows: int) -> None:
        super().__init__(daemon=True)
        self.spark, self.folder, self.rows = spark, folder, rows
        self.stopped, self.seen = threading.Event(), Counter[str]()
        self.newest = {"duckdb": -1, "spark": -1}  # the two files are replaced one after the other
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.stopped.is_set():
            engine = "spark" if sum(self.seen.values()) % 10 == 9 else "duckdb"
            sql = self.folder / "views" / f"{engine}.sql"
            if sql.is_file():
                self.judge(engine, self.read(engine, sql.read_text(encoding="utf-8")))

    def read(self, engine: str, sql: str) -> list[tuple[date, int, str, str]]:
        if engine == "spark":
            make_views(self.spark, sql)
            return [tuple(row) for row in self.spark.sql(ASKED).collect()]
        reader = duckdb.connect()
        reader.execute(sql)
        return reader.execute(ASKED).fetchall()

    def judge(self, engine: str, found: list[tuple[date, int, str, str]]) -> None:
        self.seen[engine] += 1
        number = int(found[0][2][1:]) if len(found) == 1 else -1
        if found != [(day_of(number), self.rows + number, f"r{number:03d}", f"r{number:03d}")] or number < self.newest[engine]:
            self.wrong.append(f"{engine} after r{self.newest[engine]:03d}: {found}")
        self.newest[engine] = max(self.newest[engine], number)


def run(publications: int, rows: int, seed: int, folder: Path) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    conf, draw, kills = small_conf(str(folder)), random.Random(seed), 0
    spark = start(conf.spark, "readers")
    create_tables(spark, conf)
    reader = Reader(spark, folder, rows)
    reader.start()
    done = 0
    while done < publications:
        command = [
            sys.executable,
            "-m",
            "tests.reliability.readers",
            "--publish",
            str(done),
            str(publications),
            "--rows",
            str(rows),
            "--folder",
            str(folder),
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        for line in process.stdout:
            word, number = line.split()
            done = int(number) + (word == "done")
            if word == "begun" and kills < (done + 1) // 3:
                time.sleep(draw.uniform(0, 3))
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        process.stdout.close()
        if process.wait() not in (0, -signal.SIGKILL):
            raise SystemExit(f"the publisher ended with {process.returncode}")
        print(f"{done} of {publications} published, {kills} kills, read {dict(reader.seen)}", file=sys.stderr, flush=True)
    time.sleep(5)
    reader.stopped.set()
    reader.join()
    if max(reader.newest.values()) != publications - 1:
        reader.wrong.append(f"the last readings are of {reader.newest}, and r{publications - 1:03d} was published")
    return {"publications": publications, "kills": kills, "read": dict(reader.seen), "wrong": reader.wrong}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--publications", type=int, default=20)
    options.add_argument("--rows", type=int, default=20_000, help="of the first publication; each has one more than the one before")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "reliability" / "readers")
    options.add_argument("--publish", nargs=2, type=int, metavar=("FIRST", "END"), help="be the publisher of these")
    given = options.parse_args()
    if given.publish:
        first, last = given.publish
        publisher(given.folder, first, last, given.rows)
    else:
        told = run(given.publications, given.rows, given.seed, given.folder)
        print(json.dumps(told, indent=1))
        sys.exit(bool(told["wrong"]))
