"""Labels: was an impression engaged with inside a head's window? 1, 0, or null where that is not known or not asked.

Windows begin at shown_at and include both ends. An engagement counts only if received before the label cutoff of the impression's day,
the end of a night: what is received at that very moment belongs to the next day, and to the next night.
"""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Conf, Head
from etl.splits import end_of


def with_labels(impressions: DataFrame, engagements: DataFrame, conf: Conf, last: date) -> DataFrame:
    """Add `label_<head>` for every head and `labels_as_of`; one row an impression, in and out, however many engagements it drew.

    `last` is the last night of the range. An engagement is matched by impression_id.
    """
    dated = impressions.withColumn("labels_as_of", _cutoff(conf, last))
    engaged = (
        engagements.select("impression_id", "action", "acted_at", F.col("received_at").alias("_received_at"), "dwell_ms")
        .join(dated.select("impression_id", "shown_at", "labels_as_of"), on="impression_id", how="inner")
        .where(F.col("_received_at") < F.col("labels_as_of"))
        .groupBy("impression_id")
        .agg(*(F.max(_counts_for(head).cast("int")).alias(f"_{name}") for name, head in conf.heads.items()))
    )
    labelled = dated.join(engaged, on="impression_id", how="left")
    for name, head in conf.heads.items():
        labelled = labelled.withColumn(f"label_{name}", _label(name, head, conf))
    return labelled.drop(*(f"_{name}" for name in conf.heads))


def _cutoff(conf: Conf, last: date) -> Column:
    """etl.splits.label_cutoff as a column of `day`."""
    return F.least(F.col("day").cast("timestamp") + F.lit(timedelta(days=conf.label_days)), F.lit(end_of(last)))


def _counts_for(head: Head) -> Column:
    window = F.lit(timedelta(hours=head.window_hours))
    counts = (F.col("action") == head.action) & F.col("acted_at").between(F.col("shown_at"), F.col("shown_at") + window)
    if head.min_dwell_seconds > 0:
        counts = counts & (F.coalesce(F.col("dwell_ms"), F.lit(0)) >= int(head.min_dwell_seconds * 1000))
    return counts


def _label(name: str, head: Head, conf: Conf) -> Column:
    """Null where the head does not apply or its window, lateness included, is open; a child is 0 and null where its parent is."""
    closes = F.col("shown_at") + F.lit(timedelta(hours=head.window_hours + conf.clock.lateness_hours))
    known = F.coalesce(F.expr(head.applies_to), F.lit(False)) & (closes <= F.col("labels_as_of"))
    own = F.when(known, F.coalesce(F.col(f"_{name}"), F.lit(0)))
    if head.parent is None:
        return own
    parent = F.col(f"label_{head.parent}")
    return F.when(parent == 0, F.lit(0)).when(parent == 1, own)
