"""One simulated history with its first night, shared by the tests of nights: they copy it, or leave it as it is."""

from __future__ import annotations

import os

import pytest
from pyspark.sql import SparkSession

from etl.simulate import simulate
from etl.tables import create_tables
from jobs.common import DONE, day_option
from jobs.nightly import ETL, run_night
from tests.jobs.nights import ROOT, Place, copied, day, place

NIGHT = ("--day", day(7))


@pytest.fixture(scope="session")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Simulated logs, days 1 to 6 built as a range."""
    made = place(tmp_path_factory.mktemp("built"), "tiny")
    simulate(spark, made.conf, lambda _: None)
    create_tables(spark, made.conf)
    assert run_night(spark, made.conf, day_option(day(1)), day_option(day(6)), ETL) == DONE
    return made


@pytest.fixture(scope="session")
def clean(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Then the night of day 7, run whole; its working folder is given as seen from where the night is run, as in conf/demo.yaml."""
    folder = tmp_path_factory.mktemp("clean") / "work"
    made = copied(built, folder, workdir=os.path.relpath(folder, ROOT))
    code, told = made.run("nightly", *NIGHT)
    assert code == 0, told
    (made.workdir / "stderr.txt").write_text(told, encoding="utf-8")
    return made
