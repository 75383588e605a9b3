"""Platt scaling with weights for values of features. All rows are simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from etl.calibration_stats import WIDTHS
from models.calibration import Calibrator, Cell, Segments
from models.calibration_fit import fit_calibrator
from models.errors import ColumnsWrong
from models.metrics import sigmoid
from models.platt import LEAST_SLOPE, fit_featured, fit_platt, scatter_of_values, variance_of_values


@dataclass
class Row:
    """A bin as Spark collects it."""

    tower: str
    z_sum: float
    rows: float
    positives: float
    country__code: int
    device__code: int = -1
    head: str = "click"


def drawn(levels: list[float], count: int = 20_000, slope: float = 0.8, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds, codes and labels whose truth is logit(q) = slope * z + the level of the code."""
    draw = np.random.default_rng(seed)
    z, code = draw.normal(-2, 1, count), draw.integers(0, len(levels), count)
    return z, code, (draw.random(count) < sigmoid(slope * z + np.array(levels)[code])).astype(float)


def calibrated(z: np.ndarray, places: np.ndarray, fitted: tuple[float, float, np.ndarray]) -> np.ndarray:
    b0, b1, w = fitted
    return z * (1 + b1) + b0 + np.append(w, 0.0)[places].sum(axis=1)


@pytest.mark.parametrize("without", [0, 1], ids=["every row has a value", "the last level is that of rows without one"])
def test_without_a_ridge_it_is_scikit_learns_logistic_regression_on_z_and_one_hots(without: int):
    levels = [0.0, 0.7, -0.4, 0.2]
    z, code, y = drawn(levels)
    places, weights = code[:, None], len(levels) - without
    fitted = fit_featured(z, y, np.ones(len(z)), places, weights, ridge=0)
    # With a column for each level and a constant the reference would have one too many.
    columns = np.column_stack([z, np.eye(len(levels))[code][:, :-1]])
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(columns, y)
    assert np.abs(calibrated(z, places, fitted) - reference.decision_function(columns)).max() < 1e-6


def test_an_endless_ridge_leaves_two_parameter_platt():
    z, code, y = drawn([0.0, 0.7, -0.4])
    b0, b1, w = fit_featured(z, y, np.ones(len(z)), code[:, None], 3, ridge=1e12)
    assert (b0, b1) == pytest.approx(fit_platt(z, y, np.ones(len(z))), abs=1e-8)
    assert np.abs(w).max() < 1e-8


def test_a_value_with_as_many_positives_as_the_ridge_goes_about_half_the_way():
    """A million rows of rate 1%, so that b0 is theirs, and 2,000 of one value: 20 positives expected, 30 seen.

    Of its own the value would have a weight of log(30 / 19.7), for its odds are 30 : 1,970 and not 1 : 99; where the loss is least,
    rows x p - positives + ridge x w = 0.
    """
    rows, positives = np.array([1e6, 2000.0]), np.array([1e4, 30.0])
    b0, b1, w = fit_featured(np.zeros(2), positives, rows, np.array([[1], [0]]), 1, ridge=20)
    assert b1 == 0 and sigmoid(np.array(b0)) == pytest.approx(0.01, rel=0.002)
    assert 2000 * sigmoid(b0 + w[0]) - 30 + 20 * w[0] == pytest.approx(0, abs=1e-6)
    assert 0.5 < w[0] / (np.log(30 / 1970) - np.log(1 / 99)) < 0.65


def test_a_fit_makes_the_sum_of_probabilities_that_of_the_positives():
    z, code, y = drawn([0.0, 0.7, -0.4])
    places = code[:, None]
    q = sigmoid(calibrated(z, places, fit_featured(z, y, np.ones(len(z)), places, 3, ridge=50)))
    assert q.sum() == pytest.approx(y.sum(), rel=1e-9)


def test_rows_with_equal_values_keep_their_order_whatever_the_labels_say():
    z, code, y = drawn([0.0, 0.7], slope=-1.0)
    b0, b1, w = fit_featured(z, y, np.ones(len(z)), code[:, None], 2, ridge=20)
    assert 1 + b1 == pytest.approx(LEAST_SLOPE)
    for value in (0, 1, 2):  # 2: no weight
        ordered = calibrated(np.linspace(-5, 5, 50), np.full((50, 1), value), (b0, b1, w))
        assert (np.diff(ordered) > 0).all()
    # The best of the fits with that slope: neither the level nor a weight would move.
    q = sigmoid(calibrated(z, code[:, None], (b0, b1, w)))
    assert (q - y).sum() == pytest.approx(0, abs=1e-5)
    assert [(q - y)[code == value].sum() + 20 * w[value] for value in (0, 1)] == pytest.approx([0, 0], abs=1e-5)


