"""Calibrators fitted on traffic that their model scored and did not train on. Numpy only. Shapes: N bins, F features, K weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Protocol

import numpy as np

from conf.segments import code_column
from models.calibration import NO_SEGMENTS, Calibrator, Cell, Segments
from models.platt import NO_PRIOR, Prior, fit_featured, scatter_of_values, variance_of_values

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
    of_heads = {head: {tower: FitRows.of(grouped.get((head, tower), []), segments) for tower in towers} for head in heads}
    return Calibrator(tuple(heads), fit_cells(of_heads, min_positives, segments, pooling))


def fit_cells(
    of_heads: Mapping[str, Mapping[str, FitRows]], min_positives: int, segments: Segments = NO_SEGMENTS, pooling: float = 0
) -> dict[str, dict[str, Cell]]:
    """The cells of `fit_calibrator`, by head and tower, from their rows."""
    priors = {head: _head_prior(of_towers, pooling) if pooling else NO_PRIOR for head, of_towers in of_heads.items()}
    cells = {
        head: {tower: _two_parameters(fit, priors[head], min_positives) for tower, fit in of_towers.items()}
        for head, of_towers in of_heads.items()
    }
    fitted = [
        (head, tower)
        for head, of_towers in cells.items()
        for tower, cell in of_towers.items()
        if cell.method == "platt" and len(of_heads[head][tower].rows)
    ]
    if segments.values:
        known = [(of_heads[head][tower], cells[head][tower]) for head, tower in fitted]
        ridge = own_ridge(known, segments) if segments.ridge is None else segments.ridge
        for head, tower in fitted:
            cells[head][tower] = _with_weights(cells[head][tower], of_heads[head][tower], segments, ridge, priors[head] or NO_PRIOR)
    return cells


def _head_prior(of_towers: Mapping[str, FitRows], pooling: float) -> Prior | None:
    """What a head's rows say together, to which its cells are drawn; None without rows."""
    some = [fit for fit in of_towers.values() if len(fit.rows)]
    if not some:
        return None
    together = FitRows(*(np.concatenate([getattr(fit, one.name) for fit in some]) for one in fields(FitRows)))
    return Prior(*together.platt(Prior(strength=pooling)), pooling)


def _two_parameters(fit: FitRows, head: Prior | None, min_positives: int) -> Cell:
    positives, rows = fit.counts
    counted = partial(Cell, "identity", positives=positives, rows=rows)
    if head is None:
        return counted(reason="no fit rows")
    if head.strength and not len(fit.rows):
        return Cell("platt", head.b0, head.b1, reason="no fit rows of its own: the parameters of its head")
    if not head.strength and positives < min_positives:
        return counted(reason=f"{positives:g} positives, fewer than calibration.min_positives {min_positives}")
    if not head.strength and positives >= rows:
        return counted(reason="no negatives among the fit rows")
    why = f"drawn to its head's by {head.strength:g} positives" if head.strength else "enough positives"
    return Cell("platt", *fit.platt(head), positives=positives, rows=rows, reason=why)


def _with_weights(cell: Cell, fit: FitRows, segments: Segments, ridge: float | np.ndarray, prior: Prior) -> Cell:
    keys = segments.keys
    b0, b1, weights = fit_featured(fit.log_odds, fit.positives, fit.rows, fit.places, len(keys), ridge, prior)
    w = {keys[place]: float(weights[place]) for place in np.unique(fit.places) if place < len(keys)}
    return replace(cell, method="featured" if w else "platt", b0=b0, b1=b1, w=w)


def own_ridge(known: Sequence[tuple[FitRows, Cell]], segments: Segments) -> np.ndarray:
    """float64 [K]: the ridge of each weight, by how far its feature's values lie apart beyond chance about two parameters.

    One for all heads and towers, since a cell by itself has too few positives to tell that from chance.
    """
    found, first = list[float](), 0
    for column, values in enumerate(segments.values.values()):
        scatter = np.zeros(3)
        for fit, cell in known:
            code = np.where(fit.places[:, column] < len(segments.keys), fit.places[:, column] - first, len(values))
            calibrated = fit.log_odds * (1 + cell.b1) + cell.b0
            scatter += scatter_of_values(calibrated, fit.positives, fit.rows, code, len(values))
        found += [1 / max(variance_of_values(scatter), 1 / LARGEST_RIDGE)] * len(values)
        first += len(values)
    return np.array(found)
