"""How labelled log-odds are counted into bins."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Head
from etl.calibration_stats import binned

HEADS = {"click": Head(action="click"), "good_click": Head(action="click", parent="click")}
SCHEMA = "tower STRING, source STRING, logit_click DOUBLE, logit_good_click DOUBLE, label_click INT, label_good_click INT"


def served(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    default: dict[str, Any] = {
        "tower": "feed",
        "source": "a",
        "logit_click": 0.0,
        "logit_good_click": 0.0,
        "label_click": 0,
        "label_good_click": 0,
    }
    return spark.createDataFrame([tuple({**default, **row}.values()) for row in given], SCHEMA)


def table(found: pd.DataFrame) -> list[tuple]:
    return list(found.itertuples(index=False, name=None))


def test_a_bin_holds_the_rows_whose_log_odds_lie_within_its_width(spark: SparkSession) -> None:
    rows = [
        {"logit_click": -2.25, "label_click": 1},
        {"logit_click": -2.0625, "label_click": 0},
        {"logit_click": -2.0, "label_click": 0},
        {"logit_click": 0.25, "label_click": 1},
    ]
    found = binned(served(spark, *rows), {"click": HEADS["click"]}, width=0.25)
    assert list(found.columns) == ["head", "tower", "bin", "z_sum", "rows", "positives"]
    assert table(found) == [
        ("click", "feed", -9, -4.3125, 2, 1),  # [-2.25, -2.0)
        ("click", "feed", -8, -2.0, 1, 0),
        ("click", "feed", 1, 0.25, 1, 1),
    ]


def test_a_child_head_counts_only_rows_with_its_parent(spark: SparkSession) -> None:
    rows: list[dict[str, Any]] = [  # of the five, the child counts the second and third
        {"label_click": 0, "label_good_click": 0},
        {"label_click": 1, "label_good_click": 0},
        {"label_click": 1, "label_good_click": 1},
        {"label_click": 1, "label_good_click": None},
        {"label_click": None, "label_good_click": None},
    ]
    assert table(binned(served(spark, *rows), HEADS)) == [("click", "feed", 0, 0.0, 4, 3), ("good_click", "feed", 0, 0.0, 2, 1)]


def test_a_row_without_label_or_log_odds_is_left_out(spark: SparkSession) -> None:
    found = binned(served(spark, {"label_click": None}, {"logit_click": None}), {"click": HEADS["click"]})
    assert table(found) == [] and list(found.columns) == ["head", "tower", "bin", "z_sum", "rows", "positives"]


def test_log_odds_beyond_20_count_as_20(spark: SparkSession) -> None:
    found = binned(served(spark, {"logit_click": 50.0}, {"logit_click": -1e9}), {"click": HEADS["click"]}, width=1.0)
    assert table(found) == [("click", "feed", -20, -20.0, 1, 0), ("click", "feed", 20, 20.0, 1, 0)]


def test_cells_are_told_apart_by_every_column_asked_for_and_sorted_by_them(spark: SparkSession) -> None:
    rows = [{"tower": "video", "source": "b"}, {"tower": "feed", "source": "b"}, {"tower": "feed", "source": "a"}]
    found = binned(served(spark, *rows), HEADS, by=("tower", "source"))
    assert table(found[["head", "tower", "source", "rows"]]) == [
        ("click", "feed", "a", 1),
        ("click", "feed", "b", 1),
        ("click", "video", "b", 1),
    ]


def test_the_table_is_the_same_to_the_last_bit_in_any_order_of_rows_and_merges(spark: SparkSession) -> None:
    draw = random.Random(1)
    rows = [{"logit_click": draw.gauss(-3, 1), "label_click": int(draw.random() < 0.1)} for _ in range(400)]
    heads, keys = {"click": HEADS["click"]}, ["head", "tower", "bin"]
    whole = binned(served(spark, *rows), heads, width=0.5)
    pd.testing.assert_frame_equal(binned(served(spark, *reversed(rows)).repartition(5), heads, width=0.5), whole, check_exact=True)
    halves = pd.concat([binned(served(spark, *half), heads, width=0.5) for half in (rows[:150], rows[150:])])
    pd.testing.assert_frame_equal(halves.groupby(keys, as_index=False).sum(), whole, check_exact=True)
    assert whole["z_sum"].sum() == pytest.approx(sum(row["logit_click"] for row in rows), abs=1e-6)
