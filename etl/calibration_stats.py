"""Spark's side of calibrator fitting and evaluation: labelled log-odds -> bins small enough for the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Head

LIMIT = 20.0  # log-odds beyond +-20 (2e-9) are taken as +-20
# z is added up in whole multiples of 2^-30 (1e-9): whole numbers have the same sum in any order of rows; 4e8 rows of one bin fit in a long.
FIXED_POINT = 2**30


def binned(
    served: DataFrame, heads: Mapping[str, Head], by: Sequence[str] = ("tower",), column_prefix: str = "logit_", width: float = 0.001
) -> pd.DataFrame:
    """Count labelled rows by head, `by` and log-odds bin: one row a (head, *by, bin) that holds any, sorted so.

    Reads `<column_prefix><head>` (log-odds) and `label_<head>` of each row. A row without label or log-odds is left out; a child head
    counts only rows on which its parent's label is 1, so its log-odds are those of p(child | parent).

    Columns: head, *by, bin (long: floor(z / width)), z_sum (sum of z, clipped to [-20, 20]), rows, positives. Every row weighs 1.
    Mergeable: two such tables, added up by (head, *by, bin), are the table of both sets of rows. z_sum / rows is a bin's mean and lies
    within `width` of each of its rows.
    """
    cells = [
        F.struct(
            F.lit(place).alias("place"),
            F.lit(name).alias("head"),
            F.least(F.greatest(F.col(f"{column_prefix}{name}"), F.lit(-LIMIT)), F.lit(LIMIT)).alias("z"),
            counted_label(name, head).alias("label"),
        )
        for place, (name, head) in enumerate(heads.items())
    ]
    # greatest() skips nulls, so a missing log-odds has to be looked for before it is clipped.
    known = [F.when(F.col(f"{column_prefix}{name}").isNotNull(), cell) for name, cell in zip(heads, cells, strict=True)]
    long = served.select(*by, F.explode(F.array(*known)).alias("cell")).where("cell.label IS NOT NULL")
    keys = ["place", "head", *by, "bin"]
    counted = (
        long.select(*by, "cell.*")
        .withColumn("bin", F.floor(F.col("z") / width))
        .groupBy(*keys)
        .agg(
            (F.sum(F.round(F.col("z") * FIXED_POINT).cast("bigint")) / FIXED_POINT).alias("z_sum"),
            F.count(F.lit(1)).alias("rows"),
            F.sum(F.col("label").cast("bigint")).alias("positives"),
        )
    )
    found = counted.toPandas().sort_values(keys, ignore_index=True)
    return found.drop(columns="place")


def counted_label(name: str, head: Head) -> Column:
    label = F.col(f"label_{name}")
    return label if head.parent is None else F.when(F.col(f"label_{head.parent}") == 1, label)
