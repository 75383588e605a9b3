"""Made-up traffic for tests of backtests: what a model said, what is true and what happened, by day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd

from models.metrics import sigmoid

FIRST = date(2026, 5, 1)


def on(number: int) -> date:
    """Day of the traffic, counted from 1."""
    return FIRST + timedelta(days=number - 1)


def traffic(shifts: Sequence[float], rows: int = 5_000, us: float = 0.0, tower: str = "feed", seed: int = 1) -> pd.DataFrame:
    """A day for each of `shifts`: bins of one row with log-odds z, whose truth is z + shift, and `us` more in the country US; head click."""
    draw = np.random.default_rng(seed)
    days = []
    for number, shift in enumerate(shifts, 1):
        z, country = draw.normal(-2, 1, rows), draw.choice(["DE", "US"], rows)
        true = sigmoid(z + shift + us * (country == "US"))
        positives = (draw.random(rows) < true).astype(int)
        columns = {"z_sum": z, "rows": 1, "positives": positives, "expected": true, "country": country}
        days.append(pd.DataFrame({"head": "click", "day": on(number), "tower": tower, "bin": np.floor(z / 0.001), **columns}))
    return pd.concat(days, ignore_index=True)
