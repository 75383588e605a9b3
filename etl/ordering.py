"""The place of every row in a total order, without moving all rows to one task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

# Several ranges a shuffle partition, so that hashing them onto partitions comes out even; bounded, as the cuts are all in the plan.
RANGES_A_PARTITION = 4
MOST_RANGES = 256


def with_global_index(frame: DataFrame, key: str, tie: str, *, descending: bool = False, name: str = "index") -> tuple[DataFrame, int]:
    """Add `name` (long, 0-based): the row's place in the order of `key`, then of `tie` (ascending). Also gives the number of rows.

    `key` is a number and `tie` is unique, so the order is total: the same rows get the same places however they are partitioned. Rows
    are cut into ranges of `key` that hold about equally many, counted a range, and numbered within their range; a range starts where
    those before it end. Rows of one `key` share a range, so some task holds all rows of the most frequent key.

    `frame` is read three times (cuts, counts, result), the first two only in the columns that `key` needs. A frame that is dear to
    compute, or whose `key` may differ when computed again, must be checkpointed by the caller.
    """
    partitions = int(frame.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    ranges = min(partitions * RANGES_A_PARTITION, MOST_RANGES)
    shares = [place / ranges for place in range(1, ranges)]
    found = frame.agg(F.percentile_approx(key, shares, 1000).alias("cuts")).first()
    cuts = sorted(set(found["cuts"] or ())) if found else []

    in_range = f"__range_of_{name}"
    ranged = frame.withColumn(in_range, cuts_below(F.col(key), cuts))
    counted = {row[in_range]: row["count"] for row in ranged.groupBy(in_range).count().collect()}

    order = range(len(cuts), -1, -1) if descending else range(len(cuts) + 1)
    sizes = [counted.get(place, 0) for place in order]
    starts = dict(zip(order, accumulate(sizes, initial=0), strict=False))
    start = F.get(F.lit([starts[place] for place in sorted(starts)]).cast("array<bigint>"), F.col(in_range))
    within = Window.partitionBy(in_range).orderBy(F.desc(key) if descending else F.asc(key), F.asc(tie))
    return ranged.withColumn(name, start + F.row_number().over(within) - 1).drop(in_range), sum(sizes)


def cuts_below(value: Column, cuts: Sequence[Any], below: int = 0) -> Column:
    """How many of the ascending `cuts` are less than `value`, by halving; plain comparisons, as a lambda over the cuts is not compiled."""
    if not cuts:
        return F.lit(below)
    middle = len(cuts) // 2
    more = cuts_below(value, cuts[middle + 1 :], below + middle + 1)
    return F.when(value > F.lit(cuts[middle]), more).otherwise(cuts_below(value, cuts[:middle], below))
