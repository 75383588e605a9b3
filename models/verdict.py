"""Whether a candidate may take production's place: both on the same held-out rows, differences with intervals over users. Numpy only.

A relative rise of log-loss on the same rows is the relative rise of normalised entropy, since the entropy of the base rate cancels. Cells
are heads in towers. One that is shown to be worse refuses the candidate; whether the whole is good enough to publish is asked once, of all
cells together, so that a rare head whose interval is always wide cannot hold back every model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd

from conf.gates import Publication
from models.metrics import Bins, auc

Verdict = Literal["publish", "refuse", "too little"]
SHIFT_GROUPS = 10  # of production's predictions, about equally many rows each, for the population stability index
TOLD = 6  # reasons to refuse that are told in words
DIGITS = 6  # significant ones that are kept: sums in another order differ in their last bits


class Interval(NamedTuple):
    value: float
    low: float
    high: float

    @staticmethod
    def around(value: float, variance: float, z: float) -> Interval:
        half = z * math.sqrt(max(variance, 0.0))
        return Interval(*(_rounded(bound) for bound in (value, value - half, value + half)))


@dataclass(frozen=True)
class Cell:
    """One head in one tower, on calibrated predictions. Changes are the candidate's against production; without production they are None."""

    head: str
    tower: str
    rows: int
    positives: int
    users: int
    ratio: Interval | None = None  # the candidate's predicted over observed positives
    production_ratio: float | None = None
    ne_rise: Interval | None = None  # relative, of normalised entropy: .01 is 1% worse
    auc_change: Interval | None = None
    shift: float | None = None  # population stability index of the predictions
    refuses: tuple[str, ...] = ()  # in words, why this cell refuses the candidate


@dataclass(frozen=True)
class Decision:
    """The verdict, its reason in words, and the numbers: `cells` in the order of heads and towers, `whole` of all of them together."""

    verdict: Verdict
    reason: str
    cells: tuple[Cell, ...] = ()
    whole: Cell | None = None
    judged: int = 0  # cells with enough positives, for which the intervals are corrected

    def numbers(self) -> dict[str, Any]:
        return {"judged": self.judged, "whole": asdict(self.whole) if self.whole else None, "cells": [asdict(cell) for cell in self.cells]}


def influence(bins: pd.DataFrame) -> pd.DataFrame:
    """What a row adds to the error of its cell's AUC, by bin: DeLong's components (Biometrics 1988), of the row's own share.

    `bins`: head, tower, side, bin, z, rows, positives. Returns head, tower, side, bin, if_positive, if_negative; zeros without both classes.
    """
    parts = [part.assign(**_components(part)) for _, part in bins.groupby(["head", "tower", "side"], sort=False)]
    return pd.concat(parts, ignore_index=True)[["head", "tower", "side", "bin", "if_positive", "if_negative"]]


def _components(part: pd.DataFrame) -> dict[str, np.ndarray]:
    positives, negatives = part["positives"].to_numpy(), (part["rows"] - part["positives"]).to_numpy()
    all_positives, all_negatives = positives.sum(), negatives.sum()
    if not (all_positives and all_negatives):
        return {"if_positive": np.zeros(len(part)), "if_negative": np.zeros(len(part))}
    below = (np.cumsum(negatives) - negatives / 2) / all_negatives  # share of negatives that a positive here stands above
    above = 1 - (np.cumsum(positives) - positives / 2) / all_positives
    area = float((positives * below).sum() / all_positives)
    return {"if_positive": (below - area) / all_positives, "if_negative": (above - area) / all_negatives}


def judge(sums: pd.DataFrame, bins: pd.DataFrame, conf: Publication, *, first: bool = False) -> Decision:
    """The verdict on a candidate (side a) beside production (side b). `first`: there is no production to compare with.

    `sums`, `bins`: as etl/comparison.py makes them; the last row of `sums` is the whole. Refused: an interval lies wholly beyond its margin in
    some cell, or in the whole. Published: the whole's lies within the margin. Else the held-out day holds too little to tell.
    """
    *parts, total = cast(list[dict[str, Any]], sums.to_dict("records"))
    enough = [part for part in parts if conf.min_positives <= part["positives"] < part["rows"]]
    quantile = NormalDist().inv_cdf(1 - (1 - conf.confidence) / 2 / max(len(enough), 1))
    by_cell = {key: part for key, part in bins.groupby(["head", "tower"], sort=False)}
    names = {(part["head"], part["tower"]) for part in enough}
    cells = tuple(
        _cell(part, by_cell[part["head"], part["tower"]], conf, quantile, first, judged=(part["head"], part["tower"]) in names)
        for part in parts
    )
    whole = None if first else _whole(total, conf)
    refusals = [reason for cell in cells for reason in cell.refuses]
    found = Decision("publish", "", cells, whole, len(enough))
    return _decided(found, refusals, conf, first)


def _decided(found: Decision, refusals: Sequence[str], conf: Publication, first: bool) -> Decision:
    def so(verdict: Verdict, reason: str) -> Decision:
        return replace(found, verdict=verdict, reason=reason)

    judged = f"{found.judged} of {len(found.cells)} cells have {conf.min_positives} positives"
    if refusals:
        more = f"; and {len(refusals) - TOLD} more, cell by cell in the report" if len(refusals) > TOLD else ""
        return so("refuse", "; ".join(refusals[:TOLD]) + more)
    if first:
        return so("publish", f"{judged}, and none is out of calibration")
    assert found.whole is not None
    if found.whole.refuses:
        return so("refuse", found.whole.refuses[0])
    if not found.judged:
        return so("too little", f"no cell has {conf.min_positives} positives (publication.min_positives)")
    rise = found.whole.ne_rise
    assert rise is not None
    told = f"normalised entropy of all cells together {_percent(rise, conf)}, {conf.max_ne_rise:.1%} allowed"
    if rise.high <= conf.max_ne_rise:
        return so("publish", f"{told}; {judged}, and none is shown to be worse")
    return so("too little", f"{told} (publication.max_ne_rise): the held-out day cannot tell")


