"""How labelled log-odds are counted into bins."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Head
from etl import calibration_stats
from etl.calibration_stats import WIDTHS, binned, faded, segmented
from models.calibration import Segments
from models.calibration_fit import fit_calibrator

HEADS = {"click": Head(action="click"), "good_click": Head(action="click", parent="click")}
FEATURES = ("country", "device")
SCHEMA = "tower STRING, source STRING, logit_click DOUBLE, logit_good_click DOUBLE, label_click INT, label_good_click INT, country STRING, device STRING"


def served(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    default: dict[str, Any] = {
        "tower": "feed",
        "source": "a",
        "logit_click": 0.0,
        "logit_good_click": 0.0,
        "label_click": 0,
        "label_good_click": 0,
        "country": None,
        "device": None,
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


def test_a_segment_holds_the_rows_of_one_tower_with_the_same_frequent_values_and_nearly_the_same_log_odds(spark: SparkSession) -> None:
    rows: list[dict[str, Any]] = [
        *({"country": "US", "device": "tv", "label_click": clicked} for clicked in (0, 1, 1)),
        *({"country": "BR", "device": "tv"} for _ in range(2)),
        *({"country": "AU"} for _ in range(2)),  # as frequent as BR, and after it only by name
        {"country": "JP", "device": "pc", "logit_click": -1.0},
        {"label_click": None, "country": "US"},  # counts as traffic, and fits nothing
    ]
    found, values = segmented(served(spark, *rows), {"click": HEADS["click"]}, FEATURES, most=2)
    assert values == {"country": ["US", "AU"], "device": ["tv", "pc"]}
    assert list(found.columns) == ["head", "tower", "country__code", "device__code", "bin", "z_sum", "rows", "positives"]
    assert table(found) == [
        ("click", "feed", -1, 0, 0, 0.0, 2, 0),  # BR is not told from other countries
        ("click", "feed", -1, 1, -int(1 / WIDTHS[0]), -1.0, 1, 0),
        ("click", "feed", 0, 0, 0, 0.0, 3, 2),
        ("click", "feed", 1, -1, 0, 0.0, 2, 0),  # no device
    ]


def test_segments_are_never_more_than_the_driver_takes(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 rows of 8 countries, 4 devices and log-odds from -3 to 0: wider bins first, then fewer values."""
    rows = [{"country": f"c{n % 8}", "device": f"d{n % 4}", "logit_click": -n / 100, "label_click": int(n % 10 == 0)} for n in range(300)]
    frame, heads = served(spark, *rows), {"click": HEADS["click"]}
    cases = [  # GROUPS, most values, width of the bins that fit, values told apart of country and device
        (300, 50, WIDTHS[0], (8, 4)),  # a row each
        (160, 50, WIDTHS[3], (8, 4)),  # 8 pairs of values x 13 bins of a quarter
        (70, 50, WIDTHS[3], (2, 2)),  # 5 pairs: c0 d0, c1 d1, others with d0, with d1 and with neither
        (10, 1, WIDTHS[3], (0, 0)),  # 13 bins of rows that nothing tells apart
    ]
    for groups, most, width, kept in cases:
        monkeypatch.setattr(calibration_stats, "GROUPS", groups)
        found, values = segmented(frame, heads, FEATURES, most)
        assert tuple(len(values[name]) for name in FEATURES) == kept, groups
        assert len(found) <= groups or kept == (0, 0)
        assert sorted(found["bin"].unique())[0] == int(-2.99 // width)
        assert (found["rows"].sum(), found["positives"].sum()) == (300, 30)
        assert found["z_sum"].sum() == pytest.approx(-sum(range(300)) / 100, abs=1e-6)


def test_the_same_rows_in_any_order_give_the_same_calibrator_to_the_last_letter(spark: SparkSession) -> None:
    draw = random.Random(2)
    rows = [
        {
            "country": draw.choice(["US", "BR", None]),
            "device": draw.choice(["tv", "pc"]),
            "logit_click": draw.gauss(-1, 1),
            "label_click": int(draw.random() < 0.3),
        }
        for _ in range(400)
    ]

    def text(frame: DataFrame) -> str:
        bins, values = segmented(frame, {"click": HEADS["click"]}, FEATURES, most=50)
        return fit_calibrator(list(bins.itertuples(index=False)), ["click"], ["feed"], 20, Segments(values, ridge=20)).to_json()  # type: ignore[arg-type]

    whole = text(served(spark, *rows))
    assert '"country=BR"' in whole and '"device=tv"' in whole
    assert text(served(spark, *reversed(rows)).repartition(5)) == whole


def test_a_row_weighs_half_for_each_half_life_that_its_day_lies_back():
    days = [date(2026, 5, 7), date(2026, 5, 5), date(2026, 5, 1)]
    table = pd.DataFrame({"day": days, "z_sum": -8.0, "rows": 4, "positives": 2, "bin": -2})
    found = faded(table, date(2026, 5, 7), half_life_days=2)
    assert found["rows"].tolist() == [4, 2, 0.5]
    assert found["positives"].tolist() == [2, 1, 0.25]
    assert (found["z_sum"] / found["rows"]).tolist() == [-2, -2, -2] and found["bin"].tolist() == [-2, -2, -2]
    assert faded(table, date(2026, 5, 7), None) is table
