"""Distribution shift, as pure functions against hand arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conf.gates import Gate
from conf.template import Feature
from validation.checks import Check
from validation.drift import Newest, counts_in, cuts, drift_checks, merged, pack, psi, top_positions, unpack, unseen_share, usual_shift

BITS = 1024
GATE = Gate(seen_bits=BITS)
AGE = Feature(column="age", family="user", type="continuous")
COLOUR = Feature(column="colour", family="ad", type="hashed", buckets=10)


def test_psi_is_that_of_the_formula() -> None:
    # (.9 - .5) ln(.9 / .5) + (.1 - .5) ln(.1 / .5) = .4 x .587787 + .4 x 1.609438
    assert psi([50, 50], [90, 10]) == pytest.approx(0.878890, abs=1e-6)


def test_psi_of_proportional_histograms_is_0_and_its_sides_may_be_swapped() -> None:
    assert psi([10, 30, 60], [1, 3, 6]) == pytest.approx(0)
    assert psi([10, 30, 60], [60, 30, 10]) == pytest.approx(psi([60, 30, 10], [10, 30, 60]))


def test_an_empty_bin_stands_for_a_share_of_one_in_ten_thousand() -> None:
    # (.5 - 1) ln(.5 / 1) + (.5 - .0001) ln(.5 / .0001) = .346574 + .4999 x 8.517193
    assert psi([100, 0], [50, 50]) == pytest.approx(4.604318, abs=1e-5)


def test_psi_refuses_other_bins_and_histograms_without_rows() -> None:
    with pytest.raises(ValueError, match="histograms of 2 and 3 bins"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="rows on both sides"):
        psi([0, 0], [1, 2])


def test_the_usual_shift_is_the_largest_of_a_day_against_the_others() -> None:
    days = [[50, 50], [50, 50], [90, 10]]
    assert merged(days[:2]) == [100, 100]
    assert usual_shift(days) == pytest.approx(psi([100, 100], [90, 10]))


def test_quantiles_that_are_equal_make_one_edge() -> None:
    assert cuts([0.0, 0.0, 1.5, None, float("inf"), 1.5, 2.0]) == [0.0, 1.5, 2.0]


def test_rows_are_counted_by_bin_with_the_missing_first_and_other_values_second() -> None:
    assert counts_in({"cuts": [1.0, 2.0]}, 5, {0: 1, 2: 3}) == [5, 1, 0, 3]
    assert counts_in({"top": [9, 4]}, 5, {4: 2, 7: 1, 8: 1}) == [5, 2, 0, 2]
    assert top_positions({3: 1, 9: 5, 2: 1, 1: 7}) == [1, 2, 3, 9]


def test_a_bitmap_comes_back_as_it_was_packed() -> None:
    assert list(np.flatnonzero(unpack(pack([0, 5, 1023], BITS), BITS))) == [0, 5, 1023]


def test_the_unseen_share_allows_for_new_values_that_fall_on_taken_positions() -> None:
    seen = np.zeros(100, dtype=bool)
    seen[:20] = True  # a fifth is taken, so only four fifths of the new values show
    assert unseen_share({0: 60, 50: 40}, 0, seen) == pytest.approx(0.4 / 0.8)
    assert unseen_share({0: 60, 50: 40}, 100, seen) == pytest.approx(0.2 / 0.8)  # missing values are rows too
    assert unseen_share({0: 60}, 0, seen) == 0
    assert unseen_share({}, 0, seen) is None
    assert unseen_share({0: 60}, 0, np.ones(100, dtype=bool)) is None


def profile(counts: list[int], seen: list[int] | None = None) -> dict[str, Any]:
    return {"counts": counts} | ({"seen": pack(seen, BITS)} if seen is not None else {})


def judged(
    feature: Feature, bins: dict[str, Any], counts: dict[int, int], *reference: dict[str, Any], gate: Gate = GATE
) -> dict[str, Check]:
    """The checks of a day's counts against reference days 1, 2, ..., by name."""
    newest = Newest("2026-05-15", {feature.column: 0}, {feature.column: counts})
    days = {f"2026-05-{number:02d}": {feature.column: one} for number, one in enumerate(reference, 1)}
    return {check.name: check for check in drift_checks([feature], newest, days, {feature.column: bins}, gate)}


def test_a_shift_beyond_max_psi_warns_and_names_both_numbers() -> None:
    bins, usual = {"cuts": [30.0]}, profile([0, 500, 500])
    check = judged(AGE, bins, {0: 900, 1: 100}, usual, usual)["psi"]
    assert check.wrong and check.severity == "warning"
    found = check.finding("examples", False)
    assert found.observed == "PSI 0.879 against 2026-05-01 to 2026-05-02 on 2026-05-15"
    assert (found.column, found.knob) == ("age", "gate.max_psi is 0.25")
    assert not judged(AGE, bins, {0: 600, 1: 400}, usual, usual)["psi"].wrong  # .04


def test_a_shift_no_larger_than_between_the_days_trained_on_does_not_warn() -> None:
    weekend, week = profile([0, 900, 100]), profile([0, 500, 500])
    assert not judged(AGE, {"cuts": [30.0]}, {0: 850, 1: 150}, weekend, week)["psi"].wrong


def test_shift_is_not_judged_on_few_rows_or_against_a_single_day() -> None:
    bins, usual = {"cuts": [30.0]}, profile([0, 500, 500])
    few = judged(AGE, bins, {0: 999}, usual, usual)["psi"]
    assert few.numbers == {} and few.nothing == "999 rows against 2,000: too few to judge"
    assert judged(AGE, bins, {0: 1_000}, usual)["psi"].nothing == "no history yet"


def test_values_that_training_never_met_warn_beyond_max_unseen_share() -> None:
    bins, usual = {"top": [1, 2], "bits": BITS}, profile([0, 0, 500, 500], [1, 2])
    cases = {299: False, 301: True}  # rows of 1,000 with a new value; two taken positions of 1,024 hide next to nothing
    assert {new: bool(judged(COLOUR, bins, {1: 1_000 - new, 7: new}, usual, usual)["unseen"].wrong) for new in cases} == cases
    assert "unseen" not in judged(AGE, {"cuts": [30.0]}, {0: 1_000}, profile([0, 500, 500]), profile([0, 500, 500]))


def test_a_column_with_another_single_value_each_day_is_a_calendars_and_new_by_nature() -> None:
    bins = {"top": [1, 2], "bits": BITS}
    friday, saturday = profile([0, 0, 1_000, 0], [1]), profile([0, 0, 0, 1_000], [2])
    checks = judged(COLOUR, bins, {7: 1_000}, friday, saturday)
    assert not checks["psi"].wrong and checks["unseen"].numbers == {} and "calendar" in checks["unseen"].nothing
    constant = judged(COLOUR, bins, {7: 1_000}, friday, friday)  # one that was always the same and changes is no calendar
    assert constant["unseen"].wrong and constant["psi"].wrong
