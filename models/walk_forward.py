"""A backtest's arithmetic: every method of models/methods.py fitted on days before a day, and what it would have said on that day.

A method's calibrators never see the day they are judged on. `oracle` is Platt scaling of the same fit rows with true probabilities for labels:
what is left of its error is drift, which no calibrator can know. `noise floor` are the true probabilities; their error against labels is the noise that
every method has. `chosen` is what a person would have run who goes by earlier days alone (Chooser).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from models.calibration import Segments
from models.methods import CHOSEN, NOISE, ORACLE, Curve, Method, fitted
from models.metrics import sigmoid
from models.traffic import CellBins, Traffic

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """`measured`: first and last of the days on which methods are judged, M where a window is a day; `scored`: those on which a night that ends
    with them would have its scores used, None where their labels are not there."""

    measured: tuple[date, date]
    scored: tuple[date, date] | None
    trained_to: date

    @property
    def days(self) -> int:
        return (self.measured[1] - self.measured[0]).days + 1

    @property
    def fit_to(self) -> date:
        return self.measured[0] - ONE_DAY

    def fit_from(self, windows: int) -> date:
        """First fit day that many windows back, of those after the model's training end."""
        return max(self.trained_to + ONE_DAY, self.measured[0] - windows * self.days * ONE_DAY)


class Chooser:
    """The method that predicted earlier days best, one for all heads and towers: a change needs a paired difference of log-loss whose 95% interval
    excludes 0, summed over all earlier windows. It begins with the model as it is, so that wins ties. Rows count as independent of each other."""

    def __init__(self, methods: int) -> None:
        self.now, self.rows = 0, 0.0
        self.loss, self.products = np.zeros(methods), np.zeros((methods, methods))

    def learn(self, bins: CellBins, log_odds: np.ndarray) -> None:
        """`log_odds` [methods, N] on days that are over."""
        for label, weight in ((1, bins.positives), (0, bins.rows - bins.positives)):
            loss = np.logaddexp(0, log_odds) - label * log_odds
            self.loss += loss @ weight
            self.products += (loss * weight) @ loss.T
        self.rows += bins.rows.sum()

    def choose(self) -> int:
        """Place of the method to go on with."""
        best = int(np.argmin(self.loss))
        lower = self.loss[self.now] - self.loss[best]
        square = self.products[best, best] + self.products[self.now, self.now] - 2 * self.products[best, self.now]
        spread = np.sqrt(max(square - lower**2 / max(self.rows, 1.0), 0.0))
        if lower > NormalDist().inv_cdf(0.975) * spread:
            self.now = best
        return self.now


def walk(windows: Sequence[Window], traffic: Sequence[Traffic], tried: Sequence[Method], segments: Segments) -> Iterator[dict[str, Any]]:
    """One row a window, day kind (measured, scored), head, tower and method, as of etl.schemas.BACKTEST. `traffic`: of each window's model."""
    chooser = Chooser(len(tried))
    for window, model in zip(windows, traffic, strict=True):
        chosen, over = tried[chooser.choose()].name, []
        curves = {one.name: fit_of(one, window, model, segments) for one in tried}
        oracle = oracle_of(window, model)
        for head, of_towers in model.items():
            for tower, bins in of_towers.items():
                stamp = {"head": head, "tower": tower, "day": window.measured[0], "trained_to": window.trained_to}
                stamp["fit_positives"] = _positives(bins, window.fit_from(1), window.fit_to)
                own = {name: of_heads[head][tower] for name, of_heads in curves.items()}
                known = own | {CHOSEN: own[chosen]} | ({ORACLE: oracle[head][tower]} if oracle else {})
                for kind, days in (("measured", window.measured), ("scored", window.scored)):
                    on = bins.between(*(day.toordinal() for day in days)) if days else None
                    if on is None or not on.rows.sum():
                        continue
                    for row in judged(on, known):
                        yield {**stamp, "kind": kind, "chose": chosen if row["method"] == CHOSEN else None, **row}
                    if kind == "measured":
                        over.append((on, np.stack([curve(on) for curve in own.values()])))
        for seen in over:
            chooser.learn(*seen)


def fit_of(method: Method, window: Window, model: Traffic, segments: Segments) -> dict[str, dict[str, Curve]]:
    first, last = window.fit_from(method.windows).toordinal(), window.fit_to.toordinal()
    seen = {head: {tower: bins.between(first, last) for tower, bins in of_towers.items()} for head, of_towers in model.items()}
    return fitted(method, seen, segments, window.days)


def oracle_of(window: Window, model: Traffic) -> dict[str, dict[str, Curve]] | None:
    """None without truth."""
    if any(np.isnan(bins.expected).any() for of_towers in model.values() for bins in of_towers.values()):
        return None
    true = {head: {tower: replace(bins, positives=bins.expected) for tower, bins in of_towers.items()} for head, of_towers in model.items()}
    return fit_of(Method(ORACLE, "platt"), window, true, Segments({}, 0))


def judged(on: CellBins, curves: Mapping[str, Curve]) -> Iterator[dict[str, Any]]:
    """By method: sums over the bins, and errors, all as shares of what was there (of `positives`, of `expected`)."""
    positives, expected = float(on.positives.sum()), float(on.expected.sum())
    known = not np.isnan(expected)
    by_segment = partial(np.bincount, np.unique(on.segment, return_inverse=True)[1])
    seen, true = by_segment(on.positives), by_segment(on.expected)
    counted = {"rows": round(on.rows.sum()), "positives": round(positives), "expected": expected if known else None}

    def errors(predicted: float, of_segments: np.ndarray) -> dict[str, float | None]:
        return {
            "predicted": predicted,
            "error_observed": abs(predicted / positives - 1) if positives else None,
            "error_true": abs(predicted / expected - 1) if known else None,
            "segments_observed": float(np.abs(of_segments - seen).sum() / positives) if positives else None,
            "segments_true": float(np.abs(of_segments - true).sum() / expected) if known else None,
        }

    for name, curve in curves.items():
        z = curve(on)
        p = on.rows * sigmoid(z)
        loss = float((on.rows * np.logaddexp(0, z) - on.positives * z).sum() / on.rows.sum())
        yield {"method": name, **counted, **errors(float(p.sum()), by_segment(p)), "log_loss": loss}
    if known:
        yield {"method": NOISE, **counted, **errors(expected, true), "log_loss": None}


def _positives(bins: CellBins, first: date, last: date) -> int:
    return round(bins.between(first.toordinal(), last.toordinal()).positives.sum())