def _cell(part: Mapping[str, Any], bins: pd.DataFrame, conf: Publication, z: float, first: bool, judged: bool) -> Cell:
    label = f"{part['head']} in {part['tower']}"
    ratio, beside = (_ratio(part, side, z) for side in "ab")
    cell = Cell(part["head"], part["tower"], int(part["rows"]), int(part["positives"]), int(part["users"]), ratio)
    refuses = []
    further = first or ratio is None or beside is None or abs(math.log(ratio.value)) > abs(math.log(beside.value))
    if judged and ratio and further and not (ratio.low <= conf.max_ratio and ratio.high >= 1 / conf.max_ratio):
        told = "" if first or beside is None else f", production's is {beside.value:.2f}"
        refuses.append(
            f"{label}: predicted over observed is {ratio.value:.2f} after calibration ({_bounds(ratio, conf)}{told}), within {conf.max_ratio:g} "
            "times either way is allowed (publication.max_ratio)"
        )
    if first:
        return replace(cell, refuses=tuple(refuses))
    rise, change, shift = _ne_rise(part, z), _auc_change(part, bins, z), _shift(bins)
    if judged and rise.low > conf.max_ne_rise:
        refuses.append(f"{label}: normalised entropy {_percent(rise, conf)}, {conf.max_ne_rise:.1%} allowed (publication.max_ne_rise)")
    if judged and change and change.high < -conf.max_auc_fall:
        refuses.append(
            f"{label}: AUC {change.value:+.4f} against production ({_bounds(change, conf, '+.4f')}), {-conf.max_auc_fall:g} allowed "
            "(publication.max_auc_fall)"
        )
    if judged and shift > conf.max_shift:
        refuses.append(
            f"{label}: predictions are distributed otherwise than production's on the same rows, PSI {shift:.2f}, {conf.max_shift:g} allowed "
            "(publication.max_shift)"
        )
    seen = _rounded(beside.value) if beside else None
    return replace(cell, production_ratio=seen, ne_rise=rise, auc_change=change, shift=shift, refuses=tuple(refuses))


def _whole(total: Mapping[str, Any], conf: Publication) -> Cell:
    rise = _ne_rise(total, NormalDist().inv_cdf(0.5 + conf.confidence / 2))
    told = f"all cells together: normalised entropy {_percent(rise, conf)}, {conf.max_ne_rise:.1%} allowed (publication.max_ne_rise)"
    refuses = (told,) if rise.low > conf.max_ne_rise else ()
    return Cell(
        total["head"], total["tower"], int(total["rows"]), int(total["positives"]), int(total["users"]), ne_rise=rise, refuses=refuses
    )


def _ne_rise(part: Mapping[str, Any], z: float) -> Interval:
    a, b = part["sum_loss_a"], part["sum_loss_b"]
    share = a / b
    squares = part["sq_loss_a_loss_a"] - 2 * share * part["sq_loss_a_loss_b"] + share**2 * part["sq_loss_b_loss_b"]
    return Interval.around(share - 1, squares / b**2, z)


def _auc_change(part: Mapping[str, Any], bins: pd.DataFrame, z: float) -> Interval | None:
    areas = [
        auc(Bins.of(*(side[name].to_numpy() for name in ("z", "rows", "positives"))))
        for side in (bins[bins["side"] == name] for name in "ab")
    ]
    if areas[0] is None or areas[1] is None:
        return None
    return Interval.around(areas[0] - areas[1], part["sq_auc_auc"], z)


def _ratio(part: Mapping[str, Any], side: str, z: float) -> Interval | None:
    """On a logarithmic scale, where a ratio of 2 is as far off as one of 1/2."""
    observed, predicted = part["sum_label"], part[f"sum_p_{side}"]
    if not observed:
        return None
    ratio, name = predicted / observed, f"p_{side}"
    cross = part[f"sq_label_{name}"]
    squares = part[f"sq_{name}_{name}"] - 2 * ratio * cross + ratio**2 * part["sq_label_label"]
    half = z * math.sqrt(max(squares, 0.0)) / predicted
    return Interval(*(_rounded(ratio * math.exp(by)) for by in (0, -half, half)))


def _shift(bins: pd.DataFrame) -> float:
    """Population stability index of the candidate's predictions, in groups of production's that hold equally many rows."""
    a, b = (bins[bins["side"] == side] for side in "ab")
    middle = (np.cumsum(b["rows"]) - b["rows"] / 2).to_numpy() * SHIFT_GROUPS / b["rows"].sum()
    place_b = np.minimum(middle.astype(int), SHIFT_GROUPS - 1)
    edges = [b["z"].to_numpy()[place_b >= group].min() for group in np.unique(place_b)[1:]]
    groups = len(edges) + 1
    counts_a, counts_b = (np.bincount(np.searchsorted(edges, side["z"], side="right"), side["rows"], groups) for side in (a, b))
    share_a, share_b = ((counts + 0.5) / (counts.sum() + 0.5 * groups) for counts in (counts_a, counts_b))
    return _rounded(float(((share_a - share_b) * np.log(share_a / share_b)).sum()))


def _bounds(interval: Interval, conf: Publication, form: str = ".2f") -> str:
    return f"{conf.confidence:.0%} interval {interval.low:{form}} to {interval.high:{form}}"


def _percent(rise: Interval, conf: Publication) -> str:
    return f"{rise.value:+.2%} against production ({_bounds(rise, conf, '+.2%')})"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
