"""When a stage is skipped, and which days a later night has made its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from etl.runs import Ledger, Record, code_hash, fingerprint
from etl.schemas import RUNS
from etl.tables import create_table
from tests.small import DAY, small_conf


@pytest.fixture
def ledger(spark: SparkSession, tmp_path: Path) -> Ledger:
    create_table(spark, tmp_path, RUNS)
    return Ledger(spark, small_conf(str(tmp_path)))


def record(day: date, outputs: dict[str, str], mark: str = "m", status: str = "done") -> Record:
    now = datetime.now(UTC)
    return Record(day, "run", "ingest", status, now, now, 1.0, mark, outputs, {"rows": 3}, "told")


def test_a_stage_is_skipped_only_if_inputs_and_outputs_are_as_recorded(ledger: Ledger) -> None:
    ledger.add(record(DAY, {"examples/2026-05-10": "2:a"}))
    cases = [  # fingerprint, current hash of the output, skipped
        ("m", "2:a", True),
        ("other", "2:a", False),
        ("m", "3:b", False),
    ]
    for mark, current, skipped in cases:
        assert ledger.may_skip("ingest", DAY, mark, {"examples/2026-05-10": current}) is skipped
    assert not ledger.may_skip("ingest", DAY, "m", {})
    assert not ledger.may_skip("score", DAY, "m", {})


def test_an_output_that_a_later_night_rebuilt_is_as_recorded_too(ledger: Ledger) -> None:
    name = "impressions/2026-05-10"
    ledger.add(record(DAY, {name: "2:a"}))
    ledger.add(record(DAY + timedelta(days=1), {name: "3:late row"}))
    assert ledger.may_skip("ingest", DAY, "m", {name: "3:late row"})
    assert not ledger.may_skip("ingest", DAY + timedelta(days=1), "m", {name: "2:a"})


def test_a_failed_stage_is_not_one_to_skip(ledger: Ledger) -> None:
    ledger.add(record(DAY, {}, status="failed"))
    assert ledger.last("ingest", DAY) is None


def test_the_days_that_a_later_night_built_are_its_own(ledger: Ledger) -> None:
    later = DAY + timedelta(days=4)
    ledger.add(record(later, {f"impressions/{DAY + timedelta(days=1)}": "1:a", f"users/{DAY}": "1:b"}))
    assert ledger.first_day_of_later_nights("ingest", "impressions", DAY) == DAY + timedelta(days=1)
    assert ledger.first_day_of_later_nights("ingest", "impressions", later) is None


def test_the_ledger_reads_back_what_it_wrote(spark: SparkSession, ledger: Ledger, tmp_path: Path) -> None:
    entry = record(DAY, {"examples/2026-05-10": "2:a"})
    ledger.add(entry)
    assert Ledger(spark, small_conf(str(tmp_path))).done == [entry]


def test_what_a_stage_was_made_from_is_read_only_where_asked_for(spark: SparkSession, ledger: Ledger, tmp_path: Path) -> None:
    made_from = {"inputs": {"users/2026-05-10": "2:a"}, "settings": {"seed": 1}}
    ledger.add(replace(record(DAY, {}), depends=made_from, why="never done before"))
    ledger.add(replace(record(DAY, {}), stage="gate"))
    read_back = Ledger(spark, small_conf(str(tmp_path)))
    ingest, gate = (read_back.last(stage, DAY) for stage in ("ingest", "gate"))
    assert ingest and gate and ingest.why == "never done before" and ingest.depends == {}
    assert read_back.depended(ingest) == made_from and read_back.depended(gate) == {}


def test_a_fingerprint_follows_values_and_code_not_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    assert code_hash("conf") != code_hash("etl")
