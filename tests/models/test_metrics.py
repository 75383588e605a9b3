"""Metrics of bins, held to hand arithmetic and to scikit-learn."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from models.metrics import (
    Bins,
    GroupedAuc,
    at_the_top,
    auc,
    brier,
    ece_equal_mass,
    ece_interval,
    expected_auc,
    grouped_auc,
    log_loss,
    normalized_entropy,
    predicted,
    ratio,
    reliability,
    sigmoid,
)


def random_rows(count: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds with many ties, labels, weights."""
    draw = np.random.default_rng(3)
    log_odds = draw.normal(-1, 1, count).round(1)
    return log_odds, (draw.random(count) < sigmoid(log_odds)).astype(float), draw.random(count) + 0.5


def test_an_auc_by_hand():
    # positives at 1 and 3, negatives at 0, 1 and 2: 3 above 0, 1, 2; 1 above 0, half above 1: 4.5 of 6 pairs
    bins = Bins.of(np.array([1.0, 3.0, 0.0, 1.0, 2.0]), np.ones(5), np.array([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert auc(bins) == pytest.approx(4.5 / 6)


def test_auc_and_log_loss_are_those_of_scikit_learn():
    log_odds, labels, weight = random_rows()
    bins = Bins.of(log_odds, weight, weight * labels)
    assert auc(bins) == pytest.approx(roc_auc_score(labels, log_odds, sample_weight=weight), abs=1e-12)
    assert log_loss(bins) == pytest.approx(sklearn_log_loss(labels, sigmoid(log_odds), sample_weight=weight), abs=1e-12)


def test_normalized_entropy_and_ratio_are_those_of_scikit_learns_losses_and_of_sums():
    log_odds, labels, weight = random_rows()
    bins, probability = Bins.of(log_odds, weight, weight * labels), sigmoid(log_odds)
    rate = np.full(len(labels), np.average(labels, weights=weight))
    entropy = sklearn_log_loss(labels, rate, sample_weight=weight)
    assert normalized_entropy(bins) == pytest.approx(sklearn_log_loss(labels, probability, sample_weight=weight) / entropy, abs=1e-12)
    assert ratio(bins) == pytest.approx((weight * probability).sum() / (weight * labels).sum(), abs=1e-12)


def test_normalized_entropy_of_the_base_rate_is_one():
    bins = Bins.of(np.full(4, log(1 / 3)), np.ones(4), np.array([1.0, 0.0, 0.0, 0.0]))
    assert normalized_entropy(bins) == pytest.approx(1.0)


def test_ratio_is_predicted_over_observed():
    bins = Bins.of(np.array([0.0, log(3)]), np.array([4.0, 4.0]), np.array([1.0, 3.0]))
    assert predicted(bins) == pytest.approx(4 * 0.5 + 4 * 0.75)
    assert ratio(bins) == pytest.approx(5 / 4)


def test_the_top_of_a_ranking_is_its_highest_bins_and_splits_neither_bins_nor_ties():
    bins = Bins.of(np.array([0.0, 2.0, 1.0, -1.0, 0.0]), np.array([30, 5, 10, 45, 10]), np.array([8, 3, 1, 2, 1]))
    cases = [(0.05, [5]), (0.1, [10, 5]), (0.15, [10, 5]), (0.16, [30, 10, 10, 5]), (1.0, [45, 30, 10, 10, 5])]
    for share, rows in cases:
        assert at_the_top(bins, share).rows.tolist() == rows
    assert ratio(at_the_top(bins)) == pytest.approx((10 * sigmoid(np.array(1.0)) + 5 * sigmoid(np.array(2.0))) / 4)
    assert ratio(at_the_top(Bins.of(*np.empty((3, 0))))) is None


def test_the_calibration_error_by_hand():
    # Two groups of 10 rows: predicted .5 and observed .3; predicted .75 and observed .9.
    bins = Bins.of(np.array([0.0, log(3)]), np.array([10.0, 10.0]), np.array([3.0, 9.0]))
    diagram = reliability(bins, groups=2)
    assert diagram.rows.tolist() == [10, 10]
    assert diagram.predicted.tolist() == pytest.approx([0.5, 0.75])
    assert diagram.observed.tolist() == pytest.approx([0.3, 0.9])
    assert ece_equal_mass(bins, groups=2) == pytest.approx((0.2 + 0.15) / 2)
    assert ece_equal_mass(bins, groups=1) == pytest.approx(abs(0.625 - 0.6))


def test_groups_hold_about_equally_many_rows_and_never_split_ties():
    log_odds, labels, weight = random_rows(10_000)
    diagram = reliability(Bins.of(log_odds, weight, weight * labels), groups=10)
    assert diagram.rows.sum() == pytest.approx(weight.sum())
    assert diagram.rows.max() < 2 * weight.sum() / 10
    tied = reliability(Bins.of(np.zeros(100), np.ones(100), np.ones(100)), groups=10)
    assert len(tied.rows) <= 10
    assert (np.diff(diagram.predicted) > 0).all()


def test_what_is_not_defined_is_none():
    cases = [  # rows, positives, auc, ne, ratio
        ("no rows", [], [], None),
        ("no positives", [5.0], [0.0], None),
        ("no negatives", [5.0], [5.0], 0.5),
    ]
    for name, rows, positives, expected_ratio in cases:
        bins = Bins.of(np.zeros(len(rows)), np.array(rows), np.array(positives))
        assert (auc(bins), normalized_entropy(bins), ratio(bins)) == (None, None, expected_ratio), name


def test_bins_merge_into_the_bins_of_all_rows():
    log_odds, labels, weight = random_rows()
    whole = Bins.of(log_odds, weight, weight * labels)
    parts = Bins.merged(*(Bins.of(log_odds[i::3], weight[i::3], (weight * labels)[i::3]) for i in range(3)))
    for metric in (auc, log_loss, normalized_entropy, ratio):
        assert metric(parts) == pytest.approx(metric(whole), abs=1e-12)


def test_the_expected_auc_is_the_mean_auc_over_drawn_labels():
    draw = np.random.default_rng(5)
    truth = draw.uniform(0.05, 0.6, 2000)
    score = truth + draw.normal(0, 0.1, 2000)
    drawn = [roc_auc_score(draw.random(2000) < truth, score) for _ in range(50)]
    assert expected_auc(score, truth) == pytest.approx(np.mean(drawn), abs=0.005)


def test_a_grouped_auc_by_hand():
    cases = [  # user, score, label
        ("a", 0.3, 1),  # above a's one negative: 1 of 1 pair, 2 rows
        ("a", 0.2, 0),
        ("b", 0.9, 0),  # b's positive is below one negative, and ties with the other: half of 2 pairs, 3 rows
        ("b", 0.5, 1),
        ("b", 0.5, 0),
        ("c", 0.1, 1),  # one class: left out
    ]
    user, score, label = (np.array(values) for values in zip(*cases, strict=True))
    found = grouped_auc(user, score, label, np.ones(6))
    assert found == pytest.approx(GroupedAuc(1 * 2 + 0.25 * 3, weight=5, groups=2, one_class=1))
    assert found.value == pytest.approx((2 + 0.75) / 5)
    assert grouped_auc(user[5:], score[5:], label[5:], np.ones(1)) == GroupedAuc(0, 0, 0, 1)
    assert grouped_auc(user[:0], score[:0], label[:0], np.ones(0)).value is None


def test_a_grouped_auc_is_the_mean_of_scikit_learns_by_impressions_and_merges():
    score, label, weight = random_rows(2000)
    user = np.random.default_rng(7).zipf(1.5, 2000) % 100  # a few busy users, many idle ones
    whole = grouped_auc(user, score, label, weight)
    aucs, weights = [], []
    for name in np.unique(user):
        own = user == name
        if 0 < label[own].sum() < own.sum():
            aucs.append(roc_auc_score(label[own], score[own], sample_weight=weight[own]))
            weights.append(weight[own].sum())
    assert whole.value == pytest.approx(np.average(aucs, weights=weights), abs=1e-12)
    assert (whole.groups, whole.groups + whole.one_class) == (len(aucs), len(np.unique(user)))
    halves = [grouped_auc(user[own], score[own], label[own], weight[own]) for own in (user % 2 == 0, user % 2 == 1)]
    assert halves[0].merged(halves[1]) == pytest.approx(whole)


def test_a_sigmoid_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, 0.5, 1.0]


def test_a_brier_score_is_scikit_learns():
    log_odds, labels, weight = random_rows()
    bins = Bins.of(log_odds, weight, weight * labels)
    assert brier(bins) == pytest.approx(brier_score_loss(labels, sigmoid(log_odds), sample_weight=weight), abs=1e-9)
    assert brier(Bins.of(np.empty(0), np.empty(0), np.empty(0))) is None


def test_an_ece_is_that_of_scikit_learns_calibration_curve_by_quantiles():
    """Without ties and with groups of the same size, both cut rows at the same places."""
    draw = np.random.default_rng(5)
    log_odds = draw.normal(-1, 1, 600)
    labels = (draw.random(600) < sigmoid(0.5 * log_odds)).astype(float)
    observed, mean = calibration_curve(labels, sigmoid(log_odds), n_bins=12, strategy="quantile")
    assert ece_equal_mass(Bins.of(log_odds, np.ones(600), labels), groups=12) == pytest.approx(np.abs(observed - mean).mean(), abs=1e-9)


def test_an_eces_interval_holds_the_error_without_noise_and_its_chance_is_what_right_probabilities_show():
    draw = np.random.default_rng(7)
    held, of_right = 0, []
    for _ in range(60):
        log_odds = draw.normal(-1, 1, 3000)
        wrong, right = (draw.random(3000) < sigmoid(log_odds + shift) for shift in (0.4, 0.0))
        bins = Bins.of(log_odds, np.ones(3000), wrong.astype(float))
        limits = ece_interval(bins, groups=10)
        assert limits is not None
        held += limits.low <= float((sigmoid(log_odds + 0.4) - sigmoid(log_odds)).mean()) <= limits.high
        of_right.append(ece_equal_mass(Bins.of(log_odds, np.ones(3000), right.astype(float)), groups=10))
    assert held >= 53
    assert limits.chance == pytest.approx(np.mean(of_right), rel=0.1)
