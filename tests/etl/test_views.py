"""The views that analysts read: the same rows in Spark and in DuckDB, of one whole published day, and every column with its comment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import schemas
from etl.registry import publish
from etl.splits import ONE_DAY
from etl.tables import append, create_tables, overwrite_days
from etl.views import dictionary, make_views, views_sql
from jobs.describe import write_views
from tests.small import DAY, at, rows, small_conf

NEXT = DAY + ONE_DAY


def score_rows(day: Any, count: int, run_id: str) -> list[dict[str, Any]]:
    probabilities = {f"p_{head}{suffix}": 0.5 for head in ("click", "good_click", "scroll_up") for suffix in ("_raw", "")}
    return [
        {
            **probabilities,
            "inventory_id": f"i{n}",
            "model": "m1",
            "campaign_id": f"c{n % 2}",
            "p_click": 0.5 + n / 100,
            "expected_impressions": 10.0,
            "expected_click": 5.0 + n / 10,
            "utility": 0.5,
            "flags": ["unknown_user"] if n else [],
            "run_id": run_id,
            "day": day,
        }
        for n in range(count)
    ]


def write_scores(spark: SparkSession, conf: Conf, day: Any, count: int, run_id: str) -> None:
    table = schemas.scores(conf)
    overwrite_days(rows(spark, table, score_rows(day, count, run_id)), conf.workdir, table, day, day)


def finding(expectation: str, number: float | None, success: bool = True) -> dict[str, Any]:
    return {"table": "examples", "column": "country", "expectation": expectation, "number": number, "limit": 0.25, "success": success}


@pytest.fixture(scope="module")
def lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    """Two scored days, of which the first is published; a model that served and one that did not; a gate that ran twice."""
    conf = small_conf(str(tmp_path_factory.mktemp("views")))
    create_tables(spark, conf)
    write_scores(spark, conf, DAY, 4, "r1")
    publish(spark, conf, DAY - ONE_DAY, "r1", "model", "m1")
    publish(spark, conf, DAY - ONE_DAY, "r1", "scores", "m1", DAY)
    write_scores(spark, conf, NEXT, 3, "r2")
    bins = [{"model": model, "head": "click", "stage": "raw", "measured_day": DAY, "bin": 0, "rows": 9} for model in ("m1", "m2")]
    night = DAY - ONE_DAY
    overwrite_days(rows(spark, schemas.CALIBRATION_DAILY, bins, day=night), conf.workdir, schemas.CALIBRATION_DAILY, night, night)
    gates = [
        (at("01:00"), [finding("psi", 0.4, False)]),
        (at("02:00"), [finding("psi", 0.1), finding("unseen", 0.02), finding("columns", None)]),
    ]
    stages = [
        {"stage": "gate", "status": "done", "started_at": started, "counts": json.dumps({"findings": found}), "run_id": f"r{started:%H}"}
        for started, found in gates
    ]
    append(rows(spark, schemas.RUNS, stages, day=night, as_of=at("00:00")), conf.workdir, schemas.RUNS)
    return conf


def in_both(spark: SparkSession, conf: Conf, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, which Spark and DuckDB must agree on."""
    make_views(spark, views_sql(spark, conf, "spark"))
    by_spark = [tuple(row) for row in spark.sql(query).collect()]
    reader = duckdb.connect()
    reader.execute(views_sql(spark, conf, "duckdb"))
    assert reader.execute(query).fetchall() == by_spark
    return by_spark


def test_scores_current_is_the_published_day_and_not_one_that_is_only_written(spark: SparkSession, lake: Conf) -> None:
    found = in_both(spark, lake, "SELECT inventory_id, day, flags FROM scores_current ORDER BY inventory_id")
    assert found == [(f"i{n}", DAY, ["unknown_user"] if n else []) for n in range(4)]
    assert in_both(spark, lake, "SELECT count(*), count(DISTINCT day) FROM scores_daily_summary") == [(2, 1)]


def test_the_summary_adds_up_a_campaign(spark: SparkSession, lake: Conf) -> None:
    asked = "campaign_id, rows, round(expected_impressions, 6), round(expected_click, 6), round(p_click, 6)"
    found = in_both(spark, lake, f"SELECT {asked} FROM scores_daily_summary ORDER BY campaign_id")
    assert found == [("c0", 2, 20.0, 10.2, 0.51), ("c1", 2, 20.0, 10.4, 0.52)]


def test_drift_is_of_the_gate_that_last_passed_one_line_a_feature(spark: SparkSession, lake: Conf) -> None:
    asked = "feature, psi, psi_limit, unseen_share, unseen_limit, holds"
    assert in_both(spark, lake, f"SELECT {asked} FROM drift_daily") == [("country", 0.1, 0.25, 0.02, 0.25, True)]
    assert in_both(spark, lake, "SELECT run_id, stage FROM run_log ORDER BY run_id") == [("r01", "gate"), ("r02", "gate")]


