"""Row rules: each names one fault, and a good row breaks none."""

from __future__ import annotations

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from conf.source import Kind
from validation.rules import row_rules

GOOD: dict[Kind, dict[str, str]] = {
    "impressions": {
        "impression_id": "'i1'", "source": "'standard'", "tower": "'standard'", "shown_at": "timestamp'2026-05-01 10:00:00'",
        "received_at": "timestamp'2026-05-01 10:00:00'", "ad_id": "'a1'", "bid_micros": "0L", "position": "0",
    },
    "engagements": {
        "impression_id": "'i1'", "user_id": "string(null)", "ad_id": "string(null)", "source": "'standard'", "action": "'click'",
        "acted_at": "timestamp'2026-05-01 10:00:00'", "received_at": "timestamp'2026-05-01 10:00:00'", "dwell_ms": "bigint(null)",
    },
    "users": {"user_id": "'u1'", "valid_from": "timestamp'1970-01-01 00:00:00'", "received_at": "timestamp'2026-05-01 10:00:00'"},
    "ads": {"ad_id": "'a1'", "valid_from": "timestamp'1970-01-01 00:00:00'", "received_at": "timestamp'2026-05-01 10:00:00'"},
    "inventory": {
        "inventory_id": "'n1'", "source": "'standard'", "tower": "'standard'", "ad_id": "'a1'",
        "received_at": "timestamp'2026-05-01 10:00:00'",
        "bid_micros": "bigint(null)", "expected_impressions": "1.5D",
    },
}  # fmt: skip

CASES: list[tuple[Kind, dict[str, str], list[str]]] = [  # kind, what differs from the good row, the rules it breaks
    *((kind, {}, []) for kind in GOOD),
    ("impressions", {"impression_id": "string(null)"}, ["impression_id_present"]),
    ("impressions", {"impression_id": "'  '"}, ["impression_id_present"]),
    ("impressions", {"source": "string(null)", "tower": "''"}, ["source_present", "tower_present"]),
    # A missing clock is one fault, not three.
    ("impressions", {"shown_at": "timestamp(null)"}, ["shown_at_present"]),
    ("impressions", {"received_at": "timestamp(null)"}, ["received_at_present"]),
    ("impressions", {"received_at": "timestamp'2026-05-01 09:59:59'"}, ["received_after_shown"]),
    # Milliseconds read as seconds end in the year 58304, seconds read as milliseconds in January 1970.
    ("impressions", {"received_at": "timestamp_seconds(1777629600000)"}, ["received_at_plausible"]),
    ("impressions", {"shown_at": "timestamp_millis(1777629600)"}, ["shown_at_plausible"]),
    ("impressions", {"ad_id": "string(null)"}, ["ad_id_present"]),
    ("impressions", {"bid_micros": "-1L", "position": "-1"}, ["bid_not_negative", "position_not_negative"]),
    ("impressions", {"bid_micros": "bigint(null)", "position": "int(null)"}, []),
    ("engagements", {"impression_id": "string(null)", "user_id": "'u1'", "ad_id": "'a1'"}, []),
    ("engagements", {"impression_id": "string(null)", "user_id": "'u1'"}, ["engagement_key_present"]),
    ("engagements", {"impression_id": "''"}, ["engagement_key_present"]),
    ("engagements", {"action": "string(null)", "dwell_ms": "-1L"}, ["action_present", "dwell_not_negative"]),
    ("engagements", {"acted_at": "timestamp'2026-05-01 10:00:01'"}, ["received_after_acted"]),
    ("users", {"user_id": "string(null)", "valid_from": "timestamp(null)"}, ["user_id_present", "valid_from_present"]),
    ("ads", {"ad_id": "''", "received_at": "timestamp(null)"}, ["ad_id_present", "received_at_present"]),
    ("inventory", {"inventory_id": "string(null)", "ad_id": "string(null)"}, ["inventory_id_present", "ad_id_present"]),
    ("inventory", {"expected_impressions": "double('NaN')"}, ["expected_impressions_finite"]),
    ("inventory", {"expected_impressions": "double('Infinity')"}, ["expected_impressions_finite"]),
    ("inventory", {"expected_impressions": "-1D"}, ["expected_impressions_finite"]),
    ("inventory", {"expected_impressions": "double(null)"}, []),
]  # fmt: skip


def test_each_fault_breaks_exactly_its_own_rules(spark: SparkSession) -> None:
    found: dict[int, list[str]] = {}
    for kind in GOOD:
        rows = [_row(number, kind, changed) for number, (of, changed, _) in enumerate(CASES) if of == kind]
        reasons = spark.sql(" UNION ALL ".join(rows)).select("number", _reasons(kind)).collect()
        found |= {row["number"]: row["reasons"] for row in reasons}
    assert [(kind, changed, found[number]) for number, (kind, changed, _) in enumerate(CASES)] == CASES


def _row(number: int, kind: Kind, changed: dict[str, str]) -> str:
    """A SELECT of one row: the good one of its kind, with what is changed."""
    return f"SELECT {number} AS number, " + ", ".join(f"{value} AS {name}" for name, value in {**GOOD[kind], **changed}.items())


def _reasons(kind: Kind) -> Column:
    return F.array_compact(F.array(*(F.when(F.expr(rule.broken), rule.name) for rule in row_rules(kind)))).alias("reasons")


def test_a_rule_name_says_one_thing_in_every_kind() -> None:
    meanings: dict[str, set[str]] = {}
    for kind in GOOD:
        for rule in row_rules(kind):
            meanings.setdefault(rule.name, set()).add(rule.holds)
    assert {name for name, holds in meanings.items() if len(holds) > 1} == set()
