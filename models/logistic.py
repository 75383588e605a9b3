"""Logistic regression on grouped rows by Newton's method: a few columns of numbers, and one-hot values as codes. Numpy only.

Shapes: N groups, D columns of numbers, F features, K weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.metrics import sigmoid


@dataclass(frozen=True)
class Design:
    """The design matrix [N, D + K], whose last K columns are one-hots: never laid out, since most of it would be zeros.

    `numbers` float64 [N, D]; `codes` int [N, F]: the weight, 0 to K - 1, that each feature of a group has, K for none.
    """

    numbers: np.ndarray
    codes: np.ndarray
    weights: int

    def margins(self, beta: np.ndarray) -> np.ndarray:
        """float64 [N]: the matrix times `beta` [D + K]."""
        width = self.numbers.shape[1]
        return self.numbers @ beta[:width] + np.append(beta[width:], 0.0)[self.codes].sum(axis=1)

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """float64 [D + K]: the matrix transposed times `residual` [N]."""
        return np.concatenate([self.numbers.T @ residual, self._by_weight(residual)])

    def curvature(self, weight: np.ndarray) -> np.ndarray:
        """float64 [D + K, D + K]: the matrix transposed times itself, each group times `weight` [N]."""
        weighted = self.numbers * weight[:, None]
        numbers = weighted.T @ self.numbers
        if not self.weights:
            return numbers
        across = np.stack([self._by_weight(column) for column in weighted.T])
        count = self.weights + 1
        pairs = np.zeros(count * count)
        for left in self.codes.T:
            for right in self.codes.T:
                pairs += np.bincount(left * count + right, weight, count * count)
        return np.block([[numbers, across], [across.T, pairs.reshape(count, count)[:-1, :-1]]])

    def _by_weight(self, values: np.ndarray) -> np.ndarray:
        """float64 [K]: the sum of `values` [N] over the groups that have the weight."""
        sums = np.zeros(self.weights + 1)
        for codes in self.codes.T:
            sums += np.bincount(codes, values, self.weights + 1)
        return sums[:-1]


def newton(
    design: Design, positives: np.ndarray, rows: np.ndarray, offset: np.ndarray, penalty: np.ndarray, toward: np.ndarray
) -> np.ndarray:
    """float64 [D + K] with the least loss of logit = offset + margins, each step halved until the loss falls.

    `positives`, `rows` [N], the first column of numbers is 1. The loss is cross-entropy plus penalty / 2 * (beta - toward)^2, both [D + K].
    Convex; where independent columns without a penalty meet rows of both classes, and where all have one, it has one least point.
    """
    beta = toward.astype(np.float64)
    if not penalty[0]:
        beta[0] = np.log(positives.sum() / (rows.sum() - positives.sum()))

    def loss(candidate: np.ndarray) -> float:
        logit = design.margins(candidate) + offset
        return float((rows * np.logaddexp(0, logit) - positives * logit).sum() + (penalty * (candidate - toward) ** 2).sum() / 2)

    now = loss(beta)
    for _ in range(100):
        p = sigmoid(design.margins(beta) + offset)
        gradient = design.gradient(rows * p - positives) + penalty * (beta - toward)
        curvature = design.curvature(rows * p * (1 - p)) + np.diag(penalty) + 1e-12 * rows.sum() * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        while (then := loss(beta - step)) > now and np.abs(step).max() > 1e-12:
            step = step / 2
        if then > now:
            break
        beta, now = beta - step, then
        if np.abs(step).max() < 1e-10 or np.abs(beta).max() > 1e3:
            break
    return beta
