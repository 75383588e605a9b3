"""How calibration changes the order of utility: heads are added up, so a head that was too high outweighed the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.schema import Head
from etl.ordering import with_global_index
from etl.utility import utility

TOP_SHARE = 0.01


class OrderChange(NamedTuple):
    """Of one day's scores. Both are 1 where one head in one tower has all the weight: its calibrator keeps the order."""

    rank_correlation: float | None  # Spearman's, of the ranks by raw and by calibrated utility; None of fewer than two rows
    top_kept: float  # of the rows in the top 1% by calibrated utility, the share that stands there by raw utility too
    top_rows: int


def order_change(scores: DataFrame, heads: Mapping[str, Head]) -> OrderChange:
    """`scores`: rows of one day by one model, at least one."""
    raw = F.expr(utility(heads, "_raw"))
    by_raw, rows = with_global_index(scores.select("inventory_id", "rank", raw.alias("raw")), "raw", "inventory_id", descending=True)
    top = math.ceil(rows * TOP_SHARE)
    kept = F.count_if((F.col("rank") <= top) & (F.col("index") < top))
    found = by_raw.agg(F.corr("rank", "index").alias("correlation"), kept.alias("kept")).first()
    assert found is not None
    return OrderChange(found["correlation"], found["kept"] / top, top)
