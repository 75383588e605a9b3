"""Scores and served rows beside the true probabilities of a simulation: sums and bins small enough for the driver.

Only jobs/truth.py, the check of a finished night, and jobs/backtest.py use this. c_<head> and p_<head> are the truth as etl/simulate.py writes it: the
probability of a head given its parent (of a head without one, the same as p), and with its parent's; null where a head does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf, Head
from etl.calibration_stats import binned
from etl.tables import TableError

WIDTH = 0.001  # of a bin, in log-odds: rows of one bin count as ties
#: (b0, b1) of Platt's logit(q) = z + b0 + b1 z, by (head, tower).
Platt = Mapping[tuple[str, str], tuple[float, float]]
Heads = Mapping[str, Head]


def has_truth(conf: Conf) -> bool:
    """Whether the logs were simulated here."""
    return (Path(conf.workdir) / "truth" / "impressions").is_dir()


def true_rows(spark: SparkSession, conf: Conf, kind: str, first: date, last: date) -> DataFrame:
    """Truth of `impressions` or `inventory`: id, c_<head>, p_<head>."""
    folder = Path(conf.workdir) / "truth" / kind
    if not folder.is_dir():
        raise TableError(f"no truth at {folder}; only simulated logs have one: run jobs/simulate.py with this configuration first")
    rows = spark.read.parquet(str(folder.resolve())).where(F.col("day").between(F.lit(first), F.lit(last)))
    if missing := [f"c_{head}" for head in conf.heads if f"c_{head}" not in rows.columns]:
        raise TableError(f"the truth at {folder} has no {', '.join(missing)}; the simulated world knows no such head")
    return rows.select("id", *(f"{letter}_{head}" for letter in "cp" for head in conf.heads))


def fit_bins(served: DataFrame, truth: DataFrame, heads: Heads, by: Sequence[str] = ("source", "tower")) -> pd.DataFrame:
    """Fit rows of a calibrator with the true conditional probability beside the label: grain (head, *by, bin of log-odds).

    Columns: z_sum, rows, positives (labels 1), expected (sum of c_<head>). A child head counts the rows whose parent's label is 1.
    """
    return binned(with_truth(served, truth), heads, by, width=WIDTH, truth=True)


def with_truth(served: DataFrame, truth: DataFrame) -> DataFrame:
    """Rows of `served` with the truth of their impressions."""
    return served.join(truth, on=F.col("impression_id") == F.col("id"), how="inner").drop("id")


def scored_sums(scores: DataFrame, truth: DataFrame, heads: Heads, oracle: Platt) -> pd.DataFrame:
    """Grain (head, source): rows, and the sums of p_<head> as scored, as the oracle would have calibrated it, and as it truly is."""
    cells = {
        name: F.when(
            _true(name).isNotNull(),
            F.struct(
                F.col(f"p_{name}").alias("predicted"), oracle_probability(heads, name, oracle).alias("oracle"), _true(name).alias("true")
            ),
        )
        for name in heads
    }
    sums = (F.sum(name).alias(name) for name in ("predicted", "oracle", "true"))
    long = _long(_beside_truth(scores, truth, heads), cells)
    return _collected(long.groupBy("head", "source").agg(F.count(F.lit(1)).alias("rows"), *sums))


def score_bins(scores: DataFrame, truth: DataFrame, heads: Heads) -> pd.DataFrame:
    """Grain (head, source, by, bin): rows and expected positives, binned `by` predicted or true log-odds of p: what an AUC is made of."""
    cells = {
        name: F.when(
            _true(name).isNotNull(),
            F.struct(F.array(_log_odds(F.col(f"p_{name}")), _log_odds(_true(name))).alias("z"), _true(name).alias("true")),
        )
        for name in heads
    }
    long = _long(_beside_truth(scores, truth, heads), cells)
    sides = long.select("head", "source", "true", F.posexplode("z").alias("side", "z"))
    by = F.when(F.col("side") == 0, "predicted").otherwise("true").alias("by")
    return _collected(
        sides.groupBy("head", "source", by, F.floor(F.col("z") / WIDTH).alias("bin")).agg(
            F.count(F.lit(1)).alias("rows"), F.sum("true").alias("positives")
        )
    )


def broken_promises(scores: DataFrame, inventory: DataFrame, truth: DataFrame, heads: Heads) -> list[str]:
    """What does not hold of a scored day: each candidate simulated and taken in is scored exactly once, each probability is in (0, 1)."""
    counted = scores.groupBy("inventory_id").agg(F.count(F.lit(1)).alias("times"))
    taken_in = inventory.select("inventory_id").withColumn("taken_in", F.lit(True))
    both = counted.join(taken_in, on="inventory_id", how="full")
    outside = reduce(Column.__or__, (~((F.col(f"p_{head}") > 0) & (F.col(f"p_{head}") < 1)) for head in heads))
    found = {
        "simulated candidates have no score": truth.join(scores, on=F.col("id") == F.col("inventory_id"), how="left_anti").count(),
        "rows are not scored exactly once, or are no inventory": both.where("NOT (times <=> 1 AND taken_in <=> true)").count(),
        "scores hold a probability outside (0, 1)": scores.where(F.coalesce(outside, F.lit(True))).count(),
    }
    return [f"{count} {what}" for what, count in found.items() if count]


def oracle_probability(heads: Heads, head: str, oracle: Platt) -> Column:
    """p of a head in `scores`, had its raw log-odds gone through the oracle's cell of the tower; a child's times its parent's."""
    parent = heads[head].parent
    z = _log_odds(F.col(f"p_{head}_raw") / F.col(f"p_{parent}_raw") if parent else F.col(f"p_{head}_raw"))
    q = z
    for (name, tower), (b0, b1) in oracle.items():
        if name == head:
            q = F.when(F.col("tower") == tower, z * (1 + b1) + b0).otherwise(q)
    p = 1.0 / (1.0 + F.exp(-q))
    return p * oracle_probability(heads, parent, oracle) if parent else p


def _beside_truth(scores: DataFrame, truth: DataFrame, heads: Heads) -> DataFrame:
    renamed = truth.select("id", *(F.col(f"p_{head}").alias(f"true_{head}") for head in heads))
    return scores.join(renamed, on=F.col("inventory_id") == F.col("id"), how="inner")


def _true(head: str) -> Column:
    return F.col(f"true_{head}")


def _log_odds(p: Column) -> Column:
    """Finite, also for a child that rounding made its parent's equal."""
    inside = F.least(F.greatest(p, F.lit(1e-12)), F.lit(1 - 1e-12))
    return F.log(inside / (1 - inside))


def _long(rows: DataFrame, cells: Mapping[str, Column]) -> DataFrame:
    """One row a head whose cell (a struct) is not null: source, tower, head, and the cell's fields."""
    named = (F.when(cell.isNotNull(), F.struct(F.lit(head).alias("head"), cell.alias("cell"))) for head, cell in cells.items())
    long = rows.select("source", "tower", F.explode(F.array(*named)).alias("one")).where("one IS NOT NULL")
    return long.select("source", "tower", "one.head", "one.cell.*")


def _collected(rows: DataFrame) -> pd.DataFrame:
    keys = [name for name in ("head", "source", "tower", "by", "bin") if name in rows.columns]
    return rows.toPandas().sort_values(keys, ignore_index=True)
