"""The rules of tables that stages build: a planted fault in any of them is found by its own rule. Real Spark, tiny rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl.schemas import Table, all_tables
from etl.splits import ONE_DAY
from tests.small import DAY, at, rows, small_conf
from validation.gate import Clock, Judged, check_tables
from validation.table_rules import rules_of

RATES = [{"column": "ad_click_rate", "family": "history", "type": "continuous"}]
CONF = small_conf(template={"features": RATES})
BEFORE, AFTER = DAY - ONE_DAY, DAY + ONE_DAY
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
    "metrics": {
        **{"model": "m", "head": "click", "source": "(all)", "stage": "raw", "measured_day": BEFORE},
        **{"rows": 10, "positives": 2, "predicted": 1.5, "ratio": 0.75, "ne": 0.9, "top_ratio": 0.8, "auc": 0.7, "gauc": 0.6, "ece": 0.1},
        **{"brier": 0.1, "ece_low": 0.05, "ece_high": 0.2, "ece_chance": 0.02},
    },
    "calibration_daily": {
        **{"model": "m", "head": "click", "stage": "calibrated", "measured_day": BEFORE, "bin": 0},
        **{"rows": 10, "predicted": 0.2, "observed": 0.0},
    },
    "calibration_segments": {
        **{"model": "m", "head": "click", "by": "country", "value": "AT", "measured_day": BEFORE, "rows": 10, "positives": 2},
        **{"predicted_raw": 1.0, "predicted": 1.5, "ratio": 0.75, "ratio_low": 0.2, "ratio_high": 3.0},
    },
    "models": {
        **{"model": "m", "parent": None, "trained_from": BEFORE, "trained_to": BEFORE, "verdict": "publish", "reason": "the first"},
        "path": "models/m",
    },
    "publications": {"what": "model", "model": "m", "published_at": at("05:00", AFTER)},
    "runs": {
        **{"run_id": "r", "stage": "ingest", "status": "done", "as_of": at("00:00", AFTER), "started_at": at("05:00", AFTER)},
        **{"seconds": 1.5, "fingerprint": "f"},
    },
}
TABLES: dict[str, Table] = {name: table for name, table in all_tables(CONF).items() if name in GOOD}


def failed(spark: SparkSession, tmp_path: Path, table: str, given: list[dict[str, Any]]) -> list[str]:
    judged = Judged(TABLES[table], rows(spark, TABLES[table], given), DAY, DAY, usual=False)
    report = check_tables([judged], CONF, tmp_path, "a-run", Clock(DAY, DAY, DAY))
    return [finding.expectation for finding in report.failed_critical]


@pytest.mark.parametrize("table", GOOD)
def test_a_good_row_holds_every_rule_and_twice_is_once_too_often(spark: SparkSession, tmp_path: Path, table: str) -> None:
    assert failed(spark, tmp_path / "once", table, [GOOD[table]]) == []
    assert failed(spark, tmp_path / "twice", table, [GOOD[table], GOOD[table]]) == ["key_unique"]


FAULTS: dict[str, list[tuple[dict[str, Any], str]]] = {  # table -> what is changed in its good row, and the rule that it breaks
    "calibration_segments": [
        ({"head": "like"}, "head_known"),
        ({"positives": 11}, "positives_at_most_rows"),
        ({"predicted_raw": NAN}, "predicted_raw_at_most_rows"),
        ({"predicted": 10.5}, "predicted_at_most_rows"),
        ({"ratio_low": 0.8}, "ratio_inside_its_interval"),
        ({"measured_day": AFTER}, "measured_before_the_night"),
    ],
    "history": [
        ({"kind": "user"}, "kind_known"),
        ({"impressions": -1, "engaged_click": 2}, "impressions_not_negative"),
        ({"impressions": 0, "engaged_click": 0}, "counts_something"),
    ],
    "served": [
        ({"logit_click": NAN}, "logit_click_finite"),
        ({"logit_good_click": -INFINITE}, "logit_good_click_finite"),
        ({"label_click": 0, "label_good_click": 1}, "label_good_click_follows_click"),
    ],
    "scores": [
        ({"p_scroll_up_raw": 1.0}, "p_scroll_up_raw_inside_0_and_1"),
        ({"p_click_raw": NAN}, "p_click_raw_inside_0_and_1"),
        ({"p_good_click_raw": 0.31}, "p_good_click_raw_at_most_p_click_raw"),
        ({"expected_click": 3.0}, "expected_click_is_a_product"),
        ({"utility": 0.3}, "utility_is_the_weighted_sum"),
        ({"rank": 0}, "rank_counts_from_1"),
        ({"percentile": 1.5}, "percentile_is_a_share"),
    ],
    "metrics": [
        ({"head": "gone"}, "head_known"),
        ({"stage": "cooked"}, "stage_known"),
        ({"positives": 11}, "positives_at_most_rows"),
        ({"predicted": NAN}, "predicted_at_most_rows"),
        ({"ratio": 1.1}, "ratio_follows"),
        ({"positives": 0}, "ratio_follows"),
        ({"ne": INFINITE}, "ne_finite"),
        ({"auc": 1.01}, "auc_is_a_share"),
        ({"ece": NAN}, "ece_is_a_share"),
        ({"top_ratio": 0.0}, "top_ratio_positive"),
        ({"brier": 1.5}, "brier_is_a_share"),
        ({"ece_low": 0.3}, "ece_limits_in_order"),
        ({"ece_chance": -0.1}, "ece_chance_is_a_share"),
        ({"measured_day": AFTER}, "measured_before_the_night"),
    ],
    "calibration_daily": [
        ({"rows": 0}, "bin_holds_rows"),
        ({"predicted": 1.0}, "predicted_inside_0_and_1"),
        ({"observed": -0.1}, "observed_is_a_share"),
    ],
    "models": [
        ({"trained_from": DAY}, "trained_days_in_order"),
        ({"trained_to": DAY}, "trained_before_the_night"),
        ({"verdict": "perhaps"}, "verdict_known"),
        ({"reason": " "}, "reason_present"),
        ({"path": "models/other"}, "path_inside"),
        ({"parent": "m"}, "parent_is_another"),
    ],
    "publications": [
        ({"what": "rumour"}, "what_known"),
        ({"scored_day": DAY}, "scored_day_of_scores"),
        ({"published_at": None}, "published_at_present"),
    ],
    "runs": [
        ({"status": "perhaps"}, "status_known"),
        ({"seconds": -1.0}, "seconds_not_negative"),
        ({"started_at": None}, "started_at_present"),
        ({"as_of": at("00:00")}, "clock_is_the_days"),
        ({"fingerprint": ""}, "done_has_a_fingerprint"),
    ],
}


@pytest.mark.parametrize("table", FAULTS)
def test_each_fault_is_found_by_its_own_rule(spark: SparkSession, table: str) -> None:
    given = [{**GOOD[table], **fault} for fault, _ in FAULTS[table]]
    broken = [F.expr(rule.broken).alias(rule.name) for rule in rules_of(TABLES[table], CONF)]
    found = rows(spark, TABLES[table], given).select(*broken).collect()
    for row, (fault, rule) in zip(found, FAULTS[table], strict=True):
        assert row[rule], f"{rule} holds with {fault}"
