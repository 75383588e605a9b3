"""Spark's side of calibrator fitting and evaluation: labelled log-odds -> bins small enough for the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.schema import Head
from conf.segments import code_column
from etl.encoding import with_codes

LIMIT = 20.0  # log-odds beyond +-20 (2e-9) are taken as +-20
# z is added up in whole multiples of 2^-30 (1e-9): whole numbers have the same sum in any order of rows; 4e8 rows of one bin fit in a long.
FIXED_POINT = 2**30
# Of a featured fit: most rows that the driver takes, and widths of a bin, in log-odds, from the finest. A fit sees a row's log-odds as its
# group's mean: with bins of a quarter the calibrated log-odds move by less than .01 (tests/models/test_featured.py).
GROUPS = 200_000
WIDTHS = (2**-8, 2**-6, 2**-4, 2**-2)


def binned(
    served: DataFrame, heads: Mapping[str, Head], by: Sequence[str] = ("tower",), width: float = 0.001, truth: bool = False
) -> pd.DataFrame:
    """Count labelled rows by head, `by` and log-odds bin: one row a (head, *by, bin) that holds any, sorted so.

    Reads `logit_<head>` (log-odds) and `label_<head>` of each row. A row without label or log-odds is left out; a child head
    counts only rows on which its parent's label is 1, so its log-odds are those of p(child | parent).

    Columns: head, *by, bin (long: floor(z / width)), z_sum (sum of z, clipped to [-20, 20]), rows, positives. Every row weighs 1. With `truth`
    also expected, the sum of the true `c_<head>` (etl/truth.py) of the same rows; a row without it is left out.
    Mergeable: two such tables, added up by (head, *by, bin), are the table of both sets of rows. z_sum / rows is a bin's mean and lies
    within `width` of each of its rows.
    """
    return _collected(_counted(served, heads, by, width, truth), by)


def segmented(
    served: DataFrame,
    heads: Mapping[str, Head],
    features: Sequence[str],
    most: int,
    *,
    by: Sequence[str] = ("tower",),
    groups: int | None = None,
    truth: bool = False,
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Fit rows of a featured calibrator, and feature -> the values that its codes count, at most `most`, the most frequent first.

    The table is that of `binned` by `by` and `<feature>__code`, the place of the row's value, -1 where it is none of them or missing. It has
    at most `groups` rows (GROUPS): where the finest bins of log-odds make more, they get wider, and where the widest still do, fewer values are
    told apart; with none left it has a row a head, `by` and bin, however many. Each try reads `served` once more.
    """
    values, groups = _frequent(served, features, most), groups or GROUPS
    keys = (*by, *(code_column(feature) for feature in features))
    for width, kept in _ever_coarser(max((len(found) for found in values.values()), default=0)):
        told_apart = {feature: found[:kept] for feature, found in values.items()}
        counted = _counted(with_codes(served, told_apart), heads, keys, width, truth)
        table = _collected(counted.limit(groups + 1) if kept else counted, keys)
        if len(table) <= groups:
            break
    return table, told_apart


def faded(table: pd.DataFrame, last: date, half_life_days: float | None) -> pd.DataFrame:
    """A table by `day` whose rows, and all that is counted of them, weigh half for each half-life that their day lies before `last`."""
    if half_life_days is None:
        return table
    weight = 0.5 ** (np.array([(last - day).days for day in table["day"]]) / half_life_days)
    return table.assign(**{name: table[name] * weight for name in ("z_sum", "rows", "positives", "expected") if name in table})


def _ever_coarser(values: int) -> Iterator[tuple[float, int]]:
    """(width of a bin, number of values a feature), from the finest."""
    yield from ((width, values) for width in WIDTHS)
    while values:
        values //= 2
        yield WIDTHS[-1], values


def _frequent(served: DataFrame, features: Sequence[str], most: int) -> dict[str, list[str]]:
    pairs = F.explode(F.array(*(F.struct(F.lit(name).alias("feature"), F.col(name).alias("value")) for name in features))).alias("at")
    counts = served.select(pairs).where("at.value IS NOT NULL").groupBy("at.feature", "at.value").agg(F.count(F.lit(1)).alias("rows"))
    place = F.row_number().over(Window.partitionBy("feature").orderBy(F.desc("rows"), "value"))
    found = counts.withColumn("place", place).where(F.col("place") <= most).collect()
    ranked = sorted(found, key=lambda row: row["place"])
    return {name: [row["value"] for row in ranked if row["feature"] == name] for name in features}


def _collected(counted: DataFrame, by: Sequence[str]) -> pd.DataFrame:
    keys = ["place", "head", *by, "bin"]
    return counted.toPandas().sort_values(keys, ignore_index=True).drop(columns="place")


def _counted(served: DataFrame, heads: Mapping[str, Head], by: Sequence[str], width: float, truth: bool) -> DataFrame:
    known = labelled(served, heads, by, truth).withColumn("z", clipped(F.col("z")))
    sums = [
        _sum("z").alias("z_sum"),
        F.count(F.lit(1)).alias("rows"),
        F.sum(F.col("label").cast("bigint")).alias("positives"),
        *([_sum("expected").alias("expected")] if truth else []),
    ]
    return known.withColumn("bin", F.floor(F.col("z") / width)).groupBy("place", "head", *by, "bin").agg(*sums)


def _sum(column: str) -> Column:
    return F.sum(F.round(F.col(column) * FIXED_POINT).cast("bigint")) / FIXED_POINT


def labelled(served: DataFrame, heads: Mapping[str, Head], keep: Sequence[str], truth: bool = False) -> DataFrame:
    """*keep, place (of the head in `heads`), head, z (its log-odds) and label; grain: row of `served` x head whose label and log-odds are known.

    With `truth` also expected, its `c_<head>`, and rows where that is known.
    """
    cells = (
        F.struct(
            F.lit(place).alias("place"),
            F.lit(name).alias("head"),
            F.col(f"logit_{name}").alias("z"),
            counted_label(name, head).alias("label"),
            *([F.col(f"c_{name}").alias("expected")] if truth else []),
        )
        for place, (name, head) in enumerate(heads.items())
    )
    long = served.select(*keep, F.explode(F.array(*cells)).alias("cell"))
    known = " AND ".join(f"cell.{name} IS NOT NULL" for name in ("label", "z", *(["expected"] if truth else [])))
    return long.where(known).select(*keep, "cell.*")


def clipped(z: Column) -> Column:
    """Log-odds within LIMIT either way; never of a null, which greatest() and least() skip."""
    return F.least(F.greatest(z, F.lit(-LIMIT)), F.lit(LIMIT))


def counted_label(name: str, head: Head) -> Column:
    label = F.col(f"label_{name}")
    return label if head.parent is None else F.when(F.col(f"label_{head.parent}") == 1, label)
