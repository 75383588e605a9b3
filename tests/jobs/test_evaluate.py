"""What evaluation says of rows whose values have weights of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Head
from etl.calibrated import in_both_stages
from etl.calibration_stats import binned, segmented
from etl.grouped import user_sums
from etl.segments import segment_sums
from jobs.evaluate import metric_rows, reliability_rows, segment_rows
from models.calibration import Cell, Segments
from models.calibration_fit import Bin, fit_calibrator
from models.metrics import grouped_auc, sigmoid


def test_each_row_is_calibrated_by_its_own_values_and_tower(spark: SparkSession) -> None:
    """Four rows with odds of 1; those of feed become 3 : 1 for US and 1 : 3 for BR, that of video stays."""
    rows = [("a", "feed", "US", 0.0, 1), ("a", "feed", "BR", 0.0, 0), ("b", "feed", "BR", 0.0, 0), ("b", "video", "US", 0.0, 1)]
    columns = "source STRING, tower STRING, country STRING, logit_click DOUBLE, label_click INT"
    served = spark.createDataFrame(rows, columns).withColumns({"user_id": F.lit("u1"), "model": F.lit("m")})
    heads = {"click": Head(action="click")}
    cells = {("click", "feed"): Cell("featured", w={"country=US": 1.0986122886681098, "country=BR": -1.0986122886681098})}
    staged = in_both_stages(served, heads, cells)
    counted, by_user = binned(staged, heads, by=("stage", "tower", "source")), user_sums(staged, heads, grouped_auc)
    found = {(row["source"], row["tower"], row["stage"]): row for row in metric_rows(counted, by_user, groups=4)}
    assert len(found) == 10  # all, two sources, two towers, before and after
    whole = found["(all)", "(all)", "raw"], found["(all)", "(all)", "calibrated"]
    assert [(row["rows"], row["positives"]) for row in whole] == [(4, 2), (4, 2)]
    assert [row["predicted"] for row in whole] == pytest.approx([2.0, 1.75])
    assert [row["auc"] for row in whole] == [0.5, 1.0]
    assert [row["gauc"] for row in whole] == [0.5, 1.0]  # there is one user
    assert [row["top_ratio"] for row in whole] == pytest.approx([1.0, 0.75])  # of four ties at 1 / 2; of the one row at 3 / 4
    assert found["(all)", "video", "raw"]["gauc"] is None
    assert found["b", "(all)", "calibrated"]["predicted"] == pytest.approx(0.75)
    assert found["(all)", "feed", "calibrated"]["ratio"] == pytest.approx(1.25)
    (before, after) = (row for row in reliability_rows(counted, groups=1) if row["tower"] == "feed")
    assert (before["stage"], before["rows"], before["predicted"], before["observed"]) == ("raw", 3, 0.5, pytest.approx(1 / 3))
    assert (after["stage"], after["rows"], after["predicted"]) == ("calibrated", 3, pytest.approx(1.25 / 3))


def test_a_country_whose_odds_fell_is_named_and_mended_by_its_weight_and_not_by_two_parameters(spark: SparkSession) -> None:
    """Simulated: two days of 120,000 rows of three countries. The model is right but for BR, whose odds fell: its raw ratio is 1.5."""
    heads, values = {"click": Head(action="click")}, {"country": ["US", "DE", "BR"]}

    def day(seed: int) -> tuple[DataFrame, float]:
        random = np.random.default_rng(seed)
        z, country = random.normal(-2, 1, 120_000), random.choice(values["country"], 120_000, p=[0.4, 0.3, 0.3])
        truth = sigmoid(z - 0.5155 * (country == "BR"))
        rows = pd.DataFrame(
            {"model": "m", "impression_id": np.arange(120_000).astype(str), "tower": "feed", "country": country, "logit_click": z}
        )
        rows["label_click"] = (random.random(120_000) < truth).astype(int)
        return spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False)), float(truth[country == "BR"].sum())

    (fit_day, _), (judged_day, true) = day(1), day(2)
    groups, told_apart = segmented(fit_day, heads, ["country"], most=50)
    two = fit_calibrator(cast(Iterable[Bin], binned(fit_day, heads).itertuples(index=False)), ["click"], ["feed"], 200)
    featured = fit_calibrator(
        cast(Iterable[Bin], groups.itertuples(index=False)), ["click"], ["feed"], 200, Segments(told_apart, ridge=None)
    )
    examples = judged_day.select("impression_id", "country")
    found = {}
    for name, calibrator in (("two", two), ("featured", featured)):
        sums = segment_sums(in_both_stages(judged_day, heads, calibrator.by_cell), examples, heads, ["country"])
        found[name] = {row["value"]: row for row in segment_rows(sums)}
    before, after = found["two"]["BR"], found["featured"]["BR"]
    assert before["positives"] > 3_000 and before["predicted_raw"] / true == pytest.approx(1.5, abs=0.02)
    off = {name: {value for value, row in rows.items() if not row["ratio_low"] <= 1 <= row["ratio_high"]} for name, rows in found.items()}
    assert off == {"two": {"US", "DE", "BR"}, "featured": set()}, "two parameters move all countries to make up for one"
    assert before["predicted"] / true > 1.25 and abs(after["predicted"] / true - 1) < 0.05
