"""Isotonic calibration: the probabilities that rise with the log-odds and fit best, whatever their shape (Zadrozny and Elkan, KDD 2002).

Numpy and scipy only. Beside Platt in the backtest; it has no weights for segments and nothing to say beyond the fit's log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression


@dataclass(frozen=True)
class Isotonic:
    """Knots [K], ascending: log-odds of the model and the probability there; linear between, level outside. `least`: bound away from 0 and 1."""

    at: np.ndarray
    probability: np.ndarray
    least: float

    def log_odds(self, z: np.ndarray) -> np.ndarray:
        """float64 [N] calibrated log-odds of model log-odds `z` [N]."""
        p = np.clip(np.interp(z, self.at, self.probability), self.least, 1 - self.least)
        return np.log(p) - np.log1p(-p)


def fit_isotonic(log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray) -> Isotonic:
    """Bins [N]: mean log-odds, weighted positives, weighted rows; bins of equal log-odds count as one. A probability lies at least half a row
    of all from 0 and 1: without a positive below some log-odds, the next day may have one."""
    at, of_bin = np.unique(np.asarray(log_odds, np.float64), return_inverse=True)
    weight = np.bincount(of_bin, rows)
    fitted = isotonic_regression(np.bincount(of_bin, positives) / weight, weights=weight).x
    # The first and the last log-odds of each level say it all.
    ends = np.append(True, np.diff(fitted) != 0)
    kept = ends | np.append(ends[1:], True)
    return Isotonic(at[kept], fitted[kept], 0.5 / float(weight.sum()))
