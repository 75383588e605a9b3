"""How a model's traffic is counted for a backtest."""

from __future__ import annotations

from datetime import date

import pytest
from pyspark.sql import SparkSession

from conf.schema import Head
from etl import calibration_stats
from etl.traffic import traffic_bins

HEADS = {"click": Head(action="click")}
SCHEMA = "day DATE, tower STRING, country STRING, logit_click DOUBLE, label_click INT, c_click DOUBLE"
FIRST, SECOND = date(2026, 5, 1), date(2026, 5, 2)
ROWS = [
    (FIRST, "feed", "DE", -1.0, 1, 0.3),
    (FIRST, "feed", "DE", -1.0, 0, 0.4),
    (FIRST, "feed", None, -1.0, 0, 0.1),
    (SECOND, "feed", "US", -1.0, 1, 0.2),
    (SECOND, "feed", "US", -1.0, None, 0.2),
]


def test_bins_are_of_a_day_a_tower_and_a_segment_by_its_name(spark: SparkSession) -> None:
    found = traffic_bins(spark.createDataFrame(ROWS, SCHEMA), HEADS, ["country"], days=2, truth=True)
    counted = found.fillna({"country": "none"})[["day", "country", "rows", "positives", "expected"]]
    assert sorted(counted.itertuples(index=False, name=None), key=str) == [
        (FIRST, "DE", 2, 1, pytest.approx(0.7)),
        (FIRST, "none", 1, 0, pytest.approx(0.1)),
        (SECOND, "US", 1, 1, pytest.approx(0.2)),
    ]


def test_without_features_and_truth_a_bin_is_of_a_day_and_a_tower(spark: SparkSession) -> None:
    found = traffic_bins(spark.createDataFrame(ROWS, SCHEMA), HEADS, [], days=2, truth=False)
    assert found[["day", "rows", "positives"]].to_numpy().tolist() == [[FIRST, 3, 1], [SECOND, 1, 1]]


def test_many_rows_get_wider_bins_and_keep_their_sums(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_stats, "GROUPS", 40)
    monkeypatch.setattr("etl.traffic.GROUPS", 40)
    rows = [(FIRST, "feed", "DE", -2 - place / 100, place % 2, 0.25) for place in range(200)]
    found = traffic_bins(spark.createDataFrame(rows, SCHEMA), HEADS, ["country"], days=1, truth=True)
    assert len(found) <= 40
    assert (found["rows"].sum(), found["positives"].sum()) == (200, 100)
    assert found["z_sum"].sum() == pytest.approx(sum(row[3] for row in rows), abs=1e-6)
    assert found["expected"].sum() == pytest.approx(50)
