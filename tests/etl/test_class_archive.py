"""A driver that Python starts maps the classes that set-up archived, and does without where they do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl import session
from tests.jobs.nights import ROOT

START = """
import sys
from conf.schema import SparkConf
from etl.session import start
options = SparkConf().driver_java_options + f" -Xlog:cds=info:file={sys.argv[1]}"
start(SparkConf(master="local[1]", driver_memory="1g", driver_java_options=options), "test").stop()
"""


def told_by_java(folder: Path, **environment: str) -> str:
    """What Java says of archives as a driver starts."""
    log = folder / "cds.log"
    subprocess.run([sys.executable, "-c", START, str(log)], cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)
    return log.read_text()


def test_a_driver_is_told_of_an_archive_that_is_there_and_of_none_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ARCHIVE", tmp_path / "archive.jsa")
    assert session.archived_classes() == ""
    (tmp_path / "archive.jsa").touch()
    assert f"-XX:SharedArchiveFile={tmp_path}/archive.jsa" in session.archived_classes()


@pytest.mark.skipif(not session.ARCHIVE.is_file(), reason="set-up could make no archive of classes")
def test_the_archive_of_set_up_is_mapped_and_where_it_does_not_fit_a_driver_starts_all_the_same(tmp_path: Path) -> None:
    told = told_by_java(tmp_path)
    assert "Mapped dynamic region" in told and "mismatch" not in told
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text("spark.driver.memory 1g")
    assert "class paths mismatch" in told_by_java(tmp_path, SPARK_CONF_DIR=str(tmp_path / "conf"))


def test_a_process_that_started_a_driver_leaves_spark_submit_its_defaults(spark: object) -> None:
    assert "no-configuration" not in os.environ.get("SPARK_CONF_DIR", "")
