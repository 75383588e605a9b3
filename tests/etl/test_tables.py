"""What a write replaces, and what a content hash notices."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import schemas
from etl.contents import Contents
from etl.schemas import ENGAGEMENTS, Table
from etl.tables import TableError, content_hashes, create_table, overwrite_days, read, read_days
from tests.small import DAY, at, rows, small_conf

NEXT = DAY + timedelta(days=1)


@pytest.fixture
def conf(spark: SparkSession, tmp_path: Path) -> Conf:
    create_table(spark, tmp_path, ENGAGEMENTS)
    return small_conf(str(tmp_path))


def write(spark: SparkSession, conf: Conf, table: Table, given: list[dict], first=DAY, last=DAY) -> None:
    overwrite_days(rows(spark, table, given), conf.workdir, table, first, last)


def test_writing_a_day_twice_leaves_one_copy_and_other_days_alone(spark: SparkSession, conf: Conf) -> None:
    write(spark, conf, ENGAGEMENTS, [{"impression_id": "old", "day": NEXT}], NEXT, NEXT)
    for _ in range(2):
        write(spark, conf, ENGAGEMENTS, [{"impression_id": "a"}, {"impression_id": "b"}])
    assert sorted(row["impression_id"] for row in read(spark, conf.workdir, ENGAGEMENTS).collect()) == ["a", "b", "old"]


def test_a_day_without_rows_ends_empty(spark: SparkSession, conf: Conf) -> None:
    write(spark, conf, ENGAGEMENTS, [{"impression_id": "a"}])
    write(spark, conf, ENGAGEMENTS, [])
    assert read_days(spark, conf.workdir, ENGAGEMENTS, DAY, DAY).count() == 0


def test_a_row_outside_the_days_being_replaced_is_refused(spark: SparkSession, conf: Conf) -> None:
    with pytest.raises(Exception, match="REPLACE_WHERE"):
        write(spark, conf, ENGAGEMENTS, [{"impression_id": "a", "day": NEXT}])


def test_a_missing_column_is_an_error_where_delta_would_write_nulls(spark: SparkSession, conf: Conf) -> None:
    frame = rows(spark, ENGAGEMENTS, [{}]).drop("dwell_ms")
    with pytest.raises(TableError, match="lack \\['dwell_ms'\\]"):
        overwrite_days(frame, conf.workdir, ENGAGEMENTS, DAY, DAY)


def test_a_table_that_lags_behind_the_configuration_is_refused(spark: SparkSession, conf: Conf) -> None:
    create_table(spark, conf.workdir, schemas.impressions(conf))
    context = {"column": "format", "family": "context", "type": "hashed", "buckets": 5}
    wider = small_conf(conf.workdir, template={"features": [context]})
    with pytest.raises(TableError, match=r"impressions .* missing \['format string'\]"):
        create_table(spark, conf.workdir, schemas.impressions(wider))
    with pytest.raises(TableError, match=r"impressions .* missing \['format string'\].*jobs/migrate.py"):
        read(spark, conf.workdir, schemas.impressions(wider))
    with pytest.raises(TableError, match=r"version 0 of table impressions"):
        read(spark, conf.workdir, schemas.impressions(wider), version=0)


def test_the_content_hash_sees_values_and_counts_but_neither_order_nor_files(spark: SparkSession) -> None:
    given: list[dict[str, Any]] = [
        {"impression_id": "a", "user_id": "u"},
        {"impression_id": "b", "ad_id": "x"},
        {"impression_id": "c", "acted_at": at("11:00")},
    ]

    def hashed(some: list[dict], parts: int = 1) -> str:
        return content_hashes(rows(spark, ENGAGEMENTS, some).repartition(parts), ENGAGEMENTS)[DAY.isoformat()]

    base = hashed(given)
    assert base.startswith("3:")
    assert hashed(given[::-1], parts=3) == base
    assert hashed([*given, given[0]]) != base
    assert hashed([{**given[0], "user_id": "v"}, *given[1:]]) != base
    # a value that moves to the null neighbour beside it
    moved = [{"impression_id": "a", "user_id": "s", "session": None}], [{"impression_id": "a", "user_id": None, "session": "s"}]
    assert hashed(moved[0]) != hashed(moved[1])


def test_lineage_columns_do_not_change_the_hash(spark: SparkSession) -> None:
    one, other = (
        content_hashes(
            rows(spark, schemas.QUARANTINE, [{"table_name": "t", "block": "b", "reasons": ["r"], "run_id": run}]), schemas.QUARANTINE
        )
        for run in ("one", "other")
    )
    assert one == other


def test_a_days_hash_is_looked_up_by_name(spark: SparkSession, conf: Conf) -> None:
    write(spark, conf, ENGAGEMENTS, [{"impression_id": "a"}])
    contents = Contents(spark, conf)
    names = [f"engagements/{DAY}", f"engagements/{NEXT}", "models/none.json"]
    found = contents.of(names)
    assert found[names[0]].startswith("1:")
    assert (found[names[1]], found[names[2]]) == ("0:", "0:")
