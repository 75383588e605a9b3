"""The examples of the demo's logs as somebody would write them by hand: one Spark job, no configuration, plain Parquet out.

It does what the rows need and nothing else: no quarantine, no row account, no gate, no versions, no skipping. Bad lines are dropped unseen.
"""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

DAYS_TO_LABEL = 4
LOCAL = ("yyyy-MM-dd HH:mm:ss.SSS", "America/New_York")
STANDARD = "request_id STRING, ts BIGINT, log_ts BIGINT, user STRING, creative STRUCT<id: STRING, campaign: STRING, advertiser: STRING>, \
slot INT, explore BOOLEAN, bid DOUBLE, device STRING"
VIDEO = "view_uuid STRING, seen_local STRING, logged_local STRING, viewer STRING, clip STRING, campaign STRING, advertiser STRING, \
slot INT, random INT, bid_usd DOUBLE, screen STRING"
USER = ("country", "age_band", "log_activity", "signal_0", "signal_1")
AD = ("category", "format", "ad_age_days", "ad_vector")


def write_examples(spark: SparkSession, landing: str, out: str, first: date, last: date) -> None:
    """Days `first`..`last` of examples, as of the end of `last`, partitioned by day."""
    end = F.lit(last + timedelta(days=1)).cast("timestamp")
    inside = F.col("day").between(F.lit(first), F.lit(last)) & (F.col("received_at") < end)
    shown = impressions(spark, landing).withColumn("day", F.to_date("shown_at")).where(inside)
    newest = Window.partitionBy("day", "impression_id").orderBy("received_at")
    shown = shown.withColumn("place", F.row_number().over(newest)).where("place = 1").drop("place")
    shown = shown.withColumn("labels_as_of", F.least(F.col("day").cast("timestamp") + F.expr(f"INTERVAL {DAYS_TO_LABEL} DAY"), end))
    rows = shown.join(engaged(spark, landing, shown), on="impression_id", how="left")
    for name, key, columns in (("users", "user", USER), ("ads", "ad", AD)):
        rows = rows.join(states(spark, landing, name, key, columns), on=[f"{key}_id", "day"], how="left")
    labelled(rows).write.mode("overwrite").partitionBy("day").parquet(out)


def impressions(spark: SparkSession, landing: str) -> DataFrame:
    standard = spark.read.schema(STANDARD).json(f"{landing}/standard/impressions/*/part-*", mode="DROPMALFORMED")
    shopping = spark.read.parquet(f"{landing}/shopping/impressions/*/part-*")
    video = spark.read.schema(VIDEO).csv(f"{landing}/video/impressions/*/part-*", header=True, mode="DROPMALFORMED")
    return (
        standard.select(
            *row(
                "standard", F.col("request_id"), F.timestamp_millis("ts"), F.timestamp_millis("log_ts"), F.col("user"), F.col("creative.id")
            ),
            *paid(F.col("creative.campaign"), F.col("creative.advertiser"), F.col("slot"), F.col("bid") * 1000000, F.col("device")),
            F.col("explore").alias("explored"),
        )
        .unionByName(
            shopping.select(
                *row(
                    "shopping",
                    F.expr("concat('h-', impression_no)"),
                    F.expr("try_cast(shown_at as timestamp)"),
                    F.expr("try_cast(logged_at as timestamp)"),
                    F.expr("concat('u', lpad(shopper, 6, '0'))"),
                    F.expr("concat('a', lpad(ad_no, 6, '0'))"),
                ),
                *paid(
                    F.expr("concat('c', campaign_no)"),
                    F.expr("concat('adv', advertiser_no)"),
                    F.col("shelf_place"),
                    F.col("bid_cents") * 10000,
                    F.lower("device_class"),
                ),
                (F.col("picked_by") == "DRAW").alias("explored"),
            )
        )
        .unionByName(
            video.select(
                *row(
                    "video",
                    F.col("view_uuid"),
                    utc("seen_local"),
                    utc("logged_local"),
                    F.expr("concat('u', lpad(substring_index(viewer, ':', -1), 6, '0'))"),
                    F.expr("concat('a', lpad(substring_index(clip, '/', -1), 6, '0'))"),
                ),
                *paid(
                    F.col("campaign"),
                    F.col("advertiser"),
                    F.col("slot"),
                    F.col("bid_usd") * 1000000,
                    F.expr(
                        "case screen when 'mobile' then 'phone' when 'pad' then 'tablet' when 'computer' then 'desktop' else screen end"
                    ),
                ),
                (F.col("random") == 1).alias("explored"),
            )
        )
        .where("impression_id IS NOT NULL AND shown_at IS NOT NULL AND received_at >= shown_at AND length(ad_id) > 0")
        .withColumn("hour", F.hour("shown_at").cast("string"))
        .withColumn("weekday", F.date_format("shown_at", "E"))
    )


