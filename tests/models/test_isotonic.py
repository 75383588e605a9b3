"""Isotonic calibration, held to scikit-learn's. All rows are simulated."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from models.isotonic import fit_isotonic
from models.metrics import sigmoid

WIDTH = 0.01


def drawn(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels of a truth that no line through log-odds fits."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-2, 1, count)
    return z, (draw.random(count) < sigmoid(z - np.tanh(z + 1))).astype(float)


def binned(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of_row = np.unique(np.floor(z / WIDTH), return_inverse=True)[1]
    rows = np.bincount(of_row)
    return np.bincount(of_row, z) / rows, np.bincount(of_row, y), rows.astype(float)


def reference(z: np.ndarray, y: np.ndarray, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    least = 0.5 / rows.sum()
    return np.clip(IsotonicRegression(out_of_bounds="clip").fit(z, y, sample_weight=rows).predict(at), least, 1 - least)


@pytest.mark.parametrize("count", [50, 20_000])
def test_on_the_same_weighted_bins_it_is_scikit_learns_at_the_bins_between_and_beyond_them(count: int):
    log_odds, positives, rows = binned(*drawn(count))
    at = np.concatenate([log_odds, (log_odds[1:] + log_odds[:-1]) / 2, [-50.0, 50.0]])
    ours = sigmoid(fit_isotonic(log_odds, positives, rows).log_odds(at))
    assert np.abs(ours - reference(log_odds, positives / rows, rows, at)).max() < 1e-6


def test_on_raw_rows_it_is_scikit_learns_within_the_width_of_a_bin():
    """Ours by bins lies between scikit-learn's by rows a width lower and a width higher, give or take .01 where a step has few rows."""
    z, y = drawn(20_000)
    ours = sigmoid(fit_isotonic(*binned(z, y)).log_odds(z))
    by_rows = IsotonicRegression(out_of_bounds="clip").fit(z, y)
    within = (ours >= by_rows.predict(z - WIDTH) - 0.01) & (ours <= by_rows.predict(z + WIDTH) + 0.01)
    assert within.mean() > 0.99
    assert np.abs(ours - by_rows.predict(z)).mean() < 0.002


def test_probabilities_rise_with_the_log_odds_and_stay_off_0_and_1_where_no_row_was_positive():
    z = np.array([-3.0, -2.0, -1.0, 0.0])
    fitted = fit_isotonic(z, np.array([0.0, 0.0, 5.0, 3.0]), np.full(4, 10.0))
    assert fitted.at.tolist() == [-3.0, -2.0, -1.0, 0.0]
    assert sigmoid(fitted.log_odds(np.array([-9.0, -3.0, -2.0, -1.5, -1.0, 9.0]))) == pytest.approx([1 / 80, 1 / 80, 1 / 80, 0.2, 0.4, 0.4])
