"""How the order of utility changes by calibration, on rows whose ranks are known."""

from __future__ import annotations

import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Head
from etl.order_change import order_change

HEADS = {"click": Head(action="click", utility_weight=1), "hide": Head(action="hide", utility_weight=-3)}


def scores(spark: SparkSession, rows: list[tuple[float, float, int]]) -> DataFrame:
    """(p_click_raw, p_hide_raw, rank by calibrated utility) of each row."""
    given = [(f"n{place:03d}", click, hide, rank) for place, (click, hide, rank) in enumerate(rows)]
    return spark.createDataFrame(given, "inventory_id STRING, p_click_raw DOUBLE, p_hide_raw DOUBLE, rank LONG")


def test_ranks_by_raw_utility_are_laid_beside_those_by_calibrated_utility(spark: SparkSession) -> None:
    # raw utility .5, .1, -.1: places 1, 2, 3; calibrated, the second and the third change places
    found = order_change(scores(spark, [(0.5, 0.0, 1), (0.4, 0.1, 3), (0.2, 0.1, 2)]), HEADS)
    assert found.rank_correlation == pytest.approx(0.5) and (found.top_kept, found.top_rows) == (1.0, 1)
    turned = order_change(scores(spark, [(place / 300, 0.0, place + 1) for place in range(200)]), HEADS)
    assert turned.rank_correlation == pytest.approx(-1) and (turned.top_kept, turned.top_rows) == (0.0, 2)


def test_one_head_whose_calibrator_keeps_the_order_changes_nothing(spark: SparkSession) -> None:
    rows = [(place / 300, 0.5, 200 - place) for place in range(200)]  # a constant hide moves nobody
    found = order_change(scores(spark, rows), HEADS)
    assert found.rank_correlation == pytest.approx(1) and (found.top_kept, found.top_rows) == (1.0, 2)
