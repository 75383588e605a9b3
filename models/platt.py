"""Platt scaling of one head in one tower, alone or with weights for values of features, and how hard it is drawn to what is known before.

Numpy only. Shapes: N bins of log-odds, F features, K weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.logistic import Design, newton
from models.metrics import sigmoid

LEAST_SLOPE, LARGEST_SLOPE = 0.05, 20.0  # of 1 + b1: a calibrator keeps the order of scores, and separable rows do not make it a step


@dataclass(frozen=True)
class Prior:
    """The parameters of logit(q) = z + b0 + b1 z to which a fit is drawn. `strength`, in positives: with this many among its rows it goes half
    the way from them to its own level, and of its slope as far; 0 draws nowhere."""

    b0: float = 0.0
    b1: float = 0.0
    strength: float = 0.0


NO_PRIOR = Prior()


def fit_platt(log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """(b0, b1) of logit(q) = z + b0 + b1 * z with the largest likelihood (Platt, 1999), slope 1 + b1 within bounds.

    Bins [N]: mean log-odds, weighted positives (may be fractional), weighted rows. Needs both classes. No penalty.
    """
    b0, b1, _ = fit_featured(log_odds, positives, rows, np.empty((len(rows), 0), np.int64), 0, ridge=0)
    return b0, b1


def fit_featured(
    log_odds: np.ndarray,
    positives: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    weights: int,
    ridge: float | np.ndarray,
    prior: Prior = NO_PRIOR,
) -> tuple[float, float, np.ndarray]:
    """(b0, b1, w [K]) of logit(q) = z + b0 + b1 * z + w . x, with the least cross-entropy + ridge / 2 * |w|^2, slope 1 + b1 within bounds.

    Bins as of `fit_platt`; `places` int [N, F]: which of the K weights each feature of a bin has, K for none. Without a prior only w has a
    penalty, so a fit whose segments say nothing is two-parameter Platt, and the sum of probabilities is that of the positives. Since all values of a feature
    together say what b0 says, it is the ridge that makes w unique. It is in positives, or rather rows x p (1 - p), which they nearly are where
    p is small: a value with `ridge` of them has a weight about half as far from 0 as its own rows would have it. One for all, or [K].
    """
    z, y, n = (np.asarray(values, np.float64) for values in (log_odds, positives, rows))
    if not prior.strength and not 0 < y.sum() < n.sum():
        raise ValueError(f"{y.sum():g} positives in {n.sum():g} rows; Platt scaling needs rows of both classes")
    center = (n * z).sum() / n.sum()
    spread = np.sqrt((n * (z - center) ** 2).sum() / n.sum())
    # Where all rows have one log-odds, only their level can be learned.
    x = (z - center) / spread if spread > 1e-9 else np.zeros_like(z)
    # The prior's level and slope, where the fit has them: at the middle of its rows, per standard deviation of their log-odds.
    known = np.array([prior.b0 + (1 + prior.b1) * center, (1 + prior.b1) * spread])

    def fitted(fixed_slope: float | None) -> tuple[float, float, np.ndarray]:
        numbers = np.stack([np.ones_like(x), x], axis=1)[:, : 2 if fixed_slope is None else 1]
        parameters = numbers.shape[1]
        offset = np.zeros_like(x) if fixed_slope is None else fixed_slope * x
        penalty = np.concatenate([np.full(parameters, prior.strength), np.broadcast_to(ridge, weights)])
        toward = np.concatenate([known[:parameters] * (prior.strength > 0), np.zeros(weights)])
        beta = newton(Design(numbers, places, weights), y, n, offset, penalty, toward)
        return float(beta[0]), float(beta[1] if fixed_slope is None else fixed_slope), beta[parameters:]

    intercept, slope, w = fitted(None if spread > 1e-9 else 0.0)
    scale = slope / spread if spread > 1e-9 else 1.0
    if not LEAST_SLOPE <= scale <= LARGEST_SLOPE:
        scale = min(max(scale, LEAST_SLOPE), LARGEST_SLOPE)
        intercept, _, w = fitted(
            scale * spread
        )  # the loss is convex, so its least point within the bounds lies on the one that was crossed
    return float(intercept - scale * center), float(scale - 1), w


def scatter_of_values(log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray, code: np.ndarray, values: int) -> np.ndarray:
    """float64 [3], what one cell says of how far a feature's values lie apart about its calibrated `log_odds` [N]; cells add up.

    `code` int [N]: the value of a bin, `values` for none. A value's own level is (positives - expected) / information, which varies by
    1 / information even where all are alike. The three are the levels' sum of squares, each by its information; what chance makes of it;
    and what it grows by where the levels have a variance of 1.
    """
    p = sigmoid(np.asarray(log_odds, np.float64))
    gap, information = (np.bincount(code, of, values + 1)[:values] for of in (positives - rows * p, rows * p * (1 - p)))
    gap, information = gap[information > 0], information[information > 0]
    if len(information) < 2:
        return np.zeros(3)
    total = information.sum()
    squares = (information * (gap / information - gap.sum() / total) ** 2).sum()
    return np.array([squares, len(information) - 1, total - (information**2).sum() / total])


def variance_of_values(scatter: np.ndarray) -> float:
    """Variance of the levels of a feature's values beyond what chance makes of their positives; 0 where chance may make all of it.

    By moments (DerSimonian and Laird, Controlled Clinical Trials 1986), the squares taken for a standard error less than they are, so that chance
    alone seldom counts for a difference. One over the variance is the ridge that errs least on such values.
    """
    squares, by_chance, per_variance = scatter
    return max(float(squares - by_chance - np.sqrt(2 * by_chance)) / per_variance, 0.0) if per_variance else 0.0
