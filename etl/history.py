"""History: how often were this user, ad, campaign, advertiser shown and engaged with, on the days before the impression's own?

`history` counts by the day on which something became known, not the day on which it happened: an impression counts on the day of its
receipt, an engaged impression (once for each head) on the later of its own and its first engagement's receipt. A day of `history` is
therefore closed when its night closes, and the sum over days d-1, d-2, ... is exactly what the scorer of day d could know.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.history import HistoryColumn, history_column
from conf.schema import Conf
from etl.labels import counts_for, credited
from etl.splits import ONE_DAY


def wanted(conf: Conf) -> dict[str, HistoryColumn]:
    """History features of the template: column -> what it asks for."""
    return {feature.column: history_column(feature.column, conf.history.keys, conf.heads) for feature in conf.template.of_family("history")}


def kinds(conf: Conf) -> list[str]:
    """What the template asks to be counted by: names of history.keys."""
    return sorted({column.key for column in wanted(conf).values()})


def first_impression_day(first: date, conf: Conf) -> date:
    """Earliest shown day whose impressions `daily_counts` of `first` needs: what is engaged with later than K days counts nowhere."""
    return first - (conf.label_days - 1) * ONE_DAY


def first_history_day(first: date, conf: Conf) -> date:
    """Earliest day of `history` that rows of `first` read."""
    return first - max(map(conf.history.days_back, kinds(conf)), default=1) * ONE_DAY


def daily_counts(impressions: DataFrame, engagements: DataFrame, conf: Conf, first: date, last: date) -> DataFrame:
    """Rows of `history` for days `first`..`last`: grain (day, kind, key), counts of impressions and of engaged ones a head.

    `impressions` and `engagements` hold the days from `first_impression_day(first)` on; impressions bear what the keys read.
    """
    made = (F.struct(F.lit(kind).alias("kind"), F.expr(conf.history.keys[kind]).cast("string").alias("key")) for kind in kinds(conf))
    keys = F.array(*made)
    keyed = impressions.withColumn("_keys", keys)
    received = F.to_date("received_at")
    shown = keyed.select("_keys", received.alias("day"), F.lit(1).alias("impressions"), *_zeros(conf.heads))
    known = F.greatest(received, F.to_date("engagement_received_at"))
    firsts = (F.min(F.when(counts_for(head), known)).alias(f"_day_{name}") for name, head in conf.heads.items())
    engaged = credited(keyed, engagements, conf).groupBy("impression_id").agg(F.any_value("_keys").alias("_keys"), *firsts)
    # A row a day on which at least one head became known; the null of those that never did is in no range of days.
    days = F.array_distinct(F.array(*(F.col(f"_day_{name}") for name in conf.heads)))
    counted = engaged.withColumn("day", F.explode(days)).select(
        "_keys",
        "day",
        F.lit(0).alias("impressions"),
        *(F.coalesce(F.col(f"_day_{name}") == F.col("day"), F.lit(False)).cast("int").alias(f"engaged_{name}") for name in conf.heads),
    )
    rows = shown.unionByName(counted).where(F.col("day").between(F.lit(first), F.lit(last)))
    by_key = rows.withColumn("_key", F.explode("_keys")).select("*", "_key.*").where("key IS NOT NULL")
    sums = (F.sum(name).cast("long").alias(name) for name in ("impressions", *_engaged(conf.heads)))
    return by_key.groupBy("day", "kind", "key").agg(*sums)


def with_history(rows: DataFrame, history: DataFrame, conf: Conf, first: date, last: date) -> DataFrame:
    """Add the template's history features to rows of days `first`..`last`; one row in, one row out.

    A key without history in the window has no impressions and the overall rate; before there is any history at all, rates are null.
    """
    columns = wanted(conf)
    for kind in kinds(conf):
        sums, overall = _sums(history.where(F.col("kind") == kind), conf, conf.history.days_back(kind), first, last)
        asked = {name: column for name, column in columns.items() if column.key == kind}
        keyed = rows.withColumn("_key", F.expr(conf.history.keys[kind]).cast("string"))
        joined = keyed.join(sums, on=["day", "_key"], how="left").join(F.broadcast(overall), on="day", how="left")
        rows = joined.select(*rows.columns, *(_value(column, conf).alias(name) for name, column in asked.items()))
    return rows


def _sums(history: DataFrame, conf: Conf, back: int, first: date, last: date) -> tuple[DataFrame, DataFrame]:
    """Counts by (day, _key) over `back` days before, `_seen` the last of them, and the same over all keys by day."""
    day = F.col("day")
    earliest, latest = F.greatest(F.date_add(day, 1), F.lit(first)), F.least(F.date_add(day, back), F.lit(last))
    days = F.when(earliest <= latest, F.sequence(earliest, latest))
    names = ("impressions", *_engaged(conf.heads))
    spread = history.select(F.col("key").alias("_key"), day.alias("_counted"), *names, F.explode(days).alias("day"))
    sums = spread.groupBy("day", "_key").agg(*(F.sum(name).alias(f"_{name}") for name in names), F.max("_counted").alias("_seen"))
    overall = spread.groupBy("day").agg(*(F.sum(name).alias(f"_all_{name}") for name in names))
    return sums, overall


def _value(column: HistoryColumn, conf: Conf) -> Column:
    impressions = F.coalesce(F.col("_impressions"), F.lit(0)).cast("double")
    if column.what == "impressions":
        return impressions
    if column.what == "days_since":
        return F.datediff("day", "_seen").cast("double")
    engaged = F.coalesce(F.col(f"_engaged_{column.head}"), F.lit(0)).cast("double")
    if column.what == "count":
        return engaged
    prior = F.lit(conf.history.prior_impressions)
    overall = F.try_divide(F.col(f"_all_engaged_{column.head}"), F.col("_all_impressions"))
    return (engaged + prior * overall) / (impressions + prior)


def _engaged(heads: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"engaged_{head}" for head in heads)


def _zeros(heads: Iterable[str]) -> list[Column]:
    return [F.lit(0).alias(name) for name in _engaged(heads)]