def test_a_country_whose_odds_fell_in_one_tower_is_mended_there_and_not_by_two_parameters():
    """200,000 simulated rows a tower; the model is right but for BR (a tenth of the rows) in video, where its sum is 1.5 times the truth."""
    draw = np.random.default_rng(3)
    fell, country, towers = 0.5155, ["US", "BR"], ["feed", "video"]
    bins, rows_of = [], {}
    for tower in towers:
        z, brazil = draw.normal(-2, 1, 200_000), (draw.random(200_000) < 0.1).astype(int)
        truth = sigmoid(z - fell * brazil * (tower == "video"))
        rows_of[tower] = z, brazil, truth
        labels = (draw.random(200_000) < truth).astype(float)
        bins += [Row(tower, *row) for row in zip(z, np.ones(len(z)), labels, brazil, strict=True)]

    def ratio(calibrator: Calibrator, tower: str) -> float:
        """Predicted over true positives of BR."""
        z, brazil, truth = rows_of[tower]
        of = brazil == 1
        code = np.full(of.sum(), calibrator.values["country"].index("BR") if calibrator.values else -1)
        place = np.full(of.sum(), towers.index(tower))
        q = sigmoid(calibrator.calibrated_log_odds(z[of][:, None], place, towers, {"country": code}))
        return float(q.sum() / truth[of].sum())

    untouched = Calibrator(("click",), {"click": {}})
    featured = fit_calibrator(bins, ["click"], towers, 200, Segments({"country": country}, ridge=20))
    two = fit_calibrator(bins, ["click"], towers, 200)
    assert ratio(untouched, "video") == pytest.approx(1.5, abs=0.01)
    assert ratio(two, "video") > 1.3
    assert abs(ratio(featured, "video") - 1) < 0.05
    assert abs(ratio(featured, "feed") - 1) < 0.05  # the other tower's BR was right


def test_the_widest_bins_of_log_odds_move_calibrated_log_odds_by_less_than_a_hundredth():
    """A group's log-odds are taken as their mean. Rows of 12 countries x 4 devices, fitted one by one and in groups of each width."""
    draw = np.random.default_rng(5)
    count = 60_000
    z, country, device = draw.normal(-2.5, 1.2, count), draw.integers(0, 12, count), draw.integers(0, 4, count)
    levels = draw.normal(0, 0.3, 16)
    y = (draw.random(count) < sigmoid(0.2 + 0.8 * z + levels[country] + levels[12 + device])).astype(float)
    places = np.column_stack([country, 12 + device])
    wanted = calibrated(z, places, fit_featured(z, y, np.ones(count), places, 16, ridge=20))
    furthest = {}
    for width in WIDTHS:
        keys, of = np.unique(np.column_stack([country, device, np.floor(z / width)]), axis=0, return_inverse=True)
        z_sum, rows, positives = (np.bincount(of.ravel(), values) for values in (z, np.ones(count), y))
        group_places = keys[:, :2].astype(int) + np.array([0, 12])
        fitted = fit_featured(z_sum / rows, positives, rows, group_places, 16, ridge=20)
        furthest[width] = float(np.abs(calibrated(z, places, fitted) - wanted).max())
    assert max(furthest.values()) < 0.01, furthest
    assert furthest[WIDTHS[0]] < 0.0005, furthest


def test_a_value_that_no_fit_row_has_and_a_missing_one_have_no_weight():
    segments = Segments({"country": ["US", "BR", "AU"], "device": ["tv"]}, ridge=1)
    bins = [Row("feed", -2.0, 10, 4, 0), Row("feed", -20.0, 10, 1, 1), Row("feed", 0.0, 10, 5, -1, 0)]
    cell = fit_calibrator(bins, ["click"], ["feed"], 5, segments).cells["click"]["feed"]
    assert cell.method == "featured" and sorted(cell.w) == ["country=BR", "country=US", "device=tv"]
    calibrator = Calibrator(("click",), {"click": {"feed": cell}})
    assert calibrator.values == {"country": ("BR", "US"), "device": ("tv",)}
    z, none = np.full((3, 1), -1.5), np.full(3, -1)
    found = calibrator.calibrated_log_odds(z, np.zeros(3, int), ["feed"], {"country": np.array([-1, 0, 1]), "device": none})
    plain = -1.5 * (1 + cell.b1) + cell.b0
    assert found[:, 0].tolist() == pytest.approx([plain, plain + cell.w["country=BR"], plain + cell.w["country=US"]])
    unknown = calibrator.calibrated_log_odds(z, none, ["feed"], {"country": np.array([0, 1, 1]), "device": none})
    assert np.array_equal(unknown, z)  # a tower without a cell


