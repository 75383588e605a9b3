"""What the report draws: shares worked by hand, marks where they belong, and queries that quote what comes from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.validation.night import DAY, segment
from validation.charts import Axis, Line, lines_svg
from validation.drift import Shift, psi, shift_of
from validation.figures import distribution, gain_curve, gains, heat, held, nights, shifted, slowest
from validation.queries import Asked, queries


def bin_of(predicted: float, rows: int, observed: float, tower: str = "feed", stage: str = "calibrated") -> dict[str, Any]:
    return {"head": "click", "tower": tower, "stage": stage, "rows": rows, "predicted": predicted, "observed": observed}


def test_gain_is_the_share_of_positives_from_the_highest_predictions_down() -> None:
    # 100 rows at 40% (40 positives), then 300 at 10% (30): the best quarter of rows holds 40 of 70 positives.
    points = gain_curve([bin_of(0.1, 300, 0.1), bin_of(0.4, 100, 0.4)])
    assert points == [(0.0, 0.0), (0.25, pytest.approx(40 / 70)), (1.0, pytest.approx(1.0))]
    # A fifth lies in the best quarter, on the straight line to it; 62.5% is half-way through the rest.
    assert held(points, 0.2) == pytest.approx(0.8 * 40 / 70) and held(points, 0.625) == pytest.approx(55 / 70)
    assert gain_curve([bin_of(0.1, 300, 0.0)]) == []


def test_lift_is_told_of_each_tower_and_of_all_together_by_calibrated_bins_alone() -> None:
    bins = [bin_of(0.4, 100, 0.4, "a"), bin_of(0.1, 100, 0.1, "a"), bin_of(0.2, 200, 0.2, "b"), bin_of(0.9, 100, 0.9, "a", "raw")]
    (found,) = gains(bins)
    lines = {line["tower"]: (line["top"], round(line["lift"], 9)) for line in found["lines"]}
    # Of all 400 rows with 90 positives the best quarter has 40; of tower a's 200 with 50 the best half.
    assert lines == {"(all)": (0.25, round(40 / 90 / 0.25, 9)), "a": (0.5, 1.6), "b": (1.0, 1.0)}


def test_a_segment_is_outlined_where_it_is_off_beyond_chance_and_a_dot_where_chance_tells_all() -> None:
    rows = [segment("US", 300, 420.0), segment("BR", 250, 255.0), segment("AT", 0, 2.0)]
    rows += [{**segment("JP", 5, 6.0), "ratio_low": 0.3, "ratio_high": 4.0}]
    svg = str(heat(rows)[0]["svg"])
    assert (svg.count('class="high off"'), svg.count('class="few"'), svg.count('class="high"')) == (1, 2, 1)
    assert "1 of them off beyond chance" in svg


def test_values_of_a_segment_stand_by_size_where_they_are_numbers() -> None:
    lines = heat([segment(hour, 10, 10.0) | {"by": "hour"} for hour in ("10", "9", "(missing)")])[0]["lines"]
    assert [value for _, value in lines] == ["9", "10", "(missing)"]


def test_the_slowest_stage_stands_first_beside_what_is_usual() -> None:
    found = slowest(
        [{"stage": "gate", "seconds": 1.0}, {"stage": "train", "seconds": 3.0}], [{"stage": "gate", "times": 4, "seconds": 2.0}]
    )
    assert [(line["stage"], line["share"], line["usual"]) for line in found] == [("train", 0.75, None), ("gate", 0.25, 2.0)]


def test_a_single_night_is_a_dot_and_a_night_without_a_metric_leaves_a_gap() -> None:
    row = {"day": DAY, "head": "click", "model": "m", "rows": 10, "positives": 1, "ratio": 1.1, "ne": 0.9, "auc": None}
    pictures = dict(nights([row])[0]["pictures"])
    assert list(pictures) == ["normalised entropy", "predicted / observed"] and str(pictures["normalised entropy"]).count("<circle") == 1


def test_a_distribution_has_a_line_a_source_of_its_share_of_rows() -> None:
    rows = [{"source": source, "head": "click", "bin": place, "rows": 5} for source in ("a", "b") for place in (-8, -7)]
    (found,) = distribution(rows)
    assert list(found["keys"]) == ["a", "b"] and "50%" in found["svg"] and ">1%<" in found["svg"]


def test_the_newest_day_is_held_against_the_reference_and_that_against_itself() -> None:
    days = {"2026-05-01": [50, 50], "2026-05-02": [60, 40], "2026-05-03": [10, 90], "2026-05-04": [20, 80]}
    found = shift_of("device", days, "2026-05-01", "2026-05-02")
    usual = psi([50, 50], [60, 40])  # either way round: two days are each other's rest
    assert found is not None and (found.day, found.days, found.rows) == ("2026-05-04", 2, 100)
    assert found.psi == pytest.approx(psi([110, 90], [20, 80])) and found.usual == pytest.approx(usual)
    every = shift_of("device", days, "2026-06-01", "2026-06-02")  # no day of the reference was counted: all earlier ones
    assert every is not None and every.days == 3
    assert shift_of("device", {"2026-05-01": [1, 1]}, "", "") is None


def test_a_shift_is_marked_beyond_the_limit_and_beyond_what_is_usual_given_enough_rows() -> None:
    cases = [  # psi, usual, rows, marked; the limit is .25
        (0.30, 0.05, 5_000, True),
        (0.30, 0.40, 5_000, False),  # the weekday
        (0.20, None, 5_000, False),
        (0.30, None, 500, False),  # too few rows to judge
    ]
    for value, usual, rows, marked in cases:
        (line,) = shifted([Shift("x", "2026-05-16", value, usual, 3, rows)], 0.25, 1_000)
        assert line["off"] is marked, (value, usual, rows)


def test_a_line_stays_inside_its_picture_and_names_are_escaped() -> None:
    svg = str(lines_svg("<b>", "a & b", [Line([(0, 0), (9, 9)], "c0")], Axis(0, 1), Axis(0, 1), size=(100, 100)))
    assert 'points="38.0,78.0 92.0,8.0"' in svg and "<title>&lt;b&gt;</title><desc>a &amp; b</desc>" in svg


def test_a_query_quotes_what_comes_from_outside() -> None:
    asked = queries(Asked("odd`path", "run'1", DAY, DAY, "m", ("click",)))
    assert f"delta.`{Path.cwd()}/odd``path/tables/runs`" in asked["stages"] and r"run_id = 'run\'1'" in asked["stages"]
