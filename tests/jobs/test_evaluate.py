"""What evaluation says of rows whose values have weights of their own."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Head
from etl.calibrated import in_both_stages
from etl.calibration_stats import binned
from etl.grouped import user_sums
from jobs.evaluate import metric_rows, reliability_rows
from models.calibration import Cell
from models.metrics import grouped_auc


def test_each_row_is_calibrated_by_its_own_values_and_tower(spark: SparkSession) -> None:
    """Four rows with odds of 1; those of feed become 3 : 1 for US and 1 : 3 for BR, that of video stays."""
    rows = [("a", "feed", "US", 0.0, 1), ("a", "feed", "BR", 0.0, 0), ("b", "feed", "BR", 0.0, 0), ("b", "video", "US", 0.0, 1)]
    columns = "source STRING, tower STRING, country STRING, logit_click DOUBLE, label_click INT"
    served = spark.createDataFrame(rows, columns).withColumn("user_id", F.lit("u1"))
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
    assert found["(all)", "video", "raw"]["gauc"] is None
    assert found["b", "(all)", "calibrated"]["predicted"] == pytest.approx(0.75)
    assert found["(all)", "feed", "calibrated"]["ratio"] == pytest.approx(1.25)
    (before, after) = (row for row in reliability_rows(counted, groups=1) if row["tower"] == "feed")
    assert (before["stage"], before["rows"], before["predicted"], before["observed"]) == ("raw", 3, 0.5, pytest.approx(1 / 3))
    assert (after["stage"], after["rows"], after["predicted"]) == ("calibrated", 3, pytest.approx(1.25 / 3))
