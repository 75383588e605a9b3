"""The rules of tables that stages build: a planted fault in history, served and scores is found by its own rule. Real Spark, tiny rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from etl.schemas import Table, history, scores, served
from tests.small import DAY, rows, small_conf
from validation.gate import Clock, Judged, check_tables

RATES = [{"column": "ad_click_rate", "family": "history", "type": "continuous"}]
CONF = small_conf(template={"features": RATES})
NAN, INFINITE = float("nan"), float("inf")

GOOD: dict[str, dict[str, Any]] = {
    "history": {"kind": "ad", "key": "a1", "impressions": 3, "engaged_click": 1, "engaged_good_click": 0, "engaged_scroll_up": 0},
    "served": {
        **{"impression_id": "i1", "model": "m", "logit_click": -2.0, "logit_good_click": 0.5, "logit_scroll_up": -3.0},
        **{"label_click": 1, "label_good_click": 0, "label_scroll_up": None},
    },
    "scores": {
        **{"inventory_id": "n1", "model": "m", "expected_impressions": 10.0, "rank": 1, "percentile": 1.0, "utility": 0.2},
        **{"p_click_raw": 0.3, "p_good_click_raw": 0.1, "p_scroll_up_raw": 0.4, "p_click": 0.2, "p_good_click": 0.1, "p_scroll_up": 0.5},
        **{"expected_click": 2.0, "expected_good_click": 1.0, "expected_scroll_up": 5.0},
    },
}
TABLES: dict[str, Table] = {"history": history(CONF), "served": served(CONF), "scores": scores(CONF)}


def failed(spark: SparkSession, tmp_path: Path, table: str, given: list[dict[str, Any]]) -> list[str]:
    judged = Judged(TABLES[table], rows(spark, TABLES[table], given), DAY, DAY, usual=False)
    report = check_tables([judged], CONF, tmp_path, "a-run", Clock(DAY, DAY, DAY))
    return [finding.expectation for finding in report.failed_critical]


@pytest.mark.parametrize("table", GOOD)
def test_a_good_row_holds_every_rule_and_twice_is_once_too_often(spark: SparkSession, tmp_path: Path, table: str) -> None:
    assert failed(spark, tmp_path / "once", table, [GOOD[table]]) == []
    assert failed(spark, tmp_path / "twice", table, [GOOD[table], GOOD[table]]) == ["key_unique"]


@pytest.mark.parametrize(
    ("table", "fault", "rule"),
    [
        ("history", {"kind": "user"}, "kind_known"),
        ("history", {"impressions": -1, "engaged_click": 2}, "impressions_not_negative"),
        ("history", {"impressions": 0, "engaged_click": 0}, "counts_something"),
        ("served", {"logit_click": NAN}, "logit_click_finite"),
        ("served", {"logit_good_click": -INFINITE}, "logit_good_click_finite"),
        ("served", {"label_click": 0, "label_good_click": 1}, "label_good_click_follows_click"),
        ("scores", {"p_scroll_up_raw": 1.0}, "p_scroll_up_raw_inside_0_and_1"),
        ("scores", {"p_click_raw": NAN}, "p_click_raw_inside_0_and_1"),
        ("scores", {"p_good_click_raw": 0.31}, "p_good_click_raw_at_most_p_click_raw"),
        ("scores", {"expected_click": 3.0}, "expected_click_is_a_product"),
        ("scores", {"utility": 0.3}, "utility_is_the_weighted_sum"),
        ("scores", {"rank": 0}, "rank_counts_from_1"),
        ("scores", {"percentile": 1.5}, "percentile_is_a_share"),
    ],
)
def test_each_fault_is_found_by_its_own_rule(spark: SparkSession, tmp_path: Path, table: str, fault: dict[str, Any], rule: str) -> None:
    assert rule in failed(spark, tmp_path, table, [{**GOOD[table], **fault}])