def test_too_few_positives_leave_the_identity_and_weights_travel_as_json():
    segments = Segments({"country": ["US"]}, ridge=1)
    bins = [Row("feed", -2.0, 10, 4, 0), Row("feed", -20.0, 10, 1, -1), Row("video", -2.0, 10, 4, 0)]
    calibrator = fit_calibrator(bins, ["click"], ["feed", "video"], 5, segments)
    assert calibrator.cells["click"]["video"] == Cell(
        "identity", positives=4, rows=10, reason="4 positives, fewer than calibration.min_positives 5"
    )
    assert Calibrator.from_json(calibrator.to_json()) == calibrator


def test_a_value_may_hold_an_equals_sign():
    assert Calibrator(("click",), {"click": {"feed": Cell("featured", w={"format=a=b": 0.5})}}).values == {"format": ("a=b",)}


def test_rows_whose_values_are_not_told_are_refused():
    calibrator = Calibrator(("click",), {"click": {"feed": Cell("featured", w={"country=US": 0.5})}})
    with pytest.raises(ColumnsWrong, match="weights for values of country"):
        calibrator.calibrated_log_odds(np.zeros((1, 1)), np.zeros(1, int), ["feed"])


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 0.0), (0.3, 0.09)])
def test_the_spread_of_values_is_told_from_chance(spread: float, expected: float):
    """200 values with some 40 positives each: chance alone would make their levels differ by .16."""
    draw = np.random.default_rng(4)
    code = draw.integers(0, 200, 100_000)
    z = draw.normal(-2.5, 0.5, len(code))
    y = (draw.random(len(code)) < sigmoid(z + draw.normal(0, spread, 200)[code])).astype(float)
    assert variance_of_values(scatter_of_values(z, y, np.ones(len(z)), code, 200)) == pytest.approx(expected, abs=0.02)
    assert variance_of_values(scatter_of_values(z, y, np.ones(len(z)), np.full(len(z), 200), 200)) == 0


def test_an_own_ridge_is_endless_where_values_are_alike_and_lets_those_be_that_differ():
    found = {}
    for name, levels in (("alike", [0.0] * 8), ("apart", [0.8, -0.8] * 4)):
        z, code, y = drawn(levels, count=40_000, slope=1.0)
        values = [f"v{place}" for place in range(8)]
        rows = [Row("feed", z_n, 1, y_n, code_n) for z_n, y_n, code_n in zip(z, y, code, strict=True)]
        cell = fit_calibrator(rows, ["click"], ["feed"], 1, Segments({"country": values}, None)).cells["click"]["feed"]
        found[name] = np.array([cell.w[f"country={value}"] for value in values])
    assert np.abs(found["alike"]).max() < 0.05
    assert found["apart"] == pytest.approx(np.array([0.8, -0.8] * 4), abs=0.12)


def test_an_own_ridge_is_learned_from_all_heads_and_towers():
    """A tower whose few positives show nothing by themselves gets weights where the same feature's values differ elsewhere, and none where not."""
    values, found = [f"v{place}" for place in range(8)], {}
    for name, elsewhere in (("nowhere", [0.0] * 8), ("differ", [0.6, -0.6] * 4)):
        rows = []
        for tower, levels, count in (("large", elsewhere, 40_000), ("small", [0.4, -0.4] * 4, 400)):
            z, code, y = drawn(levels, count, slope=1.0, seed=3)
            rows += [Row(tower, z_n, 1, y_n, code_n) for z_n, y_n, code_n in zip(z, y, code, strict=True)]
        cell = fit_calibrator(rows, ["click"], ["large", "small"], 1, Segments({"country": values}, None)).cells["click"]["small"]
        found[name] = np.array([cell.w[f"country={value}"] for value in values])
    assert np.abs(found["nowhere"]).max() < 0.02
    assert np.corrcoef(found["differ"], [0.4, -0.4] * 4)[0, 1] > 0.5
    assert 0.1 < np.abs(found["differ"]).max() < 1
