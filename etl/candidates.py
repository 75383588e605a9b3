"""Inventory with the features known for it: what a day's scores are made from, and what they would be made from on another day."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.entities import first_state_day, with_entity
from etl.history import first_history_day, with_history
from etl.splits import ONE_DAY
from etl.tables import read_days

FAMILIES = ("user", "ad")


def with_features(rows: DataFrame, spark: SparkSession, conf: Conf, first: date, last: date) -> DataFrame:
    """Add the users', ads' and history features to rows of `inventory` of days `first` to `last`, as each day's scorer knows them.

    One row in, one row out.
    """
    for family in FAMILIES:
        states = read_days(spark, conf.workdir, schemas.entity(conf, family), first_state_day(first, conf), last - ONE_DAY)
        rows = with_entity(rows, states, conf, family, first, last, F.col("day").cast("timestamp"))
    history = read_days(spark, conf.workdir, schemas.history(conf), first_history_day(first, conf), last - ONE_DAY)
    return with_history(rows, history, conf, first, last)


def with_features_of_either(rows: DataFrame, spark: SparkSession, conf: Conf, days: tuple[date, date]) -> DataFrame:
    """Each row of `inventory` of these two days twice: with the features that the scorer of the first knew and with those of the second.

    The column `features` says which, 0 or 1. A user or ad of which the other day knew no feature keeps what its own day knows: that it is new is the
    inventory's change, not its features'.
    """
    first, last = min(days), max(days)
    names = [field.name for field in schemas.feature_columns(conf.template, *FAMILIES, "history")]
    own = with_features(rows, spark, conf, first, last)
    kept = own.select(*rows.columns, *(F.col(name).alias(_own(name)) for name in names))
    swapped = F.when(F.col("day") == F.lit(days[0]), F.lit(days[1])).otherwise(F.lit(days[0]))
    both = with_features(kept.withColumns({"_day": F.col("day"), "day": swapped}), spark, conf, first, last)
    for family in FAMILIES:
        of = [field.name for field in schemas.feature_columns(conf.template, family)]
        known = F.coalesce(*(F.when(F.col(name).isNotNull(), F.lit(True)) for name in of), F.lit(False))
        both = both.withColumns({name: F.when(known, F.col(name)).otherwise(F.col(_own(name))) for name in of})
    both = both.withColumn("day", F.col("_day")).withColumn("features", F.explode(F.array(F.lit(0), F.lit(1))))
    is_own = (F.col("day") == F.lit(days[0])) == (F.col("features") == 0)
    chosen = {name: F.when(is_own, F.col(_own(name))).otherwise(F.col(name)) for name in names}
    return both.select(*rows.columns, "features", *(value.alias(name) for name, value in chosen.items()))


def _own(name: str) -> str:
    return f"_own_{name}"
