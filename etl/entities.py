"""Point-in-time user and ad features: the newest state that the scorer of an impression's day could have known."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from conf.schema import Conf
from etl.schemas import feature_columns
from etl.splits import ONE_DAY


def with_entity(rows: DataFrame, states: DataFrame, conf: Conf, family: str, first: date, last: date, shown_at: Column) -> DataFrame:
    """Add the feature columns of `family` (user or ad) to rows of days `first`..`last`; null where no state was known.

    One row in, one row out. A state counts for a row of day d if valid_from < shown_at (strictly), and if it was received before d began,
    which is when the night that scores d closes. Of several, the one with the latest valid_from counts (ties: received last).
    States older than clock.entity_lookback_days are not looked at.
    """
    key = f"{family}_id"
    features = [field.name for field in feature_columns(conf.template, family)]
    if not features:
        return rows
    known = _states_by_day(states, conf, key, first, last).select(key, "day", "_from", "_until", *features)
    timed = rows.withColumn("_shown_at", shown_at)
    current = (F.col("_from") < F.col("_shown_at")) & (F.col("_until").isNull() | (F.col("_until") >= F.col("_shown_at")))
    joined = timed.alias("r").join(
        known.alias("s"), on=[F.col(f"r.{key}") == F.col(f"s.{key}"), F.col("r.day") == F.col("s.day"), current], how="left"
    )
    return joined.select("r.*", *(F.col(f"s.{name}") for name in features)).drop("_shown_at")


def _states_by_day(states: DataFrame, conf: Conf, key: str, first: date, last: date) -> DataFrame:
    """A state for each day on which it can still be the current one: grain (key, day, _from), valid in (_from, _until]."""
    lookback = conf.clock.entity_lookback_days
    received_day = F.to_date("received_at")
    first_used = F.greatest(F.date_add(received_day, 1), F.lit(first))
    last_used = F.least(F.date_add(received_day, lookback), F.lit(last))
    by_day = states.withColumn("day", F.explode(F.when(first_used <= last_used, F.sequence(first_used, last_used))))
    newest_of_moment = Window.partitionBy(key, "day", "valid_from").orderBy(
        F.col("received_at").desc(), F.xxhash64(*sorted(states.columns))
    )
    next_state = Window.partitionBy(key, "day").orderBy("valid_from")
    return (
        by_day.withColumn("_place", F.row_number().over(newest_of_moment))
        .where("_place = 1")
        .withColumn("_from", F.col("valid_from"))
        .withColumn("_until", F.lead("valid_from").over(next_state))
        # A state that was replaced before its day began is nobody's current one.
        .where(F.col("_until").isNull() | (F.col("_until") >= F.col("day").cast("timestamp")))
        .drop("_place", "valid_from", "received_at")
    )


def first_state_day(first: date, conf: Conf) -> date:
    """Earliest day of `users` and `ads` that rows of `first` may need."""
    return first - conf.clock.entity_lookback_days * ONE_DAY
