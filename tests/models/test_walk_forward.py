"""A walk forward over made-up days: what is fitted on what, and what an error is. All rows are simulated."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.calibration import Segments
from models.methods import CHOSEN, NOISE, ORACLE, RAW, Method, fitted, methods
from models.metrics import sigmoid
from models.traffic import traffic_of, values_of
from models.walk_forward import Chooser, Window, walk
from tests.models.walks import on, traffic

SHIFTED = [0.8] * 8
TRIED = methods(pooling=10, featured=True)


def windows(first: int, last: int, trained_to: int | None = None) -> list[Window]:
    """A day each; `trained_to` for all, or each two days before."""
    return [Window((on(day), on(day)), None, on(trained_to or day - 2)) for day in range(first, last + 1)]


def walked(frame: pd.DataFrame, over: list[Window], tried: list[Method] | None = None) -> pd.DataFrame:
    values = values_of([frame], ["country"])
    of_window = [traffic_of(frame, values)] * len(over)
    return pd.DataFrame(walk(over, of_window, tried or TRIED, Segments(values, ridge=20)))


def mean(rows: pd.DataFrame, method: str, column: str = "error_true") -> float:
    return float(rows[rows["method"] == method][column].mean())


def test_a_level_that_moved_is_mended_by_every_method_and_not_by_the_raw_model():
    rows = walked(traffic(SHIFTED), windows(4, 8, trained_to=2))
    assert mean(rows, RAW) == pytest.approx(1 - sigmoid(np.array(-2)) / sigmoid(np.array(-1.2)), abs=0.15)
    for method in (one.name for one in TRIED if one.name != RAW):
        assert mean(rows, method) < 0.08, method
    assert mean(rows, NOISE) == 0
    assert mean(rows, ORACLE) < 0.01
    assert mean(rows, NOISE, "error_observed") == pytest.approx(np.sqrt(2 / np.pi / rows["positives"].mean()), abs=0.03)


def test_a_country_that_moved_is_mended_by_the_featured_methods_alone():
    rows = walked(traffic([0.0] * 5, rows=20_000, us=0.8), windows(4, 5, trained_to=2))
    assert mean(rows, "featured", "segments_true") < 0.3 * mean(rows, "platt", "segments_true")


def test_no_fit_sees_the_day_it_is_judged_on_or_the_days_the_model_was_trained_on():
    """Days 1 and 2 (trained on) and 4 (judged) are wild; day 3 is calibrated. What is fitted says that nothing is to do."""
    wild = walked(traffic([3.0, 3.0, 0.0, -3.0], rows=20_000), windows(4, 4))
    predicted = wild.set_index("method")["predicted"]
    for one in TRIED:
        assert predicted[one.name] == pytest.approx(predicted[RAW], rel=0.06), one.name


def test_how_far_a_fit_looks_back_is_its_methods():
    window = Window((on(20), on(26)), None, on(5))
    assert (window.days, window.fit_to) == (7, on(19))
    assert (window.fit_from(1), window.fit_from(2), window.fit_from(9)) == (on(13), on(6), on(6))


def test_older_days_count_half_after_each_half_life():
    """Day 3 says +1 and day 4 nothing: with a half-life of a day, day 3 has a third of the weight."""
    frame = traffic([0.0, 0.0, 1.0, 0.0], rows=50_000)
    bins = {"feed": traffic_of(frame, {})["click"]["feed"].between(on(3).toordinal(), on(4).toordinal())}
    flat = Method("flat", "platt", windows=2)
    levels = []
    for method in (flat, Method("decayed", "platt", windows=2, half_life=1)):
        z = fitted(method, {"click": bins}, Segments({}, 0), window_days=1)["click"]["feed"](bins["feed"])
        p = sigmoid(z)[bins["feed"].day == on(4).toordinal()].mean()
        levels.append(p)
    one, other = (bins["feed"].positives[bins["feed"].day == day.toordinal()].mean() for day in (on(3), on(4)))
    assert levels == pytest.approx([(one + other) / 2, (one + 2 * other) / 3], abs=0.004)


def test_scored_days_are_judged_with_the_calibrator_of_the_measured_day():
    over = [Window((on(4), on(4)), (on(7), on(7)), on(2))]
    rows = walked(traffic([0.8] * 6 + [-0.8], rows=20_000), over, [Method(RAW, "raw"), Method("platt", "platt")])
    error = rows.set_index(["kind", "method"])["error_true"]
    assert error["measured", "platt"] < 0.05
    assert error["scored", "platt"] > 1.0
    assert error["scored", RAW] == pytest.approx(np.exp(0.8) - 1, abs=0.35)


def test_a_row_tells_its_sums_and_errors():
    frame = pd.DataFrame(
        {
            "head": "click",
            "day": [on(3), on(3), on(4), on(4)],
            "tower": "feed",
            "z_sum": [0.0, 0.0, 0.0, 0.0],
            "rows": [10, 10, 10, 10],
            "positives": [2, 4, 2, 4],
            "expected": [2.5, 2.5, 2.5, 2.5],
            "country": ["DE", None, "DE", None],
        }
    )
    rows = walked(frame, windows(4, 4), [Method(RAW, "raw")]).set_index("method")
    raw: dict[str, Any] = rows.loc[RAW].to_dict()
    assert (raw["rows"], raw["positives"], raw["fit_positives"], raw["expected"], raw["predicted"]) == (20, 6, 6, 5.0, 10.0)
    assert (raw["error_observed"], raw["error_true"]) == pytest.approx((10 / 6 - 1, 1.0))
    assert (raw["segments_observed"], raw["segments_true"]) == pytest.approx(((3 + 1) / 6, (2.5 + 2.5) / 5))
    assert raw["log_loss"] == pytest.approx(np.log(2))
    assert rows.loc[NOISE, "segments_observed"] == pytest.approx((0.5 + 1.5) / 6)


def test_without_truth_there_is_neither_oracle_nor_noise_floor():
    rows = walked(traffic(SHIFTED[:5]).drop(columns="expected"), windows(4, 5))
    assert {ORACLE, NOISE} & set(rows["method"]) == set()
    assert rows["error_true"].isna().all() and rows["error_observed"].notna().all()


def test_chosen_begins_with_the_raw_model_and_goes_on_with_what_did_best_on_earlier_days():
    rows = walked(traffic(SHIFTED), windows(4, 8, trained_to=2))
    chose = rows[rows["method"] == CHOSEN].sort_values("day")["chose"].tolist()
    assert chose[0] == RAW and RAW not in chose[1:]


def test_where_nothing_moved_the_raw_model_stays_chosen():
    rows = walked(traffic([0.0] * 8, rows=2_000), windows(4, 8, trained_to=2))
    assert set(rows[rows["method"] == CHOSEN]["chose"]) == {RAW}


def test_a_choice_changes_by_a_paired_interval_that_excludes_0():
    """1,000 rows whose loss is lower by .01 each under the second method, with a spread of .1 or 1: 3 or .3 standard errors."""
    for spread, chosen in ((0.1, 1), (1.0, 0)):
        chooser = Chooser(2)
        difference = 0.01 + spread * np.repeat([1.0, -1.0], 500)
        chooser.loss = np.array([difference.sum(), 0.0])
        chooser.products = np.array([[(difference**2).sum(), 0.0], [0.0, 0.0]])
        chooser.rows = 1000
        assert chooser.choose() == chosen


def test_days_and_codes_of_traffic_come_from_its_frame():
    frame = traffic([0.0, 0.0], rows=50)
    frame.loc[0, "country"] = None
    bins = traffic_of(frame, {"country": ["DE", "US"]})["click"]["feed"]
    assert [date.fromordinal(day) for day in np.unique(bins.day)] == [on(1), on(2)]
    assert bins.codes["country"].tolist() == [-1, *(["DE", "US"].index(value) for value in frame["country"][1:])]
    assert bins.segment.tolist() == (bins.codes["country"] + 1).tolist()
