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


def lines(rows: pd.DataFrame, unit: str, kind: str = "measured") -> list[Line]:
    """`rows` as models/walk_forward.py makes them, of one regime and of the cells to be judged; one line a method, in their order."""
    rows = rows[(rows["kind"] == kind) & (rows["positives"] > 0)]
    keys = [*dict.fromkeys([unit, "day"]), "head", "tower"]
    wide = rows.assign(loss=rows["log_loss"] * rows["rows"]).set_index([*keys, "method"])
    values = {name: wide[name].unstack("method") for name in ("error_observed", "error_true", "segments_observed", "segments_true", "loss")}
    units = pd.factorize(values["error_observed"].index.get_level_values(unit))[0]
    true = bool(values["error_true"].notna().to_numpy().any())

    def estimate(name: str, method: str, against: str | None, of: Callable[[float, float], float]) -> Estimate:
        return bootstrap(units, values[name][method].to_numpy(), values[name][against or method].to_numpy(), of)

    def mean(name: str, method: str) -> Estimate:
        return estimate(name, method, None, lambda one, _: one)

    def removed(name: str, method: str) -> Estimate:
        return estimate(name, method, RAW, lambda one, raw: 1 - one / raw if raw else 0.0)

    found = []
    for method in dict.fromkeys(rows["method"]):
        has_loss = values["loss"][method].notna().all()
        found.append(
            Line(
                str(method),
                len(units),
                mean("error_observed", method),
                removed("error_observed", method),
                mean("segments_observed", method),
                estimate("loss", method, RAW, lambda one, raw: one / raw - 1) if has_loss else None,
                mean("error_true", method) if true else None,
                estimate("error_true", method, ORACLE, lambda one, oracle: one - oracle) if true else None,
                removed("error_true", method) if true else None,
                mean("segments_true", method) if true else None,
            )
        )
    return found


def bootstrap(units: np.ndarray, one: np.ndarray, other: np.ndarray, of: Callable[[float, float], float]) -> Estimate:
    """`of` the means of two columns [N], and its 95% interval when units (int [N], from 0) are drawn again with all their rows."""
    count = int(units.max()) + 1
    sums = np.stack([np.bincount(units, column, count) for column in (one, other)], axis=1)
    rows = np.bincount(units, minlength=count)
    draws = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), DRAWS)
    means = draws @ sums / (draws @ rows)[:, None]
    spread = [of(*pair) for pair in means]
    return of(*(sums.sum(axis=0) / len(units))), float(np.percentile(spread, 2.5)), float(np.percentile(spread, 97.5))


def noise(positives: pd.Series) -> float:
    """The mean |n / m - 1| to expect of Poisson counts n with means m like `positives`, by the normal limit: what no prediction gets below."""
    seen = positives[positives > 0].to_numpy(dtype=float)
    return float(np.sqrt(2 / (np.pi * seen)).mean()) if len(seen) else 0.0
