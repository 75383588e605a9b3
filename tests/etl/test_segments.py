"""Sums of predicted and observed engagements by segment."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Head
from conf.template import Template
from etl.segments import AD, ADVERTISER, EXPLORED, HOUR, closed_lists, segment_sums, with_common_segments

HEADS = {"click": Head(action="click"), "good_click": Head(action="click", parent="click")}


def test_rows_are_summed_by_each_columns_values_before_and_after_calibration(spark: SparkSession) -> None:
    rows = [  # impression, stage, log-odds of click and good_click, their labels
        ("i1", "raw", 0.0, 0.0, 1, 1),
        ("i1", "calibrated", 1.0986122886681098, 0.0, 1, 1),
        ("i2", "raw", 0.0, 0.0, 0, 0),
        ("i2", "calibrated", -1.0986122886681098, 0.0, 0, 0),
        ("i3", "raw", 0.0, 0.0, None, None),
        ("i3", "calibrated", 0.0, 0.0, None, None),
    ]
    columns = (
        "impression_id STRING, stage STRING, logit_click DOUBLE, logit_good_click DOUBLE, label_click INT, label_good_click INT, "
        "tower STRING, model STRING"
    )
    staged = spark.createDataFrame([(*row, "feed", "m") for row in rows], columns)
    values = [("i1", "US", "phone"), ("i2", "US", None), ("i3", "BR", "phone")]
    examples = spark.createDataFrame(values, "impression_id STRING, country STRING, device STRING")
    found: list[dict[str, Any]] = segment_sums(staged, examples, HEADS, ["country", "device"]).to_dict("records")  # type: ignore[assignment]
    told = {
        (row["head"], row["by"], row["value"]): (row["rows"], row["positives"], row["predicted_raw"], row["predicted"]) for row in found
    }
    assert told == {
        ("click", "country", "US"): (2, 1, 1.0, pytest.approx(1.0)),
        ("click", "device", "phone"): (1, 1, 0.5, pytest.approx(0.75)),
        ("click", "device", "(missing)"): (1, 0, 0.5, pytest.approx(0.25)),
        ("good_click", "country", "US"): (1, 1, 0.5, 0.5),  # a child's rows are those with a click
        ("good_click", "device", "phone"): (1, 1, 0.5, 0.5),
    }


def test_every_row_has_an_hour_an_advertisers_size_an_ad_that_is_new_or_known_and_may_have_been_explored(spark: SparkSession) -> None:
    # The largest advertiser has the first half of all impressions, so its tenth is the first; the next begins at half: the sixth; ties by id.
    shown = [("big", "a1")] * 5 + [("left", "a2")] * 2 + [("right", "a3")] * 2 + [("tiny", "a1"), (None, "a4")]
    explored = [None, True] + [False] * 9
    rows = [(f"i{n}", advertiser, ad, f"2026-05-01 {n:02d}:59:59", explored[n]) for n, (advertiser, ad) in enumerate(shown)]
    columns = "impression_id STRING, advertiser_id STRING, ad_id STRING, shown STRING, explored BOOLEAN"
    examples = spark.createDataFrame(rows, columns).withColumn("shown_at", F.to_timestamp("shown"))
    earlier = spark.createDataFrame([("a1",), ("a3",), ("a1",)], "ad_id STRING")
    found = with_common_segments(examples, earlier).select("impression_id", HOUR, ADVERTISER, AD, EXPLORED).collect()
    assert len(found) == len(rows)
    by_id = {row["impression_id"]: tuple(row[1:]) for row in found}
    chosen, drawn = "chosen by the policy", "drawn to explore"
    assert by_id["i0"] == ("00", "tenth 01", "known", None) and by_id["i1"] == ("01", "tenth 01", "known", drawn)
    assert by_id["i5"] == ("05", "tenth 06", "new", chosen) and by_id["i7"] == ("07", "tenth 08", "known", chosen)
    assert by_id["i9"] == ("09", "tenth 10", "known", chosen) and by_id["i10"] == ("10", None, "new", chosen)


def test_only_features_of_closed_lists_make_segments() -> None:
    features = [
        {"column": "country", "family": "user", "type": "one_hot", "vocabulary": ["US"]},
        {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 10},
        {"column": "age", "family": "user", "type": "continuous"},
    ]
    assert closed_lists(Template.model_validate({"features": features})) == ["country"]
