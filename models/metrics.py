"""Metrics from bins of log-odds: float64 sums that merge, whatever the number of rows. Numpy only.

Bins come from Spark (etl/calibration_stats.py: one per quantised log-odds) or are single rows. A metric that is not defined, such as an AUC
of one class, is None, never 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Bins(NamedTuple):
    """N bins in ascending order of log-odds. Two of equal log-odds are ties."""

    log_odds: np.ndarray  # float64 [N], mean of the bin
    rows: np.ndarray  # float64 [N], weighted rows
    positives: np.ndarray  # float64 [N], weighted rows with label 1; may be fractional

    @staticmethod
    def of(log_odds: np.ndarray, rows: np.ndarray, positives: np.ndarray) -> Bins:
        """Bins in any order, sorted; those without rows are dropped."""
        log_odds, rows, positives = (np.asarray(values, np.float64) for values in (log_odds, rows, positives))
        order = np.argsort(log_odds, kind="stable")
        order = order[rows[order] > 0]
        return Bins(log_odds[order], rows[order], positives[order])

    @staticmethod
    def merged(*parts: Bins) -> Bins:
        return Bins.of(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))

    @property
    def probability(self) -> np.ndarray:
        return sigmoid(self.log_odds)

    @property
    def has_both_classes(self) -> bool:
        return bool(0 < self.positives.sum() < self.rows.sum())


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, float64."""
    decay = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, decay) / (1 + decay)


def auc(bins: Bins) -> float | None:
    """Share of (positive, negative) pairs in which the positive stands higher; ties count half."""
    if not bins.has_both_classes:
        return None
    level = np.unique(bins.log_odds, return_inverse=True)[1]
    positives = np.bincount(level, bins.positives)
    negatives = np.bincount(level, bins.rows - bins.positives)
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / (positives.sum() * negatives.sum()))


def log_loss(bins: Bins) -> float | None:
    """Mean cross-entropy in nats: log(1 + exp(z)) - y z."""
    if not bins.rows.sum():
        return None
    total = (bins.rows * np.logaddexp(0, bins.log_odds) - bins.positives * bins.log_odds).sum()
    return float(total / bins.rows.sum())


def normalized_entropy(bins: Bins) -> float | None:
    """Log-loss over the entropy of the base rate (He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014)."""
    loss = log_loss(bins)
    if loss is None or not bins.has_both_classes:
        return None
    rate = bins.positives.sum() / bins.rows.sum()
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def predicted(bins: Bins) -> float:
    """Sum of probabilities."""
    return float((bins.rows * bins.probability).sum())


def ratio(bins: Bins) -> float | None:
    """Predicted over observed positives; None without positives."""
    observed = bins.positives.sum()
    return float(predicted(bins) / observed) if observed > 0 else None


class Reliability(NamedTuple):
    """A reliability diagram: groups of about equally many rows, from the lowest probability."""

    rows: np.ndarray  # float64 [G]
    predicted: np.ndarray  # float64 [G], mean probability
    observed: np.ndarray  # float64 [G], share of positives


def reliability(bins: Bins, groups: int) -> Reliability:
    """At most `groups` groups; a bin is never split, so ties stay together."""
    total = bins.rows.sum()
    if not total:
        return Reliability(np.empty(0), np.empty(0), np.empty(0))
    middle = np.cumsum(bins.rows) - bins.rows / 2
    group = np.unique(np.minimum((middle * groups / total).astype(np.int64), groups - 1), return_inverse=True)[1]
    rows = np.bincount(group, bins.rows)
    return Reliability(rows, np.bincount(group, bins.rows * bins.probability) / rows, np.bincount(group, bins.positives) / rows)


def ece_equal_mass(bins: Bins, groups: int) -> float | None:
    """Expected calibration error: mean over rows of |predicted - observed| of the row's group."""
    if not bins.rows.sum():
        return None
    diagram = reliability(bins, groups)
    return float((diagram.rows * np.abs(diagram.predicted - diagram.observed)).sum() / diagram.rows.sum())


def expected_auc(score: np.ndarray, true_probability: np.ndarray) -> float | None:
    """The AUC to expect of `score` [N]: each row counts `true_probability` [N] as positive and the rest as negative."""
    return auc(Bins.of(score, np.ones(len(score)), true_probability))
