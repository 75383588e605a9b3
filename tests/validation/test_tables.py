"""The gate on all tables of a night together, against a history, and how features are counted for the ledger. Real Spark, tiny rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.template import Feature
from etl.schemas import ENGAGEMENTS, entity, examples, impressions, inventory
from tests.small import DAY, at, rows, small_conf
from validation.baseline import History
from validation.counting import histograms, id_counts, learned_cuts
from validation.drift import unpack
from validation.expectations import value_of
from validation.findings import GateReport
from validation.gate import Clock, Judged, Known, check_tables
from validation.profiling import profiled

CONF = small_conf(gate={"min_expected_rows": 4, "min_same_weekdays": 1})
BEFORE = date(2026, 5, 9)
USUAL = {"impressions": 4, "engagements": 40, "users": 400}  # rows a day that the history has; today there are 4, 4 and 3
HISTORY = History(rows={table: {BEFORE.isoformat(): {"(all)" if table == "users" else "feed": count}} for table, count in USUAL.items()})


@pytest.fixture(scope="module")
def faulty(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateReport]:
    """Four impressions; a fault in each other table."""
    shown: list[dict[str, Any]] = [{"impression_id": f"i{n}", "user_id": "u1"} for n in range(4)]
    engaged: list[dict[str, Any]] = [
        {"impression_id": "i0"},
        {"impression_id": "i1"},
        {"impression_id": "i2", "dwell_ms": -1},
        {"impression_id": "lost"},
    ]
    seen = rows(spark, impressions(CONF), shown)
    users = rows(spark, entity(CONF, "user"), [{"user_id": "u1"}, {"user_id": "u1"}, {"user_id": ""}])
    candidates = rows(spark, inventory(CONF), [{"inventory_id": "n1", "expected_impressions": float("nan")}])
    built = rows(spark, examples(CONF), [*shown, {"impression_id": "i4", "user_id": "stranger"}])
    judged = [
        Judged(impressions(CONF), seen, DAY, DAY),
        Judged(
            ENGAGEMENTS, rows(spark, ENGAGEMENTS, engaged, received_at=at("10:05")), DAY, DAY, {"impression_id": Known("impressions", seen)}
        ),
        Judged(entity(CONF, "user"), users, DAY, DAY),
        Judged(entity(CONF, "ad"), rows(spark, entity(CONF, "ad"), [{"ad_id": "a1"}]).drop("ad_age_days"), DAY, DAY),
        Judged(inventory(CONF), candidates, DAY, DAY),
        Judged(examples(CONF), built, DAY, DAY, {"user_id": Known("users", users)}),
    ]
    yield check_tables(judged, CONF, tmp_path_factory.mktemp("docs"), "a-run", Clock(DAY, BEFORE, BEFORE), HISTORY)


def test_every_failure_of_every_table_is_told_at_once(faulty: GateReport) -> None:
    failed = {(f.table, f.expectation, f.column, f.severity) for f in faulty.findings if not f.success}
    assert {one for one in failed if not one[1].startswith(("missing_", "label_"))} == {
        ("engagements", "dwell_not_negative", "dwell_ms", "critical"),
        ("engagements", "known_id", "impression_id", "warning"),
        ("engagements", "rows_usual", "feed", "critical"),  # a tenth of the usual
        ("users", "user_id_present", "user_id", "critical"),
        ("users", "key_unique", "user_id, valid_from", "critical"),
        ("users", "rows_usual", "(all)", "critical"),
        ("ads", "columns", "(all)", "critical"),
        ("inventory", "expected_impressions_finite", "expected_impressions", "critical"),
        ("examples", "known_id", "user_id", "warning"),
    }


def test_rows_are_named_by_their_keys_and_ids(faulty: GateReport) -> None:
    samples = {(f.table, f.expectation): f.sample for f in faulty.findings if not f.success}
    assert samples["engagements", "known_id"] == ("impression_id=lost, rows=1",)
    assert samples["examples", "known_id"] == ("user_id=stranger, rows=1",)
    assert samples["users", "key_unique"] == ("user_id=u1, valid_from=2026-05-10 00:00:00, rows=2",)
    assert "impression_id=i2" in samples["engagements", "dwell_not_negative"][0]


def test_a_table_with_a_wrong_schema_is_not_read_and_not_recorded(faulty: GateReport) -> None:
    assert [f.expectation for f in faulty.findings if f.table == "ads"] == ["columns", "types"]
    assert set(faulty.counts["rows"]) == {"impressions", "engagements", "users", "inventory", "examples"}


def test_what_later_nights_compare_with_is_recorded(faulty: GateReport) -> None:
    day = DAY.isoformat()
    assert faulty.counts["rows"]["impressions"] == {day: {"feed": 4}}
    assert set(faulty.counts["labels"][day]["feed"]) == {"click", "good_click", "scroll_up"}
    assert set(faulty.counts["profiles"][day]) == {"user_id", "country", "ad_age_days", "hour"} == set(faulty.counts["bins"])


def test_a_null_refers_to_nothing_and_a_repeated_key_is_counted_once(spark: SparkSession) -> None:
    held = spark.createDataFrame([("a",), ("a",), ("a",), ("b",)], "id string")
    needed = spark.createDataFrame([("a",), ("c",), ("c",), (None,)], "id string")
    counts = id_counts(held, ("id",), needed)
    assert (counts.repeated, counts.needed, counts.unknown) == (1, 3, 2)


def test_keys_that_differ_in_which_column_is_null_differ(spark: SparkSession) -> None:
    held = spark.createDataFrame([("a", None), (None, "a")], "x string, y string")
    assert id_counts(held, ("x", "y")).repeated == 0


def feature_rows() -> list[dict[str, Any]]:
    """Ages 0 to 9 and two hours; one row without an age, one with NaN."""
    ages = [*map(float, range(10)), None, float("nan")]
    return [{"impression_id": f"i{n}", "ad_age_days": age, "hour": "7" if n < 9 else "8"} for n, age in enumerate(ages)]


def test_features_are_counted_by_bin_or_hash_position_with_the_missing_apart(spark: SparkSession) -> None:
    frame = rows(spark, examples(CONF), feature_rows())
    age, hour, country = (next(f for f in CONF.template.features if f.column == name) for name in ("ad_age_days", "hour", "country"))
    found = histograms(frame, [age, hour, country], {"ad_age_days": {"cuts": [1.0, 5.0]}}, 1024, [DAY])[DAY.isoformat()]
    assert found["ad_age_days"] == (2, {0: 2, 1: 4, 2: 4})  # up to 1, up to 5, above
    assert found["hour"][0] == 0 and sorted(found["hour"][1].values()) == [3, 9]
    assert found["country"] == (12, {})
    assert learned_cuts(frame, [age])["ad_age_days"]["cuts"] == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_list_is_counted_by_its_first_value_and_a_text_by_its_first_token(spark: SparkSession) -> None:
    features = [
        Feature(column="tags", family="ad", type="hashed", buckets=9, length=2),
        Feature(column="title", family="ad", type="text", buckets=9, length=2),
    ]
    given = [(["a", "b"], "Buy now"), ([None, "a"], "  buy!"), (["a"], "Sell"), ([None, None, "a"], "?"), ([], None)]
    frame = spark.createDataFrame([(DAY, *row) for row in given], "day DATE, tags ARRAY<STRING>, title STRING")
    found = histograms(frame, features, {}, 1024, [DAY])[DAY.isoformat()]
    assert {name: (missing, sorted(counts.values())) for name, (missing, counts) in found.items()} == {
        "tags": (2, [3]),
        "title": (2, [1, 2]),
    }
    missing = [f"count_if({value_of(feature)} IS NULL)" for feature in features]  # as the gate asks it
    assert frame.selectExpr(*missing).collect() == [(2, 2)]


def test_days_that_an_earlier_gate_counted_are_not_counted_again_and_bins_are_carried_on(spark: SparkSession) -> None:
    other = {"day": BEFORE, "shown_at": at("10:00", BEFORE)}
    frame = rows(spark, examples(CONF), [*feature_rows(), *({**row, **other} for row in feature_rows())])
    first = profiled(frame, CONF, [BEFORE], History())
    assert set(first.profiles) == {BEFORE.isoformat()}
    history = History.of([{"bins": first.bins, "profiles": first.profiles}])
    second = profiled(frame, CONF, [BEFORE, DAY], history)
    assert set(second.profiles) == {DAY.isoformat()} and second.bins == first.bins
    assert second.profiles[DAY.isoformat()] == first.profiles[BEFORE.isoformat()]
    assert unpack(second.profiles[DAY.isoformat()]["hour"]["seen"], CONF.gate.seen_bits).sum() == 2
