"""Platt scaling per head and tower: what turns a model's log-odds into calibrated probabilities. Numpy only; JSON numbers, no pickle.

logit(q) = z + b0 + b1 * z + w . x, where z are the model's log-odds and x says which values the row has of a few columns, such as its
country. Fitted on traffic that this model scored and did not train on. A child head is calibrated given its parent, so its
product never exceeds the parent's probability. Without `w` it is two-parameter Platt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from conf.segments import feature_and_value, weight_key
from models.errors import ColumnsWrong
from models.metrics import sigmoid

LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Segments:
    """What a featured fit may give weights to. `values`: feature -> the values that the codes of its bins count; `ridge`: see `fit_featured`, None
    where the fit estimates one for each feature (`own_ridge` of models/calibration_fit.py)."""

    values: Mapping[str, Sequence[str]]
    ridge: float | None

    @property
    def keys(self) -> list[str]:
        return [weight_key(feature, value) for feature, values in self.values.items() for value in values]

    def places(self, codes: Mapping[str, np.ndarray], bins: int) -> np.ndarray:
        """int [N, F]: a bin's value of each feature, int [N] in `codes`, as its place in `keys`; their number where it has no weight."""
        places, first = np.empty((bins, len(self.values)), np.int64), 0
        for column, (feature, values) in enumerate(self.values.items()):
            places[:, column] = np.where(codes[feature] < 0, len(self.keys), codes[feature] + first)
            first += len(values)
        return places


NO_SEGMENTS = Segments({}, ridge=0)


@dataclass(frozen=True)
class Cell:
    """One head in one tower. `w`: weights by "feature=value", such as "country=US"; a value that is not there has none.

    `rows`, `positives`: of the fit, as they weighed in it; `reason`: in words, why this method.
    """

    method: Literal["identity", "platt", "featured"]
    b0: float = 0.0
    b1: float = 0.0
    w: dict[str, float] = field(default_factory=dict)
    positives: int = 0
    rows: int = 0
    reason: str = ""


IDENTITY = Cell("identity")


@dataclass(frozen=True)
class Calibrator:
    """`cells[head][tower]`; a tower without a cell is left as the model has it."""

    heads: tuple[str, ...]
    cells: dict[str, dict[str, Cell]]

    def to_json(self) -> str:
        """The same text for the same calibrator."""
        cells = {head: {tower: asdict(cell) for tower, cell in towers.items()} for head, towers in self.cells.items()}
        return json.dumps({"heads": list(self.heads), "cells": cells}, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Calibrator:
        found = json.loads(text)
        cells = {head: {tower: Cell(**cell) for tower, cell in towers.items()} for head, towers in found["cells"].items()}
        return Calibrator(tuple(found["heads"]), cells)

    @property
    def by_cell(self) -> dict[tuple[str, str], Cell]:
        """The same by (head, tower)."""
        return {(head, tower): cell for head, towers in self.cells.items() for tower, cell in towers.items()}

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """Feature -> its values with a weight in some cell, sorted: what the codes of `calibrated_log_odds` count."""
        pairs = sorted({feature_and_value(key) for cell in self.by_cell.values() for key in cell.w})
        return {feature: tuple(value for name, value in pairs if name == feature) for feature, _ in pairs}

    def calibrated_log_odds(
        self, log_odds_NH: np.ndarray, tower_N: np.ndarray, towers: Sequence[str], codes: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """float64 [N, H] conditional log-odds, after calibration. `tower_N`: int, place in `towers`, -1 for none; columns as in `heads`.

        `codes`: feature -> int [N], place of the row's value in `values`, -1 for none.
        """
        known = [[self.cells[head].get(tower, IDENTITY) for head in self.heads] for tower in towers]
        cells = [*known, [IDENTITY] * len(self.heads)]  # -1 is the last row
        b0, b1 = (np.array([[getattr(cell, name) for cell in row] for row in cells]) for name in ("b0", "b1"))
        result_NH = log_odds_NH * (1 + b1[tower_N]) + b0[tower_N]
        for feature, values in self.values.items():
            if codes is None or feature not in codes:
                raise ColumnsWrong(f"the calibrator has weights for values of {feature}; give the codes of {', '.join(self.values)}")
            keys = [weight_key(feature, value) for value in values]
            # [T + 1, V + 1, H]: the last row of either is that of -1.
            weights = np.array([[*([cell.w.get(key, 0.0) for cell in row] for key in keys), [0.0] * len(row)] for row in cells])
            result_NH = result_NH + weights[tower_N, codes[feature]]
        return result_NH


def probabilities(log_odds_NH: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """Conditional log-odds -> float64 [N, H] probabilities in (0, 1); a child's is p(parent) x p(child | parent), never above the parent's.

    `parents` [H]: index of a head's parent, -1 without one; a parent stands before its children.
    """
    given_NH = sigmoid(np.asarray(log_odds_NH, np.float64))
    p_NH = np.empty_like(given_NH)
    for head, parent in enumerate(parents):
        product_N = given_NH[:, head] if parent < 0 else given_NH[:, head] * p_NH[:, parent]
        ceiling = 1 - LEAST_PROBABILITY if parent < 0 else p_NH[:, parent]
        p_NH[:, head] = np.minimum(np.maximum(product_N, LEAST_PROBABILITY), ceiling)
    return p_NH
