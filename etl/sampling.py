"""Negative downsampling of training rows: fewer of those without any engagement, each counting for those left out.

A row kept with probability r weighs 1/r, so the weighted sum of anything is the full data's in expectation, for every head at once. (A
shift of the logits, the usual correction for one head, is not exact for several: He et al., ADKDD 2014, section 6.3, has the shift.)
Only training snapshots are sampled; calibration, held-out and served days never are.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Conf

SEED = "negatives"  # apart from the hash that orders a snapshot's rows
BITS = 53  # of a hash, as many as a double holds exactly


def with_sampling(examples: DataFrame, conf: Conf) -> DataFrame:
    """Drop some rows without a positive label; add `sampling_rate` and `weight` = 1 / sampling_rate (both float, 1.0 where a row is sure).

    One row an example, in; of those kept, out. Which are kept depends on impression_id and conf.seed alone.
    """
    engaged = reduce(Column.__or__, (F.coalesce(F.col(f"label_{head}") == 1, F.lit(False)) for head in conf.heads))
    rate = F.lit(1.0)
    for source, kept in conf.sampling.keep_negatives.items():
        rate = F.when(F.col("source") == source, F.lit(kept)).otherwise(rate)
    chance = F.shiftrightunsigned(F.xxhash64("impression_id", F.lit(SEED), F.lit(conf.seed)), 64 - BITS) / F.lit(float(2**BITS))
    sampled = examples.withColumn("sampling_rate", F.when(engaged, F.lit(1.0)).otherwise(rate)).where(chance < F.col("sampling_rate"))
    # Never null, and said so to Parquet: a quotient is nullable in one plan and not in another, and a snapshot promises its bytes.
    weight = F.coalesce((1 / F.col("sampling_rate")).cast("float"), F.lit(1.0).cast("float"))
    return sampled.withColumn("weight", weight).withColumn("sampling_rate", F.col("sampling_rate").cast("float"))
