"""Two models on the same labelled rows, as sums that say how far apart they are and how sure that is. Spark's side of models/verdict.py.

Rows of one user hang together, so every square is that of a user's sum and not of a row's (the linearised variance of a ratio under cluster
sampling: Cochran, Sampling Techniques, 1977, ch. 9; of an AUC: Obuchowski, Biometrics 1997). A row without a user is a cluster of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Head
from etl.calibrated import Cells, calibrated
from etl.calibration_stats import clipped, counted_label
from etl.schemas import ALL

WIDTH = 0.001  # of a bin, in log-odds: rows of one bin count as ties
CELL = ("head", "tower")


class RowsDiffer(RuntimeError):
    """The two models were not given the same impressions, so nothing can be said of one against the other."""


def paired_rows(candidate: DataFrame, production: DataFrame, heads: Mapping[str, Head], fitted: tuple[Cells, Cells]) -> DataFrame:
    """Labelled rows of both: head, tower, user, label, a and b (calibrated log-odds of candidate and production). Grain: impression x head.

    Both are rows of `served` of the same days; `fitted`: their calibrators' cells, whose features are read from the candidate's rows. A child
    head has the rows whose parent's label is 1. A head that either model does not know is left out.
    """
    logits = [F.col(f"logit_{name}").alias(f"other_{name}") for name in heads]
    both = candidate.join(production.select("impression_id", *logits), on="impression_id", how="inner")
    user = F.coalesce("user_id", F.concat(F.lit("\0"), F.col("impression_id"))).alias("user")
    cells = (_pair(name, head, fitted) for name, head in heads.items())
    long = both.select("tower", user, F.explode(F.array(*cells)).alias("cell"))
    known = long.where("cell.label IS NOT NULL AND cell.a IS NOT NULL AND cell.b IS NOT NULL").select("tower", "user", "cell.*")
    return known.withColumns({side: clipped(F.col(side)) for side in "ab"})


def require_same_rows(candidate: DataFrame, production: DataFrame) -> None:
    ids = (rows.select("impression_id", F.lit(1).alias(side)) for side, rows in (("a", candidate), ("b", production)))
    found = next(ids).join(next(ids), on="impression_id", how="full").agg(F.count(F.lit(1)), F.count("a"), F.count("b")).first()
    assert found is not None
    rows, left, right = found
    if not rows == left == right:
        raise RowsDiffer(
            f"the candidate has {left:,} rows and production {right:,}, together {rows:,} impressions; replay both on the same days"
        )


def _pair(name: str, head: Head, fitted: tuple[Cells, Cells]) -> Column:
    a, b = (calibrated(F.col(f"{prefix}_{name}"), name, cells) for prefix, cells in zip(("logit", "other"), fitted, strict=True))
    return F.struct(F.lit(name).alias("head"), counted_label(name, head).alias("label"), a.alias("a"), b.alias("b"))


def pair_bins(paired: DataFrame) -> pd.DataFrame:
    """Rows counted by (head, tower, side, bin of its log-odds), side a or b. Columns: z (the bin's mean), rows, positives; sorted."""
    sides = F.explode(F.array(*(F.struct(F.lit(side).alias("side"), F.col(side).alias("z")) for side in "ab"))).alias("at")
    long = paired.select(*CELL, "label", sides).select(*CELL, "label", "at.*", _bin(F.col("at.z")).alias("bin"))
    keys = [*CELL, "side", "bin"]
    sums = (F.avg("z").alias("z"), F.count(F.lit(1)).alias("rows"), F.sum("label").cast("double").alias("positives"))
    return long.groupBy(*keys).agg(*sums).toPandas().sort_values(keys, ignore_index=True)


def _bin(z: Column) -> Column:
    return F.floor(z / WIDTH)


def pair_sums(paired: DataFrame, influence: pd.DataFrame) -> pd.DataFrame:
    """Sums by (head, tower), and last those of all rows, under ALL: what intervals are made of.

    `influence`: by (head, tower, side, bin), what a row in it adds to the AUC's error, `if_positive` or `if_negative` by its label. Columns:
    rows, positives, users; for x and y among loss_a, loss_b, p_a, p_b (sums of cross-entropy in nats and of probability), label and auc (the
    difference of the influences): sum_x, and sq_x_y, the sum over users of the product of their sums.
    """
    rows = paired.select(*CELL, "user", F.col("label").cast("double").alias("label"), "a", "b")
    spark = paired.sparkSession
    for side in "ab":
        of_side = influence[influence["side"] == side].drop(columns="side")
        to = {"bin": f"bin_{side}", "if_positive": f"up_{side}", "if_negative": f"down_{side}"}
        # By Arrow, so that no Python worker is started for them.
        effects = F.broadcast(spark.createDataFrame(pa.Table.from_pandas(of_side.rename(columns=to), preserve_index=False)))
        rows = rows.withColumn(f"bin_{side}", _bin(F.col(side))).join(effects, on=[*CELL, f"bin_{side}"], how="left")
    measures = {f"loss_{side}": F.log1p(F.exp(-F.abs(side))) + F.greatest(side, F.lit(0.0)) - F.col("label") * F.col(side) for side in "ab"}
    measures |= {f"p_{side}": 1 / (1 + F.exp(-F.col(side))) for side in "ab"}
    measures["auc"] = F.when(F.col("label") == 1, F.col("up_a") - F.col("up_b")).otherwise(F.col("down_a") - F.col("down_b"))
    names = [*measures, "label"]
    each = rows.select(*CELL, "user", "label", *(value.alias(name) for name, value in measures.items()))
    sums = [F.sum(name).alias(name) for name in names]
    by_user = each.groupBy(*CELL, "user").agg(F.count(F.lit(1)).alias("rows"), *sums).persist()
    try:
        cells = _squared(by_user, CELL, names)
        over_cells = by_user.groupBy("user").agg(F.sum("rows").alias("rows"), *sums)
        whole = _squared(over_cells, (), names)
        return pd.concat([cells, whole.assign(head=ALL, tower=ALL)], ignore_index=True)
    finally:
        by_user.unpersist()


def _squared(by_user: DataFrame, keys: tuple[str, ...], names: list[str]) -> pd.DataFrame:
    pairs = combinations_with_replacement(sorted(names), 2)
    products = (F.sum(F.col(x) * F.col(y)).alias(f"sq_{x}_{y}") for x, y in pairs)
    sums = (F.sum(name).alias(f"sum_{name}") for name in names)
    counts = (F.sum("rows").alias("rows"), F.sum("label").alias("positives"), F.count(F.lit(1)).alias("users"))
    found = by_user.groupBy(*keys).agg(*counts, *sums, *products).toPandas()
    return found.sort_values(list(keys), ignore_index=True) if keys else found
