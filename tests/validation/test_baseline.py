"""Baselines by weekday, on plain dicts: what is usual, what is far from it, and what is not judged."""

from __future__ import annotations

from datetime import date, timedelta

from conf.gates import Gate
from validation.baseline import History, Usual, count_checks, label_checks, usual
from validation.checks import Check

FRIDAY = "2026-05-15"
GATE = Gate()


def days_before(day: str, number: int) -> list[str]:
    return [(date.fromisoformat(day) - timedelta(days=n)).isoformat() for n in range(number, 0, -1)]


def counted(
    history: dict[str, int], rows: int, source: str = "feed", gate: Gate = GATE, optional: tuple[str, ...] = ()
) -> dict[str, Check]:
    """The checks of FRIDAY's rows, by name."""
    past = {day: {source: count} for day, count in history.items()}
    return {check.name: check for check in count_checks(past, {FRIDAY: {source: rows} if rows else {}}, gate, optional)}


def verdict(checks: dict[str, Check]) -> str:
    wrong = [check.severity for check in checks.values() if check.wrong]
    assert len(wrong) < 2, "one number is told once"
    return wrong[0] if wrong else "holds"


def test_with_enough_earlier_same_weekdays_only_they_count() -> None:
    fridays = {"2026-04-24": 10.0, "2026-05-01": 30.0, "2026-05-08": 20.0}
    others = {"2026-05-13": 900.0, "2026-05-14": 900.0}
    assert usual(fridays | others, FRIDAY, 3) == Usual(20.0, "median of 3 earlier Fridays")


def test_with_fewer_of_them_all_earlier_days_count_and_without_any_there_is_no_history() -> None:
    history = {"2026-05-08": 10.0, "2026-05-13": 30.0, "2026-05-14": 50.0}
    assert usual(history, FRIDAY, 3) == Usual(30.0, "median of 3 earlier days")
    assert usual({}, FRIDAY, 3) is None


def test_a_day_and_later_ones_are_never_its_own_measure() -> None:
    assert usual({FRIDAY: 5.0, "2026-05-16": 5.0}, FRIDAY, 1) is None


def test_rows_far_from_the_usual_stop_the_night_and_half_far_warns() -> None:
    cases = [  # rows where 1,000 are usual, verdict
        (1_000, "holds"), (500, "holds"), (2_000, "holds"),
        (499, "warning"), (2_001, "warning"), (200, "warning"), (5_000, "warning"),
        (199, "critical"), (100, "critical"), (10_000, "critical"), (0, "critical"),
    ]  # fmt: skip
    history = dict.fromkeys(days_before(FRIDAY, 7), 1_000)
    assert [(rows, verdict(counted(history, rows))) for rows, _ in cases] == cases


def test_the_finding_says_what_came_what_is_usual_and_which_knob() -> None:
    found = counted(dict.fromkeys(days_before(FRIDAY, 4), 1_000), 100)["rows_usual"].finding("impressions", False)
    assert found.observed == "100 rows, 0.1 times the 1,000 that are usual (median of 4 earlier days) on 2026-05-15"
    assert (found.needed, found.knob) == ("0.2 to 5 times the usual", "gate.max_count_ratio is 5")
    assert (found.table, found.column, found.severity) == ("impressions", "feed", "critical")


def test_small_counts_and_first_nights_are_not_judged_and_say_so() -> None:
    assert counted({}, 7)["rows_usual"].finding("users", True).observed == "no history yet"
    few = counted(dict.fromkeys(days_before(FRIDAY, 4), 99), 1)
    assert verdict(few) == "holds"
    assert "fewer than 100 rows a day are usual" in few["rows_usual"].finding("users", True).observed


def test_a_source_that_is_gone_is_0_rows_and_a_new_one_has_no_history() -> None:
    past = {day: {"old": 1_000} for day in days_before(FRIDAY, 3)}
    checks = count_checks(past, {FRIDAY: {"new": 500}}, GATE)
    assert [(check.column, check.numbers) for check in checks if check.name == "rows_usual"] == [("new", {}), ("old", {FRIDAY: 0.0})]


def test_a_source_that_only_optional_blocks_feed_never_stops_the_night() -> None:
    assert verdict(counted(dict.fromkeys(days_before(FRIDAY, 3), 1_000), 0, optional=("feed",))) == "warning"


def test_what_a_later_night_counted_of_a_day_replaces_what_an_earlier_one_did() -> None:
    first, second = {"rows": {"users": {FRIDAY: {"a": 1}}}}, {"rows": {"users": {FRIDAY: {"a": 2}}}}
    assert History.of([first, second]).rows["users"][FRIDAY] == {"a": 2}


def test_profiles_counted_in_other_bins_are_forgotten() -> None:
    records = [
        {"bins": {"age": {"cuts": [1]}, "ad": {"top": [3]}}, "profiles": {"2026-05-01": {"age": {"counts": [1]}, "ad": {"counts": [2]}}}},
        {"bins": {"age": {"cuts": [2]}}, "profiles": {"2026-05-02": {"age": {"counts": [5]}}}},
    ]
    assert History.of(records).profiles == {"2026-05-01": {"ad": {"counts": [2]}}, "2026-05-02": {"age": {"counts": [5]}}}


def rate(history: dict[str, list[int]], today: list[int]) -> Check:
    past = {day: {"feed": {"click": cell}} for day, cell in history.items()}
    (check,) = label_checks(past, {FRIDAY: {"feed": {"click": today}}}, GATE)
    return check


def test_a_rate_of_positives_twice_or_half_the_usual_warns_where_enough_are_expected() -> None:
    history = {day: [200, 10_000] for day in days_before(FRIDAY, 3)}  # 2% is usual
    cases = [  # positives, known labels, is it right?
        (200, 10_000, True), (400, 10_000, True), (401, 10_000, False), (99, 10_000, False), (0, 10_000, False),
        (50, 4_999, True),  # 99.98 are expected: too few to judge
        (0, 0, True),  # nothing known
    ]  # fmt: skip
    assert [(*cell, not rate(history, list(cell)).wrong) for *cell, _ in cases] == cases
    assert rate(history, [0, 10_000]).severity == "warning"
    assert rate({}, [0, 10_000]).finding("examples", True).observed == "no history yet"