def row(source: str, impression: Column, shown: Column, received: Column, user: Column, ad: Column) -> tuple[Column, ...]:
    names = ("impression_id", "shown_at", "received_at", "user_id", "ad_id")
    named = tuple(value.alias(name) for name, value in zip(names, (impression, shown, received, user, ad), strict=True))
    return (F.lit(source).alias("source"), F.lit(source).alias("tower"), F.lit(None).cast("string").alias("session"), *named)


def paid(campaign: Column, advertiser: Column, slot: Column, micros: Column, device: Column) -> tuple[Column, ...]:
    bid = F.round(micros).try_cast("bigint").alias("bid_micros")
    return campaign.alias("campaign_id"), advertiser.alias("advertiser_id"), slot.cast("int").alias("position"), bid, device.alias("device")


def utc(name: str) -> Column:
    return F.to_utc_timestamp(F.try_to_timestamp(name, F.lit(LOCAL[0])), LOCAL[1])


def engaged(spark: SparkSession, landing: str, shown: DataFrame) -> DataFrame:
    """Which actions an impression drew within a day and in time: one row an impression that drew any."""
    standard = spark.read.schema("request_id STRING, event STRING, ts BIGINT, log_ts BIGINT, dwell_ms BIGINT").json(
        f"{landing}/standard/engagements/*/part-*", mode="DROPMALFORMED"
    )
    shopping = spark.read.parquet(f"{landing}/shopping/engagements/*/part-*")
    video = spark.read.schema("view_uuid STRING, act STRING, act_local STRING, logged_local STRING, dwell_ms BIGINT").csv(
        f"{landing}/video/engagements/*/part-*", header=True, mode="DROPMALFORMED"
    )
    wish = "case interaction when 'WISHLIST' then 'save' when 'NOT_INTERESTED' then 'hide' else lower(interaction) end"
    tap = "case act when 'tap' then 'click' when 'bookmark' then 'save' when 'dismiss' then 'hide' else act end"
    ids = (F.col("request_id"), F.expr("concat('h-', impression_no)"), F.col("view_uuid"))
    actions = (F.col("event"), F.expr(wish), F.expr(tap))
    acted = (F.timestamp_millis("ts"), F.expr("try_cast(happened_at as timestamp)"), utc("act_local"))
    told = (F.timestamp_millis("log_ts"), F.expr("try_cast(logged_at as timestamp)"), utc("logged_local"))
    dwell = (F.col("dwell_ms"), F.expr("try_cast(round(dwell_s * 1000) as bigint)"), F.col("dwell_ms"))
    logs = [
        frame.select(
            ids[i].alias("impression_id"), actions[i].alias("act"), acted[i].alias("acted"), told[i].alias("told"), dwell[i].alias("dwell")
        )
        for i, frame in enumerate((standard, shopping, video))
    ]
    acts = logs[0].unionByName(logs[1]).unionByName(logs[2]).where("told >= acted")
    in_time = (F.col("told") < F.col("labels_as_of")) & F.col("acted").between(
        F.col("shown_at"), F.col("shown_at") + F.expr("INTERVAL 24 HOUR")
    )
    matched = acts.join(shown.select("impression_id", "shown_at", "labels_as_of"), on="impression_id", how="inner").where(in_time)
    wanted = {name: F.col("act") == name for name in ("click", "scroll_up", "save", "hide")}
    wanted["good_click"] = wanted["click"] & (F.coalesce("dwell", F.lit(0)) >= 30000)
    return matched.groupBy("impression_id").agg(*(F.max(test.cast("int")).alias(f"has_{name}") for name, test in wanted.items()))


def states(spark: SparkSession, landing: str, name: str, key: str, columns: tuple[str, ...]) -> DataFrame:
    """The export of a day is used on the next."""
    raw = spark.read.parquet(f"{landing}/{name}/*/part-*")
    renamed = {"ad_age_days": "age_days", "ad_vector": "vector"}
    return raw.select(
        F.col(f"{key}_key").alias(f"{key}_id"),
        F.date_add(F.to_date("loaded_at"), 1).alias("day"),
        *(F.col(renamed.get(column, column)).alias(column) for column in columns),
    )


def labelled(rows: DataFrame) -> DataFrame:
    closed = F.col("shown_at") + F.expr("INTERVAL 72 HOUR") <= F.col("labels_as_of")

    def label(name: str, also: Column | None = None) -> Column:
        known = closed if also is None else closed & also
        return F.when(known, F.coalesce(f"has_{name}", F.lit(0)))

    with_top = rows.withColumns(
        {
            "label_click": label("click"),
            "label_scroll_up": label("scroll_up", F.col("source") != "video"),
            "label_save": label("save"),
            "label_hide": label("hide"),
        }
    )
    good = F.when(F.col("label_click") == 0, F.lit(0)).when(F.col("label_click") == 1, label("good_click"))
    return with_top.withColumn("label_good_click", good).drop(
        *(f"has_{name}" for name in ("click", "scroll_up", "save", "hide", "good_click"))
    )
