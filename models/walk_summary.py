"""What a backtest's rows say of each method: means over days and cells, each with an interval over days, or over worlds.

A unit is what is drawn again for an interval: a day of one walk, or a whole replicate of a simulated world, since cells of a day share its drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.methods import ORACLE, RAW

DRAWS = 2000
#: A mean and its 95% interval (bootstrap over units).
Estimate = tuple[float, float, float]
#: Of the means of two columns, each [D], what is to be known of them [D].
Of = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Line:
    """One method of one regime. Errors are |predicted / what was there - 1|, means over days and cells.

    `beyond`: error_true above the oracle's. `removed`: share of the raw model's error that is gone. `relative_loss`: log-loss over the raw
    model's, minus 1, of all rows together. Against the truth None without one.
    """

    method: str
    cells: int  # cell x day
    error_observed: Estimate
    removed_observed: Estimate
    segments_observed: Estimate
    relative_loss: Estimate | None  # none of oracle and truth where no log-odds are known
    error_true: Estimate | None
    beyond: Estimate | None
    removed_true: Estimate | None
    segments_true: Estimate | None


class Cells:
    """Rows as models/walk_forward.py makes them, of the cells to be judged, laid side by side by method. `unit`: a column, see above."""

    def __init__(self, rows: pd.DataFrame, unit: str, kind: str = "measured") -> None:
        rows = rows[(rows["kind"] == kind) & (rows["positives"] > 0)]
        keys = [*dict.fromkeys([unit, "day"]), "head", "tower"]
        wide = rows.assign(loss=rows["log_loss"] * rows["rows"]).set_index([*keys, "method"])
        columns = ("error_observed", "error_true", "segments_observed", "segments_true", "loss")
        self.values = {name: wide[name].unstack("method") for name in columns}
        self.units = pd.factorize(self.values["loss"].index.get_level_values(unit))[0]
        self.methods = list(dict.fromkeys(rows["method"]))

    def known(self, column: str, method: str) -> bool:
        return bool(self.values[column][method].notna().all())

    def mean(self, column: str, method: str) -> Estimate:
        return self.estimate(column, method, method, lambda one, _: one)

    def removed(self, column: str, method: str, against: str = RAW) -> Estimate:
        """Share of the other method's mean that is gone."""
        return self.estimate(column, method, against, _gone)

    def more(self, column: str, method: str, against: str) -> Estimate:
        """Difference of means."""
        return self.estimate(column, method, against, lambda one, other: one - other)

    def more_loss(self, method: str, against: str = RAW) -> Estimate:
        """Log-loss over the other method's, minus 1, of all rows together."""
        return self.estimate("loss", method, against, lambda one, other: one / other - 1)

    def estimate(self, column: str, method: str, against: str, of: Of) -> Estimate:
        values = self.values[column]
        return bootstrap(self.units, values[method].to_numpy(np.float64), values[against].to_numpy(np.float64), of)


def lines(rows: pd.DataFrame, unit: str, kind: str = "measured") -> list[Line]:
    """`rows` of one regime; one line a method, in their order."""
    cells = Cells(rows, unit, kind)
    true = cells.known("error_true", RAW)
    return [
        Line(
            method,
            len(cells.units),
            cells.mean("error_observed", method),
            cells.removed("error_observed", method),
            cells.mean("segments_observed", method),
            cells.more_loss(method) if cells.known("loss", method) else None,
            cells.mean("error_true", method) if true else None,
            cells.more("error_true", method, ORACLE) if true else None,
            cells.removed("error_true", method) if true else None,
            cells.mean("segments_true", method) if true else None,
        )
        for method in cells.methods
    ]


def bootstrap(units: np.ndarray, one: np.ndarray, other: np.ndarray, of: Of) -> Estimate:
    """`of` the means of two columns [N], and its 95% interval when units (int [N], from 0) are drawn again with all their rows."""
    count = int(units.max()) + 1
    sums = np.stack([np.bincount(units, column, count) for column in (one, other)], axis=1)
    rows = np.bincount(units, minlength=count)
    draws = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), DRAWS)
    drawn = np.vstack([np.ones(count, np.int64), draws])  # the first is what was seen
    seen, *spread = of(*(drawn @ sums / (drawn @ rows)[:, None]).T)
    return float(seen), float(np.percentile(spread, 2.5)), float(np.percentile(spread, 97.5))


def _gone(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return 1 - np.divide(one, other, out=np.ones_like(one), where=other != 0)


def noise(positives: pd.Series) -> float:
    """The mean |n / m - 1| to expect of Poisson counts n with means m like `positives`, by the normal limit: what no prediction gets below."""
    seen = positives[positives > 0].to_numpy(dtype=float)
    return float(np.sqrt(2 / (np.pi * seen)).mean()) if len(seen) else 0.0
