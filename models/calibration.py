"""Platt scaling per head and tower: what turns a model's log-odds into calibrated probabilities. Numpy only; JSON numbers, no pickle.

logit(q) = z + b0 + b1 * z + w . x, where z are the model's log-odds and x says which values the row has of a few columns, such as its
country. Fitted on traffic that this model scored and did not train on. A child head is calibrated given its parent, so its
product never exceeds the parent's probability. Without `w` it is two-parameter Platt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Literal, Protocol

import numpy as np

from conf.segments import code_column, feature_and_value, weight_key
from models.errors import ColumnsWrong
from models.metrics import sigmoid
from models.platt import NO_PRIOR, Prior, fit_featured, spread_of_values

LEAST_PROBABILITY = 1e-7
LARGEST_RIDGE = 1e6  # positives: a weight that is as good as none


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
    """What a featured fit may give weights to. `values`: feature -> the values that the codes of its bins count; `ridge`: see `fit_featured`, None
    where each fit estimates its own for each feature (`spread_of_values`)."""

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


@dataclass(frozen=True)
class FitRows:
    """Bins of one head, in one tower or in all: float64 [N] each, and `places` int [N, F] (Segments.places)."""

    log_odds: np.ndarray
    positives: np.ndarray
    rows: np.ndarray
    places: np.ndarray

    @staticmethod
    def of(bins: Sequence[Bin], segments: Segments) -> FitRows:
        z_sum, rows, positives = (np.array([getattr(one, name) for one in bins], np.float64) for name in ("z_sum", "rows", "positives"))
        codes = {feature: np.array([getattr(one, code_column(feature)) for one in bins], np.int64) for feature in segments.values}
        return FitRows(z_sum / rows, positives, rows, segments.places(codes, len(bins)))

    @property
    def counts(self) -> tuple[int, int]:
        """Positives and rows."""
        return round(self.positives.sum()), round(self.rows.sum())

    def platt(self, prior: Prior) -> tuple[float, float]:
        """(b0, b1) without segments."""
        nowhere = np.empty((len(self.rows), 0), np.int64)
        return fit_featured(self.log_odds, self.positives, self.rows, nowhere, 0, ridge=0, prior=prior)[:2]


def fit_calibrator(
    bins: Iterable[Bin],
    heads: Sequence[str],
    towers: Sequence[str],
    min_positives: int,
    segments: Segments = NO_SEGMENTS,
    pooling: float = 0,
) -> Calibrator:
    """A cell per head and tower: Platt, featured with `segments`, or the identity with its reason: too few fit rows, or those of one class.

    With `pooling` no cell has too few: the fit of a head in all towers together is drawn to the identity, that of a cell to its head's, and a
    segment's to its cell's, the first two with `pooling` positives (Prior.strength), the last with `segments.ridge`.
    """
    grouped: dict[tuple[str, str], list[Bin]] = {}
    for one in bins:
        grouped.setdefault((one.head, one.tower), []).append(one)
    cells: dict[str, dict[str, Cell]] = {}
    for head in heads:
        of_towers = {tower: FitRows.of(grouped.get((head, tower), []), segments) for tower in towers}
        if pooling:
            cells[head] = pooled_cells(of_towers, segments, pooling)
        else:
            cells[head] = {tower: lone_cell(rows, min_positives, segments) for tower, rows in of_towers.items()}
    return Calibrator(tuple(heads), cells)


def lone_cell(fit: FitRows, min_positives: int, segments: Segments = NO_SEGMENTS) -> Cell:
    """From its own rows alone."""
    positives, rows = fit.counts
    counted = partial(Cell, "identity", positives=positives, rows=rows)
    if positives < min_positives:
        return counted(reason=f"{positives:g} positives, fewer than calibration.min_positives {min_positives}")
    if positives >= rows:
        return counted(reason="no negatives among the fit rows")
    return _fitted(fit, segments, NO_PRIOR, "enough positives")


def pooled_cells(of_towers: Mapping[str, FitRows], segments: Segments, pooling: float) -> dict[str, Cell]:
    """Of one head by tower, each drawn to what the head's rows say together."""
    some = [fit for fit in of_towers.values() if len(fit.rows)]
    if not some:
        return {tower: Cell("identity", reason="no fit rows") for tower in of_towers}
    together = FitRows(*(np.concatenate([getattr(fit, one.name) for fit in some]) for one in fields(FitRows)))
    head = Prior(*together.platt(Prior(strength=pooling)), pooling)
    no_rows = Cell("platt", head.b0, head.b1, reason="no fit rows of its own: the parameters of its head")
    return {
        tower: _fitted(fit, segments, head, f"drawn to its head's by {pooling:g} positives") if len(fit.rows) else no_rows
        for tower, fit in of_towers.items()
    }


def _fitted(fit: FitRows, segments: Segments, prior: Prior, reason: str) -> Cell:
    (positives, rows), keys = fit.counts, segments.keys
    ridge = _own_ridge(fit, segments, prior) if segments.ridge is None else segments.ridge
    b0, b1, weights = fit_featured(fit.log_odds, fit.positives, fit.rows, fit.places, len(keys), ridge, prior)
    w = {keys[place]: float(weights[place]) for place in np.unique(fit.places) if place < len(keys)}
    return Cell("featured" if w else "platt", b0, b1, w, positives, rows, reason)


def _own_ridge(fit: FitRows, segments: Segments, prior: Prior) -> np.ndarray:
    """float64 [K]: the ridge of each weight, by how far its feature's values lie apart beyond chance once two parameters are fitted."""
    b0, b1 = fit.platt(prior)
    calibrated, found, first = fit.log_odds * (1 + b1) + b0, [], 0
    for column, values in enumerate(segments.values.values()):
        code = np.where(fit.places[:, column] < len(segments.keys), fit.places[:, column] - first, len(values))
        spread = spread_of_values(calibrated, fit.positives, fit.rows, code, len(values))
        found += [1 / max(spread, 1 / LARGEST_RIDGE)] * len(values)
        first += len(values)
    return np.array(found)
