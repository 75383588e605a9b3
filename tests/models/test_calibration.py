"""Platt scaling per head and tower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from models.calibration import Calibrator, Cell, probabilities
from models.calibration_fit import fit_calibrator
from models.metrics import sigmoid
from models.platt import LEAST_SLOPE, Prior, fit_featured, fit_platt


@dataclass
class Row:
    """A bin as Spark collects it."""

    head: str
    tower: str
    z_sum: float
    rows: float
    positives: float


def drawn(b0: float, slope: float, count: int = 20_000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels whose truth is logit(q) = b0 + slope * z."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-2, 1, count)
    return z, (draw.random(count) < sigmoid(b0 + slope * z)).astype(float)


def test_platt_is_scikit_learns_logistic_regression_without_penalty():
    z, y = drawn(0.7, 0.6)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(z[:, None], y)
    b0, b1 = fit_platt(z, y, np.ones(len(z)))
    assert b0 == pytest.approx(reference.intercept_[0], abs=1e-6)
    assert 1 + b1 == pytest.approx(reference.coef_[0, 0], abs=1e-6)


def test_fractional_positives_fit_the_truth_itself():
    z = np.linspace(-6, 2, 400)
    b0, b1 = fit_platt(z, 50 * sigmoid(0.4 + 1.3 * z), np.full(400, 50.0))
    assert (b0, 1 + b1) == pytest.approx((0.4, 1.3), abs=1e-8)


def test_a_fit_makes_the_sum_of_probabilities_that_of_the_positives():
    z, y = drawn(-0.5, 1.2)
    b0, b1 = fit_platt(z, y, np.ones(len(z)))
    assert sigmoid(z + b0 + b1 * z).sum() == pytest.approx(y.sum(), rel=1e-9)


def test_the_slope_stays_positive_so_the_order_of_scores_does():
    z, y = drawn(0.0, -1.0)
    b0, b1 = fit_platt(z, y, np.ones(len(z)))
    assert 1 + b1 == pytest.approx(LEAST_SLOPE)
    assert sigmoid(z + b0 + b1 * z).sum() == pytest.approx(y.sum(), rel=1e-9)


def test_rows_of_one_log_odds_move_the_level_alone():
    b0, b1 = fit_platt(np.full(10, -1.0), np.array([1.0] * 4 + [0.0] * 6), np.ones(10))
    assert b1 == 0
    assert sigmoid(np.array(-1.0 + b0)) == pytest.approx(0.4)


def test_separable_rows_give_finite_coefficients():
    b0, b1 = fit_platt(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))
    assert np.isfinite([b0, b1]).all()
    assert b1 <= 19


def test_rows_of_one_class_are_refused():
    with pytest.raises(ValueError, match="0 positives in 3 rows"):
        fit_platt(np.zeros(3), np.zeros(3), np.ones(3))


def test_a_cell_with_too_few_positives_is_the_identity_and_says_so():
    z, y = drawn(1.0, 1.0, count=2000)
    bins = [Row("click", "standard", value, 1, label) for value, label in zip(z, y, strict=True)]
    bins += [Row("save", "standard", -3.0, 100, 19), Row("hide", "standard", -3.0, 30, 30)]
    calibrator = fit_calibrator(bins, ["click", "save", "hide"], ["standard", "video"], min_positives=20)
    assert calibrator.cells["click"]["standard"].method == "platt"
    assert calibrator.cells["click"]["standard"].rows == 2000
    assert calibrator.cells["save"]["standard"] == Cell(
        "identity", positives=19, rows=100, reason="19 positives, fewer than calibration.min_positives 20"
    )
    assert calibrator.cells["hide"]["standard"].reason == "no negatives among the fit rows"
    assert calibrator.cells["click"]["video"].reason == "0 positives, fewer than calibration.min_positives 20"


def test_bins_fit_what_their_rows_fit():
    z, y = drawn(0.3, 0.8)
    width = 0.001
    index = np.floor(z / width).astype(int)
    keys, position = np.unique(index, return_inverse=True)
    z_sum, rows, positives = (np.bincount(position, values) for values in (z, np.ones(len(z)), y))
    bins = [Row("click", "all", *numbers) for numbers in zip(z_sum, rows, positives, strict=True)]
    cell = fit_calibrator(bins, ["click"], ["all"], min_positives=200).cells["click"]["all"]
    assert len(keys) < len(z)
    assert (cell.b0, cell.b1) == pytest.approx(fit_platt(z, y, np.ones(len(z))), abs=1e-4)


def test_json_carries_a_calibrator_unchanged_and_is_the_same_text_each_time():
    cells = {"save": {"video": Cell("platt", 0.1, -0.2, positives=5, rows=9)}, "click": {"video": Cell("identity", reason="few")}}
    calibrator = Calibrator(("click", "save"), cells)
    text = calibrator.to_json()
    assert Calibrator.from_json(text) == calibrator
    assert Calibrator(("click", "save"), dict(reversed(cells.items()))).to_json() == text


def test_each_row_is_calibrated_by_its_own_tower_and_an_unknown_tower_is_left_alone():
    cells = {"click": {"standard": Cell("platt", 1.0, 0.5), "video": Cell("platt", -1.0, 0.0)}}
    log_odds = np.array([[2.0], [2.0], [2.0], [2.0]])
    calibrated = Calibrator(("click",), cells).calibrated_log_odds(log_odds, np.array([0, 1, 2, -1]), ["standard", "video", "new"])
    assert calibrated[:, 0].tolist() == [4.0, 1.0, 2.0, 2.0]


def test_a_childs_probability_is_the_product():
    p = probabilities(np.array([[0.0, np.log(3)]]), parents=[-1, 0])
    assert p[0].tolist() == pytest.approx([0.5, 0.375])


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
def test_probabilities_are_inside_0_and_1_and_a_childs_is_never_above_its_parents(log_odds):
    p = probabilities(np.array(log_odds), parents=[-1, 0])
    assert ((p > 0) & (p < 1)).all()
    assert (p[:, 1] <= p[:, 0]).all()


def test_a_prior_of_as_many_positives_as_the_rows_have_takes_the_level_half_way():
    """4,000 rows of one log-odds, 40 positives, where the model says 80: half the way lies near the middle of both log-odds."""
    z, rows = np.full(1, np.log(0.02 / 0.98)), np.full(1, 4000.0)
    own, _, _ = fit_featured(z, np.full(1, 40.0), rows, np.empty((1, 0), int), 0, 0)
    drawn_to, _, _ = fit_featured(z, np.full(1, 40.0), rows, np.empty((1, 0), int), 0, 0, Prior(strength=53))
    assert own == pytest.approx(-0.70, abs=0.01)
    # At half way, logit(.0142), the rows hold 56 x .986 of information: the penalty is as steep there as the loss.
    assert drawn_to == pytest.approx(own / 2, abs=0.02)


def test_without_positives_a_prior_still_gives_a_fit():
    z, nowhere = np.linspace(-6, -4, 50), np.empty((50, 0), int)
    b0, b1, _ = fit_featured(z, np.zeros(50), np.full(50, 10.0), nowhere, 0, 0, Prior(0.3, 0.1, strength=10))
    assert -2 < b0 + (1 + b1) * -5 - -5 < 0.3
    assert 1 + b1 >= LEAST_SLOPE


def test_pooled_a_small_cell_follows_its_head_and_a_large_one_itself():
    """The head's rate is doubled in both towers and, in `large`, trebled; `small` has 4 positives of its own, `empty` no row."""
    rows = [Row("click", "large", -3.0 * 10_000, 10_000, round(10_000 * sigmoid(np.array(-3 + np.log(3)))))]
    rows += [Row("click", "small", -3.0 * 40, 40, 4)]
    cells = fit_calibrator(rows, ["click", "save"], ["large", "small", "empty"], 200, pooling=10).cells
    level = {tower: cell.b0 - 3 * cell.b1 for tower, cell in cells["click"].items()}
    assert level["large"] == pytest.approx(np.log(3), abs=0.02)
    assert level["empty"] == pytest.approx(level["large"], abs=0.02)
    own = np.log(4 / 36) + 3
    assert min(own, level["empty"]) < level["small"] < max(own, level["empty"])
    assert (cells["click"]["small"].positives, cells["click"]["empty"].rows) == (4, 0)
    assert {cell.method for cell in cells["save"].values()} == {"identity"}


def test_with_an_endless_pooling_nothing_is_learned():
    rows = [Row("click", "feed", -3.0 * 1000, 1000, 300), Row("click", "feed", -2.0 * 1000, 1000, 500)]
    cell = fit_calibrator(rows, ["click"], ["feed"], 1, pooling=1e12).cells["click"]["feed"]
    assert (cell.b0, cell.b1) == pytest.approx((0, 0), abs=1e-6)
