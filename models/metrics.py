"""Metrics from bins of log-odds: float64 sums that merge, whatever the number of rows. Numpy only.

Bins come from Spark (etl/calibration_stats.py: one per quantised log-odds) or are single rows. A metric that is not defined, such as an AUC
of one class, is None, never 0.5.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: Share of rows that are the top of a ranking.
TOP = 0.1


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


def brier(bins: Bins) -> float | None:
    """Mean squared difference of probability and label (Brier, 1950)."""
    if not bins.rows.sum():
        return None
    p = bins.probability
    return float((bins.rows * p**2 - 2 * bins.positives * p + bins.positives).sum() / bins.rows.sum())


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


def at_the_top(bins: Bins, share: float = TOP) -> Bins:
    """The bins with the highest log-odds that together hold `share` of the rows, or just more: one is never split, nor are ties."""
    above = bins.rows.sum() - np.cumsum(bins.rows)
    chosen = bins.log_odds >= bins.log_odds[above < share * bins.rows.sum()].min(initial=np.inf)
    return Bins(bins.log_odds[chosen], bins.rows[chosen], bins.positives[chosen])


def chance_share(count: float) -> float:
    """By what share of itself a count may be off by chance alone: half the width of its 95% interval (Poisson, by the normal law)."""
    return 1.96 / math.sqrt(count)


def poisson_interval(count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Limits of a Poisson mean over the `count` seen, by Byar's approximation; a ratio inherits them from its positives."""
    if not count:
        return 0.0, float("inf")
    z, after = NormalDist().inv_cdf(0.5 + confidence / 2), count + 1
    low = count * (1 - 1 / (9 * count) - z / (3 * count**0.5)) ** 3
    high = after * (1 - 1 / (9 * after) + z / (3 * after**0.5)) ** 3
    return max(low, 0.0) / count, high / count


def auc_interval(area: float, positives: float, negatives: float, confidence: float = 0.95) -> tuple[float, float]:
    """Limits of an AUC from its counts alone, rows taken as independent (Hanley, McNeil, Radiology 143(1), 1982)."""
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    of_pairs = area * (1 - area) + (positives - 1) * (both_above - area**2) + (negatives - 1) * (both_below - area**2)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * (max(of_pairs, 0.0) / (positives * negatives)) ** 0.5
    return max(area - half, 0.0), min(area + half, 1.0)


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


class EceInterval(NamedTuple):
    """95% limits of an ECE, and `chance`: what right probabilities would show, since groups never hold exactly what was predicted."""

    low: float
    high: float
    chance: float


def ece_interval(bins: Bins, groups: int, draws: int = 1000) -> EceInterval | None:
    """Bootstrap of the labels within the groups of `reliability`, each of which keeps its rows and its predicted mean.

    An ECE is too high by its noise, and so is each draw's above the one it is drawn from: the limits are reflected (basic bootstrap), so that they
    lie about what is left without noise. They may lie below the ECE itself, and end at 0.
    """
    found = ece_equal_mass(bins, groups)
    if found is None:
        return None
    rows, mean, observed = reliability(bins, groups)
    seen = np.random.default_rng(1).binomial(np.round(rows).astype(np.int64), np.clip(observed, 0, 1), (draws, len(rows))) / np.maximum(
        rows, 1
    )
    low, high = np.percentile((rows * np.abs(seen - mean)).sum(axis=1) / rows.sum(), [2.5, 97.5])
    chance = float(np.sqrt(2 * rows * mean * (1 - mean) / np.pi).sum() / rows.sum())
    return EceInterval(max(2 * found - float(high), 0.0), max(2 * found - float(low), 0.0), chance)


def expected_auc(score: np.ndarray, true_probability: np.ndarray) -> float | None:
    """The AUC to expect of `score` [N]: each row counts `true_probability` [N] as positive and the rest as negative."""
    return auc(Bins.of(score, np.ones(len(score)), true_probability))


class GroupedAuc(NamedTuple):
    """Sums over groups, such as users, that hold both classes; those of other groups add up field by field."""

    numerator: float  # AUC of a group x its weight, summed
    weight: float  # of the groups' rows
    groups: int
    one_class: int  # groups that are left out, since no pair tells anything of their order

    @property
    def value(self) -> float | None:
        return self.numerator / self.weight if self.weight else None

    def merged(self, other: GroupedAuc) -> GroupedAuc:
        """Of both; no group may have rows in both."""
        numerator, weight = self.numerator + other.numerator, self.weight + other.weight
        return GroupedAuc(numerator, weight, self.groups + other.groups, self.one_class + other.one_class)


def grouped_auc(group: np.ndarray, score: np.ndarray, label: np.ndarray, weight: np.ndarray) -> GroupedAuc:
    """GAUC: the mean of each user's own AUC by impressions (Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017).

    What an AUC over all rows owes to telling busy users from idle ones, no auction gains by. `group` [N] whole numbers or strings; any
    `score` [N] that orders, ties count half; `label` [N] 0 or 1; `weight` [N], rows that a row stands for.
    """
    if not len(group):
        return GroupedAuc(0.0, 0.0, 0, 0)
    group, scores = (np.unique(values, return_inverse=True)[1] for values in (group, score))
    steps = int(scores.max()) + 1
    level, of_row = np.unique(group * steps + scores, return_inverse=True)  # the same group and score: ties
    group_of = level // steps
    positives, negatives = np.bincount(of_row, weight * label), np.bincount(of_row, weight * (1 - label))
    positives_G, negatives_G = np.bincount(group_of, positives), np.bincount(group_of, negatives)
    below = np.cumsum(negatives) - negatives - (np.cumsum(negatives_G) - negatives_G)[group_of]
    pairs_G, won_G = positives_G * negatives_G, np.bincount(group_of, positives * (below + negatives / 2))
    both, weight_G = pairs_G > 0, positives_G + negatives_G
    numerator = (won_G[both] / pairs_G[both] * weight_G[both]).sum()
    return GroupedAuc(float(numerator), float(weight_G[both].sum()), int(both.sum()), int((~both).sum()))
