"""Bins of the traffic that one model scored: what calibrators are fitted and judged on in a backtest. Shapes: N bins.

A bin is of one head, tower, day and segment (a combination of the features' values), of rows with nearly the same log-odds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from models.calibration import Segments
from models.calibration_fit import FitRows


@dataclass(frozen=True)
class CellBins:
    """Bins of one head in one tower, each array [N]; of a child head, rows with parent 1.

    `day`: ordinal; `log_odds`: mean of the model's; `expected`: sum of true probabilities, NaN where no truth is known; `codes`: feature -> the
    bin's value as its place in a sorted list; `segment`: the combination of values, as an int.
    """

    day: np.ndarray
    log_odds: np.ndarray
    rows: np.ndarray
    positives: np.ndarray
    expected: np.ndarray
    segment: np.ndarray
    codes: Mapping[str, np.ndarray]

    def between(self, first: int, last: int) -> CellBins:
        """Of these days."""
        return self.taken((self.day >= first) & (self.day <= last))

    def taken(self, of: np.ndarray) -> CellBins:
        """Some of the bins: by a mask [N], or by their places."""
        arrays = {one.name: getattr(self, one.name)[of] for one in fields(self) if one.name != "codes"}
        return CellBins(**arrays, codes={feature: codes[of] for feature, codes in self.codes.items()})

    def fit_rows(self, segments: Segments, half_life: float | None = None) -> FitRows:
        """`half_life` in days, counted back from the last day that has rows."""
        age = self.day.max(initial=0) - self.day
        weight = np.ones(len(self.rows)) if half_life is None else 0.5 ** (age / half_life)
        return FitRows(self.log_odds, self.positives * weight, self.rows * weight, segments.places(self.codes, len(self.rows)))


#: Bins of one model: head -> tower -> bins.
Traffic = Mapping[str, Mapping[str, CellBins]]


def traffic_of(frame: pd.DataFrame, values: Mapping[str, Sequence[str]]) -> Traffic:
    """`frame` as of etl/traffic.py; codes are places in `values`."""
    days = np.array([day.toordinal() for day in frame["day"]])
    codes = {feature: pd.Categorical(frame[feature], categories=list(of)).codes.astype(np.int64) for feature, of in values.items()}
    segment = np.zeros(len(frame), np.int64)
    for feature, of in values.items():
        segment = segment * (len(of) + 1) + codes[feature] + 1
    rows, positives = (frame[name].to_numpy(np.float64) for name in ("rows", "positives"))
    expected = frame["expected"].to_numpy(np.float64) if "expected" in frame else np.full(len(frame), np.nan)
    whole = CellBins(days, frame["z_sum"].to_numpy(np.float64) / rows, rows, positives, expected, segment, codes)
    found: dict[str, dict[str, CellBins]] = {}
    for head, tower in dict.fromkeys(zip(frame["head"], frame["tower"], strict=True)):
        of = (frame["head"] == head) & (frame["tower"] == tower)
        found.setdefault(head, {})[tower] = whole.taken(of.to_numpy())
    return found


def values_of(frames: Iterable[pd.DataFrame], features: Sequence[str]) -> dict[str, list[str]]:
    """Feature -> its values in any of the frames, sorted."""
    held = list(frames)
    return {feature: sorted({value for frame in held for value in frame[feature].dropna()}) for feature in features}
