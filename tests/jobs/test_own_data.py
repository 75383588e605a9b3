"""The README's configuration of one's own logs as it stands: three CSV files a day, to published scores."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import load
from conf.schema import Conf
from etl import schemas
from etl.tables import create_tables, read
from jobs.common import DONE, day_option
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import ROOT, day

DEVICES = {"phone": 0.3, "tablet": 0.1, "desktop": 0.05}  # share of impressions that are clicked
A_DAY, LAST = 3000, 7


def section() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Conf:
    """The section's YAML, its two folders below one of the test's, and a week of logs there."""
    folder = tmp_path_factory.mktemp("mine")
    (text,) = re.findall(r"```yaml\n(.*?)```", section(), flags=re.DOTALL)
    assert len(text.splitlines()) <= 20
    given = yaml.safe_load(text)
    assert {given["workdir"], given["landing"]} == {"/data/adtower", "/data/logs"}
    (folder / "mine.yaml").write_text(text.replace("/data/", f"{folder}/"))
    write_logs(folder / "logs")
    return load(folder / "mine.yaml")


def write_logs(landing: Path) -> None:
    draw = random.Random(1)
    landing.mkdir()

    def written(name: str, number: int, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        with (landing / f"{name}-{day(number)}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])

    for number in range(1, LAST + 2):
        shown, clicked = [], []
        for place in range(A_DAY):
            at = f"{day(number)}T{place * 24 // A_DAY:02}:{place % 60:02}:00Z"
            device = draw.choice(list(DEVICES))
            row = (f"{number}-{place}", f"u{draw.randrange(500)}", f"a{draw.randrange(60)}", device)
            shown.append((*row, at))
            if draw.random() < DEVICES[device]:
                clicked.append((row[0], at))
        if number <= LAST:
            written("shown", number, ("id", "user", "ad", "device", "at"), shown)
            written("clicked", number, ("id", "at"), clicked)
        else:
            early = f"{day_option(day(number)) - timedelta(days=1)}T20:00:00Z"
            written("candidates", number, ("id", "user", "ad", "device", "at"), [(*row[:4], early) for row in shown])


@pytest.mark.slow  # test_docs.py loads it too
def test_three_files_a_day_and_twenty_lines_give_calibrated_scores(spark: SparkSession, mine: Conf) -> None:
    create_tables(spark, mine)
    first, night = day_option(day(1)), day_option(day(LAST))
    assert run_night(spark, mine, first, night - timedelta(days=1), ETL) == DONE
    assert run_night(spark, mine, night, night, STAGES) == DONE
    assert read(spark, mine.workdir, schemas.QUARANTINE).isEmpty()
    scores = read(spark, mine.workdir, schemas.scores(mine))
    candidates = read(spark, mine.workdir, schemas.inventory(mine)).select("inventory_id", "device")
    found = scores.join(candidates, on="inventory_id").groupBy("device").agg(F.avg("p_click").alias("p"), F.count("*").alias("rows"))
    by_device = {row["device"]: row for row in found.collect()}
    assert sum(row["rows"] for row in by_device.values()) == scores.count() == A_DAY
    assert by_device["phone"]["p"] > by_device["tablet"]["p"] > by_device["desktop"]["p"]
    mean = sum(row["p"] * row["rows"] for row in by_device.values()) / A_DAY
    assert mean == pytest.approx(sum(DEVICES.values()) / len(DEVICES), rel=0.1)
