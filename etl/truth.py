"""Scores and served rows beside the true probabilities of a simulation: sums and bins small enough for the driver.

Only jobs/truth.py, the check of a finished night, uses this. p_<head> and c_<head> are the truth as etl/simulate.py writes it: the
probability of a head, and its probability given its parent (the same for a head without one); null where a head does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import reduce
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf, Head
from etl import schemas
from etl.tables import TableError, read_days

WIDTH = 0.001  # of a bin, in log-odds: rows of one bin count as ties
#: (b0, b1) of Platt's logit(q) = z + b0 + b1 z, by (head, tower).
Platt = Mapping[tuple[str, str], tuple[float, float]]


def true_rows(spark: SparkSession, conf: Conf, kind: str, first: date, last: date) -> DataFrame:
    """Truth of `impressions` or `inventory`: id, explored, c_<head>, p_<head>, day."""
    folder = Path(conf.workdir) / "truth" / kind
    if not folder.is_dir():
        raise TableError(f"no truth at {folder}; only simulated logs have one: run jobs/simulate.py --conf-file on this configuration first")
    rows = spark.read.parquet(str(folder.resolve())).where(F.col("day").between(F.lit(first), F.lit(last)))
    if missing := [f"c_{head}" for head in conf.heads if f"c_{head}" not in rows.columns]:
        raise TableError(f"the truth at {folder} has no {', '.join(missing)}; the simulated world knows no such head")
    return rows.select("id", "explored", "day", *(f"{letter}_{head}" for head in conf.heads for letter in "cp"))


def model_of(spark: SparkSession, conf: Conf, night: date, scored: date) -> tuple[str, date]:
    """The model that scored a day, and the last day it was trained on."""
    models = read_days(spark, conf.workdir, schemas.MODELS, night, night).select("model", "trained_to")
    used = read_days(spark, conf.workdir, schemas.scores(conf), scored, scored).select("model").distinct()
    found = used.join(models, on="model", how="left").collect()
    if len(found) != 1 or found[0]["trained_to"] is None:
        raise TableError(f"the scores of {scored} name {len(found)} models that the night of {night} registered; run that night first")
    return found[0]["model"], found[0]["trained_to"]


def fit_bins(spark: SparkSession, conf: Conf, model: str, first: date, last: date) -> pd.DataFrame:
    """Fit rows of a calibrator, with the true conditional probability beside the label: grain (head, source, tower, bin of log-odds).

    Columns: z_sum, rows, expected (sum of true probabilities), positives (labels 1). A child head counts the rows with parent label 1.
    """
    served = read_days(spark, conf.workdir, schemas.served(conf), first, last).where(F.col("model") == model).drop("day")
    truth = true_rows(spark, conf, "impressions", first, last)
    joined = served.join(truth, on=F.col("impression_id") == F.col("id"), how="inner")
    cells = {
        name: F.struct(F.col(f"logit_{name}").alias("z"), F.col(f"c_{name}").alias("expected"), F.col(f"label_{name}").alias("label"))
        for name in conf.heads
    }
    long = _long(joined, {name: F.when(_is_fit_row(name, head), cells[name]) for name, head in conf.heads.items()})
    return _collected(
        long.groupBy("head", "source", "tower", F.floor(F.col("z") / WIDTH).alias("bin")).agg(
            F.sum("z").alias("z_sum"), F.count(F.lit(1)).alias("rows"), F.sum("expected").alias("expected"), F.sum("label").alias("positives")
        )
    )


def scored_sums(spark: SparkSession, conf: Conf, scored: date, oracle: Platt) -> pd.DataFrame:
    """Grain (head, source): rows, and the sums of predicted, oracle's and true probabilities over the scored inventory."""
    cells = {
        name: F.struct(F.col(f"p_{name}").alias("predicted"), oracle_probability(conf, name, oracle).alias("oracle"), _true(name).alias("true"))
        for name in conf.heads
    }
    long = _long(_scored_beside_truth(spark, conf, scored), {name: F.when(_true(name).isNotNull(), cell) for name, cell in cells.items()})
    sums = (F.sum(name).alias(name) for name in ("predicted", "oracle", "true"))
    return _collected(long.groupBy("head", "source").agg(F.count(F.lit(1)).alias("rows"), *sums))


