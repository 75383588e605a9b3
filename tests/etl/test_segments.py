"""Sums of predicted and observed engagements by segment."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.schema import Head
from conf.template import Template
from etl.segments import closed_lists, segment_sums

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


def test_only_features_of_closed_lists_make_segments() -> None:
    features = [
        {"column": "country", "family": "user", "type": "one_hot", "vocabulary": ["US"]},
        {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 10},
        {"column": "age", "family": "user", "type": "continuous"},
    ]
    assert closed_lists(Template.model_validate({"features": features})) == ["country"]