def test_a_days_calibration_stands_beside_that_of_a_day_and_a_week_before(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    create_tables(spark, conf)
    for later, ratio in ((0, 1.5), (6, 1.25), (7, 1.0)):
        night = DAY + later * ONE_DAY
        publish(spark, conf, night, f"r{later}", "model", "m1")
        cell = {"head": "click", "source": "feed", "tower": schemas.ALL, "stage": "calibrated", "measured_day": night - 3 * ONE_DAY}
        found = [cell | {"model": model, "ratio": ratio * factor, "ne": 0.5} for model, factor in (("m1", 1), ("m2", 9))]
        overwrite_days(rows(spark, schemas.METRICS, found, day=night), conf.workdir, schemas.METRICS, night, night)
    asked = "model, ratio, ratio_day_before, ratio_week_before, ne_day_before"
    assert in_both(spark, conf, f"SELECT {asked} FROM calibration_changes ORDER BY measured_day") == [
        ("m1", 1.5, None, None, None),
        ("m1", 1.25, None, None, None),
        ("m1", 1.0, 1.25, 1.5, 0.5),
    ]


def test_bins_are_of_models_that_served(spark: SparkSession, lake: Conf) -> None:
    assert in_both(spark, lake, "SELECT model, bin, rows FROM calibration_bins") == [("m1", 0, 9)]


def test_views_of_empty_tables_are_empty(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    create_tables(spark, conf)
    for view in ("scores_current", "scores_daily_summary", "calibration_bins", "calibration_changes", "drift_daily", "run_log"):
        assert in_both(spark, conf, f"SELECT * FROM {view}") == []


def test_a_reader_of_views_sees_whole_days_whatever_is_being_written(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    create_tables(spark, conf)

    def read_by_duckdb() -> Sequence[tuple[Any, ...]]:
        reader = duckdb.connect()
        reader.execute((tmp_path / "views" / "duckdb.sql").read_text())
        return reader.execute("SELECT day, count(*), min(run_id), max(run_id) FROM scores_current GROUP BY day").fetchall()

    write_scores(spark, conf, DAY, 5, "first")
    publish(spark, conf, DAY - ONE_DAY, "first", "scores", "m1", DAY)
    write_views(spark, conf)
    whole = [(DAY, 5, "first", "first")]
    assert read_by_duckdb() == whole
    write_scores(spark, conf, DAY, 3, "again")  # the same day made anew, as by a rollback: not yet published
    assert read_by_duckdb() == whole
    write_scores(spark, conf, NEXT, 2, "second")
    assert read_by_duckdb() == whole
    publish(spark, conf, DAY, "second", "scores", "m1", NEXT)
    assert read_by_duckdb() == whole
    write_views(spark, conf)
    assert read_by_duckdb() == [(NEXT, 2, "second", "second")]
    make_views(spark, (tmp_path / "views" / "spark.sql").read_text())
    assert [row["run_id"] for row in spark.sql("SELECT DISTINCT run_id FROM scores_current").collect()] == ["second"]


def test_every_column_has_a_comment_in_the_dictionary_and_in_the_table(spark: SparkSession, lake: Conf) -> None:
    text = dictionary(lake)
    for table in schemas.all_tables(lake).values():
        assert f"## {table.name}" in text
        for field in table.columns:
            assert field.metadata.get("comment"), f"{table.name}.{field.name} has no comment"
            assert f"| {field.name} | {field.dataType.simpleString()} |" in text
    made = spark.read.format("delta").load(f"{lake.workdir}/tables/scores").schema
    assert made["unseen_share"].metadata["comment"] == schemas.scores(lake).schema["unseen_share"].metadata["comment"]
    assert "## runs" not in dictionary(lake, "scores") and "`p_click > 0 AND p_click < 1`" in dictionary(lake, "scores")


def test_pandas_reads_what_is_exported(spark: SparkSession, lake: Conf, tmp_path: Path) -> None:
    from jobs.export import published_day, write_export

    assert published_day(spark, lake, None) == DAY
    folder = write_export(spark, lake, DAY, tmp_path / "out")
    assert write_export(spark, lake, DAY, tmp_path / "out") == folder  # an earlier export is replaced
    assert sorted(pd.read_parquet(folder / "scores.parquet")["inventory_id"]) == ["i0", "i1", "i2", "i3"]
    assert pd.read_csv(folder / "campaigns.csv")[["campaign_id", "rows"]].to_numpy().tolist() == [["c0", 2], ["c1", 2]]
    assert "| p_click | double |" in (folder / "dictionary.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(Exception, match=f"no scores of {NEXT} to export; published are {DAY} to {DAY}"):
        published_day(spark, lake, NEXT)
