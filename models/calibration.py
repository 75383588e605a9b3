"""Platt scaling per head and tower: what turns a model's log-odds into calibrated probabilities. Numpy only; JSON numbers, no pickle.

logit(q) = z + b0 + b1 * z + w . x, where z are the model's log-odds and x says which values the row has of a few columns, such as its
country. Fitted on traffic that this model scored and did not train on. A child head is calibrated given its parent, so its
product never exceeds the parent's probability. Without `w` it is two-parameter Platt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np

from conf.segments import code_column, feature_and_value, weight_key
from models.errors import ColumnsWrong
from models.logistic import Design, newton
from models.metrics import sigmoid

LEAST_SLOPE, LARGEST_SLOPE = 0.05, 20.0  # of 1 + b1: a calibrator keeps the order of scores, and separable rows do not make it a step
LEAST_PROBABILITY = 1e-7


class Bin(Protocol):
    """Fit rows of one head and tower with nearly the same log-odds (etl/calibration_stats.py); of a child head, rows with parent 1.

    For a featured fit also with the same values of its features: an int `<feature>__code` each.
    """

    head: str
    tower: str
    z_sum: float  # sum of log-odds
    rows: float
    positives: float


@dataclass(frozen=True)
class Segments:
    """What a featured fit may give weights to. `values`: feature -> the values that the codes of its bins count; `ridge`: see `fit_featured`."""

    values: Mapping[str, Sequence[str]]
    ridge: float

    @property
    def keys(self) -> list[str]:
        return [weight_key(feature, value) for feature, values in self.values.items() for value in values]

    def places(self, bins: Sequence[Bin]) -> np.ndarray:
        """int [N, F]: a bin's value of each feature as its place in `keys`; their number where it has no weight."""
        places, first = np.empty((len(bins), len(self.values)), np.int64), 0
        for column, (feature, values) in enumerate(self.values.items()):
            codes = np.array([getattr(one, code_column(feature)) for one in bins], np.int64)
            places[:, column] = np.where(codes < 0, len(self.keys), codes + first)
            first += len(values)
        return places


NO_SEGMENTS = Segments({}, ridge=0)


@dataclass(frozen=True)
class Cell:
    """One head in one tower. `w`: weights by "feature=value", such as "country=US"; a value that is not there has none.

    `rows`, `positives`: of the fit; `reason`: in words, why this method.
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


def fit_calibrator(
    bins: Iterable[Bin], heads: Sequence[str], towers: Sequence[str], min_positives: int, segments: Segments = NO_SEGMENTS
) -> Calibrator:
    """A cell per head and tower: Platt, featured with `segments`, or the identity with its reason: too few fit rows, or those of one class."""
    grouped: dict[tuple[str, str], list[Bin]] = {}
    for one in bins:
        grouped.setdefault((one.head, one.tower), []).append(one)
    return Calibrator(
        tuple(heads),
        {head: {tower: _fit_cell(grouped.get((head, tower), []), min_positives, segments) for tower in towers} for head in heads},
    )


def _fit_cell(bins: Sequence[Bin], min_positives: int, segments: Segments) -> Cell:
    rows = np.array([one.rows for one in bins], np.float64)
    positives = np.array([one.positives for one in bins], np.float64)
    counted = partial(Cell, positives=round(positives.sum()), rows=round(rows.sum()))
    if positives.sum() < min_positives:
        return counted("identity", reason=f"{positives.sum():g} positives, fewer than calibration.min_positives {min_positives}")
    if positives.sum() >= rows.sum():
        return counted("identity", reason="no negatives among the fit rows")
    keys, places = segments.keys, segments.places(bins)
    log_odds = np.array([one.z_sum for one in bins], np.float64) / rows
    b0, b1, weights = fit_featured(log_odds, positives, rows, places, len(keys), segments.ridge)
    w = {keys[place]: float(weights[place]) for place in np.unique(places) if place < len(keys)}
    return counted("featured" if w else "platt", b0, b1, w, reason="enough positives")


def fit_platt(log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """(b0, b1) of logit(q) = z + b0 + b1 * z with the largest likelihood (Platt, 1999), slope 1 + b1 within bounds.

    Bins [N]: mean log-odds, weighted positives (may be fractional), weighted rows. Needs both classes. No penalty.
    """
    b0, b1, _ = fit_featured(log_odds, positives, rows, np.empty((len(rows), 0), np.int64), 0, ridge=0)
    return b0, b1


def fit_featured(
    log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray, places: np.ndarray, weights: int, ridge: float
) -> tuple[float, float, np.ndarray]:
    """(b0, b1, w [K]) of logit(q) = z + b0 + b1 * z + w . x, with the least cross-entropy + ridge / 2 * |w|^2, slope 1 + b1 within bounds.

    Bins as of `fit_platt`; `places` int [N, F]: which of the K weights each feature of a bin has, K for none. Only w has a penalty, so a fit
    whose segments say nothing is two-parameter Platt, and the sum of probabilities is that of the positives. Since all values of a feature
    together say what b0 says, it is the ridge that makes w unique. It is in positives, or rather rows x p (1 - p), which they nearly are where
    p is small: a value with `ridge` of them has a weight about half as far from 0 as its own rows would have it.
    """
    z, y, n = (np.asarray(values, np.float64) for values in (log_odds, positives, rows))
    if not 0 < y.sum() < n.sum():
        raise ValueError(f"{y.sum():g} positives in {n.sum():g} rows; Platt scaling needs rows of both classes")
    center = (n * z).sum() / n.sum()
    spread = np.sqrt((n * (z - center) ** 2).sum() / n.sum())
    # Where all rows have one log-odds, only their level can be learned.
    x = (z - center) / spread if spread > 1e-9 else np.zeros_like(z)

    def fitted(fixed_slope: float | None) -> tuple[float, float, np.ndarray]:
        numbers = np.stack([np.ones_like(x), x], axis=1)[:, : 2 if fixed_slope is None else 1]
        beta = newton(Design(numbers, places, weights), y, n, np.zeros_like(x) if fixed_slope is None else fixed_slope * x, ridge)
        return float(beta[0]), float(beta[1] if fixed_slope is None else fixed_slope), beta[numbers.shape[1] :]

    intercept, slope, w = fitted(None if spread > 1e-9 else 0.0)
    scale = slope / spread if spread > 1e-9 else 1.0
    if not LEAST_SLOPE <= scale <= LARGEST_SLOPE:
        scale = min(max(scale, LEAST_SLOPE), LARGEST_SLOPE)
        intercept, _, w = fitted(
            scale * spread
        )  # the loss is convex, so its least point within the bounds lies on the one that was crossed
    return float(intercept - scale * center), float(scale - 1), w
