"""What the network is held to on the simulated world: logistic regression and LightGBM on the very rows and numbers it reads.

Both see a validation day, on which the strength of their regularisation or the number of trees is chosen. Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from models.columns import Arrays, Columns
from models.representation import Features, Representation

INVERSE_STRENGTHS = (0.01, 0.03, 0.1)  # C of scikit-learn's penalty
MOST_TREES, PATIENCE = 1500, 30
TREES = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 63, "min_data_in_leaf": 200, "feature_fraction": 0.8, "verbosity": -1}
Fitted = Callable[[Arrays], np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Encoded rows with one head's labels (1 or 0); all are rows that the head's loss counts."""

    arrays: Arrays
    label: np.ndarray

    def taken(self, keep: np.ndarray) -> Rows:
        return Rows(Arrays(*(array[keep] for array in self.arrays)), self.label[keep])


def cross_entropy(log_odds: np.ndarray, truth: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Mean cross-entropy a unit of weight against labels or true probabilities; stable at both ends."""
    return float(np.average(np.logaddexp(0, log_odds) - truth * log_odds, weights=np.broadcast_to(weight, truth.shape)))


def logistic(
    columns: Columns,
    statistics: Mapping[str, Mapping[str, float]],
    crossed: bool,
    strengths: Sequence[float] = INVERSE_STRENGTHS,
    iterations: int = 60,
) -> Callable[..., Fitted]:
    """Logistic regression over one-hot ids and standardised numbers; `crossed`: all of them once more for each tower.

    fit(train, validate, again): the strength is chosen on `validate`; `again`, where given, are the rows that the chosen one then learns from.
    """

    def fit(train: Rows, validate: Rows, again: Rows | None = None) -> Fitted:
        design = _Design(columns, statistics, crossed)
        known, shown = design(train.arrays), design(validate.arrays)
        models = [LogisticRegression(C=one, max_iter=iterations, solver="lbfgs").fit(known, train.label) for one in strengths]
        best = min(models, key=lambda model: cross_entropy(model.decision_function(shown), validate.label))
        if again is not None:
            best = LogisticRegression(C=best.C, max_iter=iterations, solver="lbfgs").fit(design(again.arrays), again.label)
        return lambda arrays: best.decision_function(design(arrays))

    return fit


def boosted_trees(columns: Columns, seed: int = 0) -> Callable[..., Fitted]:
    """LightGBM; ids are categories. fit(train, validate, again): as of `logistic`, the number of trees being what is chosen."""

    def table(arrays: Arrays) -> np.ndarray:
        numbers = np.where(arrays.missing[:, : arrays.continuous.shape[1]] == 1, np.nan, arrays.continuous)
        return np.hstack([arrays.ids - np.array(columns.offsets[:-1]), arrays.tower[:, None], numbers, arrays.dense]).astype(np.float32)

    def fit(train: Rows, validate: Rows, again: Rows | None = None) -> Fitted:
        categories, trees = list(range(train.arrays.ids.shape[1] + 1)), TREES | {"seed": seed}
        known = lightgbm.Dataset(table(train.arrays), train.label, categorical_feature=categories, free_raw_data=True)
        shown = known.create_valid(table(validate.arrays), validate.label)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        model = lightgbm.train(trees, known, MOST_TREES, valid_sets=[shown], callbacks=[stop])
        best = model.best_iteration
        if again is not None:
            rows = lightgbm.Dataset(table(again.arrays), again.label, categorical_feature=categories)
            model = lightgbm.train(trees, rows, best)
        return lambda arrays: np.asarray(model.predict(table(arrays), raw_score=True, num_iteration=best))

    return fit


class _Design:
    """Arrays -> the sparse matrix of a linear model."""

    def __init__(self, columns: Columns, statistics: Mapping[str, Mapping[str, float]], crossed: bool) -> None:
        self.columns, self.crossed = columns, crossed
        self.representation = Representation(columns, 1, statistics)  # its numbers only, no embedding

    def __call__(self, arrays: Arrays) -> csr_matrix:
        rows, ids = len(arrays.tower), arrays.ids
        ones = csr_matrix(
            (np.ones(ids.size, np.float32), ids.ravel(), np.arange(0, ids.size + 1, ids.shape[1])), (rows, self.columns.offsets[-1])
        )
        numbers = self.representation.numbers(Features.of(arrays)).numpy()
        plain = hstack([ones, csr_matrix(numbers)], format="csr")
        if not self.crossed:
            return plain
        width, towers = plain.shape[1], self.columns.towers
        entries = np.diff(plain.indptr)
        place = np.repeat(arrays.tower, entries) * width + plain.indices
        known = np.repeat(arrays.tower, entries) >= 0
        own = csr_matrix((plain.data * known, np.where(known, place, 0), plain.indptr), (rows, width * towers))
        return hstack([plain, own], format="csr")
