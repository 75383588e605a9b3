"""Platt scaling per head and tower: what turns a model's log-odds into calibrated probabilities. Numpy only; JSON numbers, no pickle.

logit(q) = z + b0 + b1 * z + w . x, where z are the model's log-odds. Fitted on traffic that this model scored and did not train on. A child
head is calibrated given its parent, so its product never exceeds the parent's probability. `w` is empty: two-parameter Platt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np

from models.metrics import sigmoid

LEAST_SLOPE, LARGEST_SLOPE = 0.05, 20.0  # of 1 + b1: a calibrator keeps the order of scores, and separable rows do not make it a step
LEAST_PROBABILITY = 1e-7


class Bin(Protocol):
    """Fit rows of one head and tower with nearly the same log-odds (etl/calibration_stats.py); of a child head, rows with parent 1."""

    head: str
    tower: str
    z_sum: float  # sum of log-odds
    rows: float
    positives: float


@dataclass(frozen=True)
class Cell:
    """One head in one tower. `rows`, `positives`: of the fit; `reason`: in words, why this method."""

    method: Literal["identity", "platt"]
    b0: float = 0.0
    b1: float = 0.0
    w: dict[str, float] = field(default_factory=dict)
    positives: int = 0
    rows: int = 0
    reason: str = ""

    def calibrated(self, log_odds: np.ndarray) -> np.ndarray:
        """Log-odds of this head and tower, after calibration."""
        return log_odds * (1 + self.b1) + self.b0


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

    def calibrated_log_odds(self, log_odds_NH: np.ndarray, tower_N: np.ndarray, towers: Sequence[str]) -> np.ndarray:
        """float64 [N, H] conditional log-odds, after calibration. `tower_N`: int, place in `towers`, -1 for none; columns as in `heads`."""
        known = [[self.cells[head].get(tower, IDENTITY) for head in self.heads] for tower in towers]
        cells = [*known, [IDENTITY] * len(self.heads)]  # -1 is the last row
        b0, b1 = (np.array([[getattr(cell, name) for cell in row] for row in cells]) for name in ("b0", "b1"))
        return log_odds_NH * (1 + b1[tower_N]) + b0[tower_N]


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


def fit_calibrator(bins: Iterable[Bin], heads: Sequence[str], towers: Sequence[str], min_positives: int) -> Calibrator:
    """A cell per head and tower: Platt, or the identity with its reason where the fit rows are too few or of one class."""
    grouped: dict[tuple[str, str], list[Bin]] = {}
    for one in bins:
        grouped.setdefault((one.head, one.tower), []).append(one)
    return Calibrator(
        tuple(heads), {head: {tower: _fit_cell(grouped.get((head, tower), []), min_positives) for tower in towers} for head in heads}
    )


def _fit_cell(bins: Sequence[Bin], min_positives: int) -> Cell:
    rows = np.array([one.rows for one in bins], np.float64)
    positives = np.array([one.positives for one in bins], np.float64)
    counted = partial(Cell, positives=round(positives.sum()), rows=round(rows.sum()))
    if positives.sum() < min_positives:
        return counted("identity", reason=f"{positives.sum():g} positives, fewer than calibration.min_positives {min_positives}")
    if positives.sum() >= rows.sum():
        return counted("identity", reason="no negatives among the fit rows")
    b0, b1 = fit_platt(np.array([one.z_sum for one in bins], np.float64) / rows, positives, rows)
    return counted("platt", b0, b1, reason="enough positives")


def fit_platt(log_odds: np.ndarray, positives: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """(b0, b1) of logit(q) = z + b0 + b1 * z with the largest likelihood (Platt, 1999), slope 1 + b1 within bounds.

    Bins [N]: mean log-odds, weighted positives (may be fractional), weighted rows. Needs both classes. No penalty.
    """
    z, y, n = (np.asarray(values, np.float64) for values in (log_odds, positives, rows))
    if not 0 < y.sum() < n.sum():
        raise ValueError(f"{y.sum():g} positives in {n.sum():g} rows; Platt scaling needs rows of both classes")
    center = (n * z).sum() / n.sum()
    spread = np.sqrt((n * (z - center) ** 2).sum() / n.sum())
    # Where all rows have one log-odds, only their level can be learned.
    x = (z - center) / spread if spread > 1e-9 else np.zeros_like(z)
    intercept, slope = _newton(x, y, n, fixed_slope=None if spread > 1e-9 else 0.0)
    scale = slope / spread if spread > 1e-9 else 1.0
    if not LEAST_SLOPE <= scale <= LARGEST_SLOPE:
        scale = min(max(scale, LEAST_SLOPE), LARGEST_SLOPE)
        intercept, _ = _newton(x, y, n, fixed_slope=scale * spread)
    return float(intercept - scale * center), float(scale - 1)


def _newton(x: np.ndarray, y: np.ndarray, n: np.ndarray, fixed_slope: float | None) -> tuple[float, float]:
    """(intercept, slope) of logit = intercept + slope * x by Newton's method, each step halved until the loss falls."""
    design = np.stack([np.ones_like(x), x], axis=1)[:, : 2 if fixed_slope is None else 1]
    offset = np.zeros_like(x) if fixed_slope is None else fixed_slope * x
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(y.sum() / (n.sum() - y.sum()))

    def loss(candidate: np.ndarray) -> float:
        logit = design @ candidate + offset
        return float((n * np.logaddexp(0, logit) - y * logit).sum())

    now = loss(beta)
    for _ in range(100):
        p = sigmoid(design @ beta + offset)
        gradient = design.T @ (n * p - y)
        curvature = (design * (n * p * (1 - p))[:, None]).T @ design + 1e-12 * n.sum() * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        while (then := loss(beta - step)) > now and np.abs(step).max() > 1e-12:
            step = step / 2
        if then > now:
            break
        beta, now = beta - step, then
        if np.abs(step).max() < 1e-10 or np.abs(beta).max() > 1e3:
            break
    return float(beta[0]), float(beta[1] if fixed_slope is None else fixed_slope)