def score_bins(spark: SparkSession, conf: Conf, scored: date) -> pd.DataFrame:
    """Grain (head, source, by, bin): rows and true positives, binned `by` the predicted or by the true log-odds: what an AUC is made of."""
    cells = {
        name: F.struct(F.array(_log_odds(F.col(f"p_{name}")), _log_odds(_true(name))).alias("z"), _true(name).alias("true"))
        for name in conf.heads
    }
    long = _long(_scored_beside_truth(spark, conf, scored), {name: F.when(_true(name).isNotNull(), cell) for name, cell in cells.items()})
    sides = long.select("head", "source", "true", F.posexplode("z").alias("side", "z"))
    by = F.when(F.col("side") == 0, "predicted").otherwise("true").alias("by")
    return _collected(
        sides.groupBy("head", "source", by, F.floor(F.col("z") / WIDTH).alias("bin")).agg(
            F.count(F.lit(1)).alias("rows"), F.sum("true").alias("positives")
        )
    )


def broken_promises(spark: SparkSession, conf: Conf, scored: date) -> list[str]:
    """What does not hold of a scored day: each inventory row, and each simulated candidate that was not refused, scored exactly once, each p in (0, 1)."""
    scores = read_days(spark, conf.workdir, schemas.scores(conf), scored, scored)
    inventory = read_days(spark, conf.workdir, schemas.inventory(conf), scored, scored).select("inventory_id")
    counted = scores.groupBy("inventory_id").agg(F.count(F.lit(1)).alias("times")).join(inventory, on="inventory_id", how="full")
    candidates = true_rows(spark, conf, "inventory", scored, scored)
    lost = candidates.join(scores, on=F.col("id") == F.col("inventory_id"), how="left_anti").count()
    wrong_times = counted.where("times IS NULL OR times <> 1").count()
    outside = reduce(Column.__or__, (~((F.col(f"p_{head}") > 0) & (F.col(f"p_{head}") < 1)) for head in conf.heads))
    bad = scores.where(F.coalesce(outside, F.lit(True))).count()
    told = {
        f"{lost} simulated candidates of {scored} have no score": lost,
        f"{wrong_times} inventory rows of {scored} are not scored exactly once": wrong_times,
        f"{bad} scores of {scored} hold a probability outside (0, 1)": bad,
    }
    return [line for line, count in told.items() if count]


def oracle_probability(conf: Conf, head: str, oracle: Platt) -> Column:
    """p of a head in `scores`, had its raw log-odds been calibrated by the oracle; a child's times its parent's."""
    parent = conf.heads[head].parent
    raw = F.col(f"p_{head}_raw") / F.col(f"p_{parent}_raw") if parent else F.col(f"p_{head}_raw")
    z = _log_odds(raw)
    q = z
    for (name, tower), (b0, b1) in oracle.items():
        if name == head:
            q = F.when(F.col("tower") == tower, z * (1 + b1) + b0).otherwise(q)
    p = 1.0 / (1.0 + F.exp(-q))
    return p * oracle_probability(conf, parent, oracle) if parent else p


def _scored_beside_truth(spark: SparkSession, conf: Conf, scored: date) -> DataFrame:
    truth = true_rows(spark, conf, "inventory", scored, scored)
    renamed = truth.select("id", *(F.col(f"p_{head}").alias(f"true_{head}") for head in conf.heads))
    scores = read_days(spark, conf.workdir, schemas.scores(conf), scored, scored)
    return scores.join(renamed, on=F.col("inventory_id") == F.col("id"), how="inner")


def _is_fit_row(name: str, head: Head) -> Column:
    known = F.col(f"label_{name}").isNotNull() & F.col(f"c_{name}").isNotNull()
    return known if head.parent is None else known & (F.col(f"label_{head.parent}") == 1)


def _true(head: str) -> Column:
    return F.col(f"true_{head}")


def _log_odds(p: Column) -> Column:
    """Finite, also for a child whose rounding made it its parent's equal."""
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
