"""What a finished night is held to against the truth, by hand arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from etl.truth import broken_promises, fit_bins, score_bins, scored_sums
from jobs.truth import Cell, auc_by, oracle_of
from models.metrics import poisson_interval
from tests.small import small_conf

HEADS = {name: head for name, head in small_conf().heads.items() if name in ("click", "good_click")}
TRUTH = {"c_click": 0.5, "p_click": 0.5, "c_good_click": 0.5, "p_good_click": 0.25}
SERVED = {"source": "feed", "tower": "feed", "logit_click": 0.0, "logit_good_click": 0.0, "label_click": 0, "label_good_click": 0}
SCORED = {"source": "feed", "tower": "feed", "p_click_raw": 0.5, "p_good_click_raw": 0.25, "p_click": 0.5, "p_good_click": 0.25}


def truth(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    schema = "id STRING, c_click DOUBLE, p_click DOUBLE, c_good_click DOUBLE, p_good_click DOUBLE"
    return spark.createDataFrame([{**TRUTH, **row} for row in given], schema)


def served(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    logits, labels = "logit_click DOUBLE, logit_good_click DOUBLE", "label_click INT, label_good_click INT"
    return spark.createDataFrame(
        [{**SERVED, **row} for row in given], f"impression_id STRING, source STRING, tower STRING, {logits}, {labels}"
    )


def scores(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    numbers = ", ".join(f"{name} DOUBLE" for name in SCORED if name.startswith("p_"))
    return spark.createDataFrame([{**SCORED, **row} for row in given], f"inventory_id STRING, source STRING, tower STRING, {numbers}")


def cell(**over: Any) -> Cell:
    full: dict[str, Any] = {"head": "click", "source": "feed", "rows": 10, "ratio": 1.0, "oracle_ratio": 1.0, "auc": 0.7, "true_auc": 0.8}
    return Cell(**full | {"fit_positives": 500} | over)


def test_fit_rows_are_those_with_a_known_label_and_of_a_child_those_whose_parent_is_positive(spark):
    rows = served(
        spark,
        {"impression_id": "clicked", "label_click": 1, "label_good_click": 1},
        {"impression_id": "not clicked"},
        {"impression_id": "unknown", "label_click": None, "label_good_click": None},
        {"impression_id": "without truth"},
    )
    known = truth(spark, {"id": "clicked", "c_click": 0.3, "c_good_click": 0.9}, {"id": "not clicked", "c_click": 0.1}, {"id": "unknown"})
    bins = fit_bins(rows, known, HEADS).set_index("head")
    assert list(bins.index) == ["click", "good_click"]
    assert (bins.loc["click", "rows"], bins.loc["click", "positives"]) == (2, 1)
    assert bins.loc["click", "expected"] == pytest.approx(0.3 + 0.1)
    assert (bins.loc["good_click", "rows"], bins.loc["good_click", "expected"]) == (1, pytest.approx(0.9))


def test_the_oracle_learns_the_level_that_the_true_probabilities_have():
    """All log-odds are 0 and the truth is 1/4: only the level can be learned, and it is log(1/3)."""
    one = {"head": "click", "source": "feed", "tower": "feed", "bin": 0, "z_sum": 0.0, "rows": 8, "expected": 2.0, "positives": 0}
    b0, b1 = oracle_of(pd.DataFrame([one]))["click", "feed"]
    assert (b0, b1) == (pytest.approx(math.log(1 / 3)), pytest.approx(0.0))


def test_sums_compare_what_was_scored_what_the_oracle_gives_and_what_is_true(spark):
    """The oracle takes click from 1/2 to 1/4; a child it has no cell for keeps its conditional 1/2, under the calibrated parent."""
    scored = scores(spark, {"inventory_id": "a", "p_click": 0.4, "p_good_click": 0.1}, {"inventory_id": "b", "tower": "other"})
    sums = scored_sums(scored, truth(spark, {"id": "a"}, {"id": "b"}), HEADS, {("click", "feed"): (math.log(1 / 3), 0.0)}).set_index("head")
    assert list(sums.loc["click", ["rows", "predicted", "oracle", "true"]]) == pytest.approx([2, 0.4 + 0.5, 0.25 + 0.5, 0.5 + 0.5])
    assert list(sums.loc["good_click", ["predicted", "oracle", "true"]]) == pytest.approx([0.1 + 0.25, 0.125 + 0.25, 0.25 + 0.25])


def test_a_head_that_does_not_apply_has_no_cell(spark):
    scored, known = scores(spark, {"inventory_id": "a"}), truth(spark, {"id": "a", "c_good_click": None, "p_good_click": None})
    assert list(scored_sums(scored, known, HEADS, {})["head"]) == ["click"]


def test_an_auc_counts_each_row_as_positive_with_its_true_probability(spark):
    """Two rows, true 0.8 and 0.2. Of (positive, negative) pairs the right order weighs .8 x .8, the wrong one .2 x .2, ties .8 x .2 twice.

    So the best AUC is .64 + (.16 + .16) / 2 = .8, and scoring them the other way round gives .2.
    """
    scored = scores(spark, {"inventory_id": "high", "p_click": 0.1}, {"inventory_id": "low", "p_click": 0.3})
    bins = score_bins(scored, truth(spark, {"id": "high", "p_click": 0.8}, {"id": "low", "p_click": 0.2}), {"click": HEADS["click"]})
    assert auc_by(bins, "true") == pytest.approx(0.8)
    assert auc_by(bins, "predicted") == pytest.approx(0.2)


def test_rows_lost_rows_scored_twice_and_impossible_probabilities_are_named(spark):
    known, inventory = truth(spark, {"id": "a"}, {"id": "b"}), spark.createDataFrame([("a",), ("b",)], "inventory_id STRING")
    assert broken_promises(scores(spark, {"inventory_id": "a"}, {"inventory_id": "b"}), inventory, known, HEADS) == []
    bad = scores(spark, {"inventory_id": "a"}, {"inventory_id": "a", "p_click": 1.0}, {"inventory_id": "stranger", "p_click": math.nan})
    told = broken_promises(bad, inventory, known, HEADS)
    assert [line.split()[0] for line in told] == ["1", "3", "2"]  # b is lost; a twice, b never, a stranger; 1.0 and NaN


def test_the_promise_is_judged_from_500_positives_on_and_beside_the_oracle():
    cases = [  # ratio, oracle's ratio, positives among the fit rows, verdict
        (1.09, 1.00, 500, "holds"),
        (1.11, 1.00, 500, "FAILS"),
        (0.89, 1.00, 500, "FAILS"),
        (1.24, 0.85, 500, "holds"),  # the oracle is off by .15 itself
        (1.50, 1.00, 499, "too few"),
    ]
    found = [cell(ratio=ratio, oracle_ratio=oracle, fit_positives=count).verdict for ratio, oracle, count, _ in cases]
    assert found == [verdict for *_, verdict in cases]


def test_a_cell_with_too_few_positives_shows_the_interval_of_its_ratio():
    """Of 10 seen, the exact Poisson limits are 4.80 and 18.39."""
    assert poisson_interval(10) == (pytest.approx(0.480, abs=0.002), pytest.approx(1.839, abs=0.002))
    assert "ratio 0.96 to 3.68" in cell(ratio=2.0, fit_positives=10).line()
