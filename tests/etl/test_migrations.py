"""A configuration that grows or shrinks takes its tables along, by adding alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import schemas
from etl.migrations import migrate, planned
from etl.tables import TableError, create_tables, overwrite_days, read, table_path
from tests.small import DAY, rows, small_conf

LATER = DAY.replace(day=DAY.day + 1)
SHARE = {"action": "share"}
PROBABILITIES = {"p_click": 0.2, "p_good_click": 0.1, "p_scroll_up": 0.3}


def conf(workdir: Path, **heads: Any) -> Conf:
    base = small_conf().model_dump(mode="json")
    return small_conf(str(workdir), heads=heads or base["heads"])


def grown(workdir: Path) -> Conf:
    """The small configuration with a head `share` and a user feature `age`."""
    base = small_conf().model_dump(mode="json")
    features = [*base["template"]["features"], {"column": "age", "family": "user", "type": "continuous"}]
    return small_conf(str(workdir), heads={**base["heads"], "share": SHARE}, template={"features": features})


def score(spark: SparkSession, of: Conf, **values: Any) -> None:
    table = schemas.scores(of)
    day = values.get("day", DAY)
    stamp = {"inventory_id": "i", "model": "m", "flags": [], **values}
    overwrite_days(rows(spark, table, [stamp]), of.workdir, table, day, day)


def test_a_table_that_lags_is_refused_with_the_command_that_mends_it_and_a_dry_run_changes_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    create_tables(spark, conf(tmp_path))
    plan = [(change.table, change.told) for change in planned(spark, grown(tmp_path))]
    assert ("users", "adds age double") in plan and ("examples", "adds label_share int") in plan
    assert ("scores", "adds check p_share_is_open_unit") in plan
    with pytest.raises(TableError, match=r"missing \['age double'\].*jobs/migrate.py"):
        create_tables(spark, grown(tmp_path))


def test_a_new_head_is_null_in_old_rows_and_checked_in_new_ones(spark: SparkSession, tmp_path: Path) -> None:
    before, after = conf(tmp_path), grown(tmp_path)
    create_tables(spark, before)
    score(spark, before, **PROBABILITIES)
    made = migrate(spark, after)
    create_tables(spark, after)
    assert planned(spark, after) == []
    log = [json.loads(line) for line in (tmp_path / "migrations.jsonl").read_text().splitlines()]
    assert [(row["table"], row["change"]) for row in log] == [(change.table, change.told) for change in made]
    score(spark, after, **PROBABILITIES, p_share=0.5, day=LATER)
    found = read(spark, tmp_path, schemas.scores(after)).orderBy("day").select("p_click", "p_share").collect()
    assert [tuple(row) for row in found] == [(0.2, None), (0.2, 0.5)]
    with pytest.raises(TableError, match="p_share_is_open_unit"):
        score(spark, after, **PROBABILITIES, p_share=1.5, day=LATER)


def test_what_leaves_the_configuration_stays_in_the_table_unread_and_may_come_back(spark: SparkSession, tmp_path: Path) -> None:
    whole, less = conf(tmp_path), conf(tmp_path, click={"action": "click"})
    create_tables(spark, whole)
    score(spark, whole, **PROBABILITIES)
    assert {change.told for change in migrate(spark, less)} >= {"retires p_scroll_up", "drops check p_scroll_up_is_open_unit"}
    create_tables(spark, less)
    score(spark, less, p_click=0.4, day=LATER)  # no check speaks of what is null from now on
    assert "p_scroll_up" not in read(spark, tmp_path, schemas.scores(less)).columns
    stored = spark.read.format("delta").load(table_path(tmp_path, "scores")).orderBy("day").select("p_scroll_up").collect()
    assert [row[0] for row in stored] == [0.3, None]
    assert "takes p_scroll_up into use again" in {change.told for change in migrate(spark, whole)}
    create_tables(spark, whole)


def test_a_column_in_another_type_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    create_tables(spark, conf(tmp_path))
    features = [{"column": "country", "family": "user", "type": "continuous"}]
    with pytest.raises(TableError, match="country is string, wanted double"):
        planned(spark, small_conf(str(tmp_path), template={"features": features}))
