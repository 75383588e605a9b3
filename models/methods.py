"""The ways to calibrate that a backtest lays side by side. Shapes: N bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from models.calibration import NO_SEGMENTS, Cell, Segments
from models.calibration_fit import fit_cells
from models.isotonic import fit_isotonic
from models.traffic import CellBins, Traffic

RAW, ORACLE, NOISE, CHOSEN = "raw", "oracle", "noise floor", "chosen"


@dataclass(frozen=True)
class Method:
    """`windows`: how many the fit looks back; `half_life`: windows after which a row counts half, None for never; `pooling`: Prior.strength;
    `own_ridge`: of a featured method, each fit estimates its ridge, one for all heads and towers."""

    name: str
    kind: Literal["raw", "platt", "isotonic", "featured"]
    windows: int = 1
    half_life: float | None = None
    pooling: float = 0
    own_ridge: bool = False


def methods(pooling: float, featured: bool) -> list[Method]:
    """From the simplest to the one with the most to fit."""
    plain = [
        Method(RAW, "raw"),
        Method("platt", "platt"),
        Method("platt of 3", "platt", windows=3),
        Method("platt of 7", "platt", windows=7),
        Method("platt of 7, half-life 2", "platt", windows=7, half_life=2),
        Method("pooled", "platt", pooling=pooling),
        Method("pooled of 3", "platt", windows=3, pooling=pooling),
        Method("pooled of 7", "platt", windows=7, pooling=pooling),
        Method("isotonic", "isotonic"),
    ]
    if not featured:
        return plain
    return [
        *plain,
        Method("featured", "featured", pooling=pooling),
        Method("featured of 3", "featured", windows=3, pooling=pooling),
        Method("featured of 7, half-life 2", "featured", windows=7, half_life=2, pooling=pooling),
        Method("own ridge", "featured", pooling=pooling, own_ridge=True),
        Method("own ridge of 3", "featured", windows=3, pooling=pooling, own_ridge=True),
        Method("own ridge of 7", "featured", windows=7, pooling=pooling, own_ridge=True),
        Method("own ridge of 7, half-life 2", "featured", windows=7, half_life=2, pooling=pooling, own_ridge=True),
    ]


#: Calibrated log-odds [N] of bins [N].
Curve = Callable[[CellBins], np.ndarray]


def fitted(method: Method, model: Traffic, segments: Segments, window_days: int) -> dict[str, dict[str, Curve]]:
    """What the method does to bins, by head and tower, once fitted on `model`, its fit days; a tower without both classes stays as it is, unless
    pooled. `segments` are those of a featured method."""
    if method.kind == "raw":
        return {head: dict.fromkeys(of_towers, _as_it_is) for head, of_towers in model.items()}
    if method.kind == "isotonic":
        return {head: {tower: _isotonic(bins) for tower, bins in of_towers.items()} for head, of_towers in model.items()}
    used = segments if method.kind == "featured" else NO_SEGMENTS
    used = Segments(used.values, None) if method.own_ridge else used
    half_life = method.half_life and method.half_life * window_days
    rows = {head: {tower: bins.fit_rows(used, half_life) for tower, bins in of_towers.items()} for head, of_towers in model.items()}
    cells = fit_cells(rows, 1, used, method.pooling)
    return {head: {tower: partial(_by_cell, cell, used) for tower, cell in of_towers.items()} for head, of_towers in cells.items()}


def _as_it_is(bins: CellBins) -> np.ndarray:
    return bins.log_odds


def _isotonic(fit: CellBins) -> Curve:
    if not fit.positives.sum():
        return _as_it_is
    knots = fit_isotonic(fit.log_odds, fit.positives, fit.rows)
    return lambda bins: knots.log_odds(bins.log_odds)


def _by_cell(cell: Cell, segments: Segments, bins: CellBins) -> np.ndarray:
    weights = np.array([*(cell.w.get(key, 0.0) for key in segments.keys), 0.0])
    return bins.log_odds * (1 + cell.b1) + cell.b0 + weights[segments.places(bins.codes, len(bins.rows))].sum(axis=1)
