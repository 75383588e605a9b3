"""What a model gave to past days, counted small enough for the driver: what a backtest fits and judges calibrators on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import DataFrame

from conf.schema import Head
from conf.segments import code_column
from etl.calibration_stats import GROUPS, binned, segmented

BY = ("day", "tower")
MOST_VALUES = 64


def traffic_bins(served: DataFrame, heads: Mapping[str, Head], features: Sequence[str], days: int, truth: bool) -> pd.DataFrame:
    """Rows of `served` by head, day, tower, the features' values (strings, missing where not among the MOST_VALUES most frequent) and bin of
    log-odds: z_sum, rows, positives, with `truth` expected (etl/calibration_stats.py).

    At most GROUPS rows a day, by wider bins where there would be more.
    """
    if not features:
        return binned(served, heads, BY, truth=truth)
    frame, values = segmented(served, heads, features, MOST_VALUES, by=BY, groups=GROUPS * days, truth=truth)
    for feature in features:
        codes = frame.pop(code_column(feature))
        frame[feature] = codes.map(dict(enumerate(values[feature])))
    return frame
