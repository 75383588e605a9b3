"""Labels: was an impression engaged with inside a head's window? 1, 0, or null where that is not known or not asked.

Windows begin at shown_at and include both ends. An engagement counts only if received before the label cutoff of the impression's day,
the end of a night: what is received at that very moment belongs to the next day, and to the next night.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from conf.schema import Conf, Head
from etl.splits import end_of


def with_labels(impressions: DataFrame, engagements: DataFrame, conf: Conf, last: date) -> DataFrame:
    """Add `label_<head>` for every head and `labels_as_of`; one row an impression, in and out, however many engagements it drew.

    `last` is the last night of the range. Where a head is attributed by last touch, `impressions` must hold every impression up to the
    night's own day, for a later one takes the credit.
    """
    dated = impressions.withColumn("labels_as_of", _cutoff(conf, last))
    in_time = credited(dated, engagements, conf).where(F.col("engagement_received_at") < F.col("labels_as_of"))
    found = [F.max(counts_for(head).cast("int")).alias(f"_{name}") for name, head in conf.heads.items()]
    seen = [F.max(_observes(head).cast("int")).alias(f"_observed_{name}") for name, head in conf.heads.items() if head.observed_by]
    labelled = dated.join(in_time.groupBy("impression_id").agg(*found, *seen), on="impression_id", how="left")
    for name, head in conf.heads.items():
        labelled = labelled.withColumn(f"label_{name}", _label(name, head, conf))
    return labelled.drop(*(f"_{name}" for name in conf.heads), *(f"_observed_{name}" for name in conf.heads))


def credited(impressions: DataFrame, engagements: DataFrame, conf: Conf) -> DataFrame:
    """Engagements beside the impression they are credited to: a row an engagement and way of `attribution` that a head asks for.

    All columns of `impressions`; then attribution, action, acted_at, dwell_ms, engagement_received_at.
    """
    ways = {"impression": _by_impression, "last_touch": _by_last_touch}
    asked = [name for name in ways if any(head.attribution == name for head in conf.heads.values())]
    acts = engagements.select(
        F.col("impression_id").alias("_impression_id"),
        *(F.col(name).alias(f"_{name}") for name in ("user_id", "ad_id", "session")),
        *("action", "acted_at", "dwell_ms"),
        F.col("received_at").alias("engagement_received_at"),
    )
    credits = [ways[name](impressions, acts).withColumn("attribution", F.lit(name)) for name in asked]
    return reduce(DataFrame.unionByName, credits).drop("_impression_id", "_user_id", "_ad_id", "_session")


def counts_for(head: Head) -> Column:
    """Of a row of `credited`: does it make the impression positive for the head, its time of receipt apart?"""
    counts = (F.col("action") == head.action) & _in_window(head)
    if head.min_dwell_seconds > 0:
        counts = counts & (F.coalesce(F.col("dwell_ms"), F.lit(0)) >= int(head.min_dwell_seconds * 1000))
    return counts


def too_late(engagements: DataFrame, conf: Conf) -> DataFrame:
    """Engagements of heads that were received more than `clock.lateness_hours` after they happened: no label counts on them."""
    actions = sorted({head.action for head in conf.heads.values()})
    return engagements.where(
        F.col("action").isin(actions) & (F.col("received_at") > F.col("acted_at") + F.lit(timedelta(hours=conf.clock.lateness_hours)))
    )


def _by_impression(impressions: DataFrame, acts: DataFrame) -> DataFrame:
    return impressions.join(acts, on=F.col("impression_id") == F.col("_impression_id"), how="inner")


def _by_last_touch(impressions: DataFrame, acts: DataFrame) -> DataFrame:
    """The newest impression of the same user, ad and session (null equals null) that was shown before the engagement, or as it happened.

    Only an impression received by the end of its own day takes the credit from an earlier one: so the credit is known as soon as the
    engagement is, and a later night does not move it.
    """
    key = ("user_id", "ad_id", "session")
    # Newest first, so that Spark can go through a key's rows once.
    later = Window.partitionBy(*key).orderBy(F.desc("shown_at"), F.desc("impression_id")).rowsBetween(Window.unboundedPreceding, -1)
    on_time = F.col("received_at") < F.date_add(F.to_date("shown_at"), 1).cast("timestamp")
    touches = impressions.where("user_id IS NOT NULL AND ad_id IS NOT NULL").withColumn(
        "_next_shown_at", F.last(F.when(on_time, F.col("shown_at")), ignorenulls=True).over(later)
    )
    same = reduce(Column.__and__, (F.col(name).eqNullSafe(F.col(f"_{name}")) for name in key))
    current = (F.col("acted_at") >= F.col("shown_at")) & (F.col("_next_shown_at").isNull() | (F.col("acted_at") < F.col("_next_shown_at")))
    return touches.join(acts, on=same & current, how="inner").drop("_next_shown_at")


def _cutoff(conf: Conf, last: date) -> Column:
    """etl.splits.label_cutoff as a column of `day`."""
    return F.least(F.col("day").cast("timestamp") + F.lit(timedelta(days=conf.label_days)), F.lit(end_of(last)))


def _in_window(head: Head) -> Column:
    window = F.lit(timedelta(hours=head.window_hours))
    return (F.col("attribution") == head.attribution) & F.col("acted_at").between(F.col("shown_at"), F.col("shown_at") + window)


def _observes(head: Head) -> Column:
    return (F.col("action") == head.observed_by) & _in_window(head)


def _label(name: str, head: Head, conf: Conf) -> Column:
    """Null where the head does not apply or its window, lateness included, is open; a child is 0 and null where its parent is."""
    closes = F.col("shown_at") + F.lit(timedelta(hours=head.window_hours + conf.clock.lateness_hours))
    known = F.coalesce(F.expr(head.applies_to), F.lit(False)) & (closes <= F.col("labels_as_of"))
    if head.observed_by:
        known = known & F.coalesce(F.col(f"_observed_{name}") == 1, F.lit(False))
    own = F.when(known, F.coalesce(F.col(f"_{name}"), F.lit(0)))
    if head.parent is None:
        return own
    parent = F.col(f"label_{head.parent}")
    return F.when(parent == 0, F.lit(0)).when(parent == 1, own)
