"""Deliveries -> the logs of three sources, each with its own format, column names, clocks and ids.

standard  JSON lines, gzip   clocks in epoch milliseconds, bids in the currency; a planted fault is a line cut in half
shopping  Parquet            clocks in ISO 8601 with offset +02:00, whole numbers as ids, bids in cents; a planted fault lacks id or clock
video     CSV with header    clocks in New York's local time without offset, ids like UUIDs; a planted fault has a word for a number
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from etl.simulated_deliveries import canonical_id
from etl.simulated_exports import ad_key, advertiser_key, campaign_key, user_key

LOGS = ("impressions", "engagements")
#: Spark's writer and its options, by source; `text` lines are JSON already.
WRITERS: dict[str, tuple[str, dict[str, str]]] = {
    "standard": ("text", {"compression": "gzip"}),
    "shopping": ("parquet", {}),
    "video": ("csv", {"header": "true"}),
}
#: What a planted fault is, by source, as told in planted.json.
FAULTS = {"standard": "unreadable", "shopping": "bad row", "video": "unreadable"}


def raw_log(delivered: DataFrame, source: str, log: str) -> DataFrame:
    """day, file, and the raw columns of a source's log of impressions or engagements."""
    return delivered.select("day", "file", *(value.alias(name) for name, value in _COLUMNS[source, log]().items()))


def inventory_file(candidates: DataFrame) -> DataFrame:
    """day, and the raw columns of the inventory of all sources: Parquet, keys as text, clocks as timestamps."""
    return candidates.select(
        "day",
        F.col("id").alias("candidate"),
        F.col("source").alias("feed"),
        "sent_at",
        user_key(F.col("user")).alias("user_key"),
        ad_key(F.col("ad")).alias("ad_key"),
        campaign_key(F.col("campaign")).alias("campaign"),
        advertiser_key(F.col("advertiser")).alias("advertiser"),
        "device",
        F.col("hour").cast("int").alias("hour"),
        "bid_micros",
        "expected_impressions",
    )


def _standard_impressions() -> dict[str, Column]:
    creative = F.struct(
        ad_key(F.col("ad")).alias("id"),
        campaign_key(F.col("campaign")).alias("campaign"),
        advertiser_key(F.col("advertiser")).alias("advertiser"),
    )
    line = {
        "request_id": canonical_id("impressions", "standard", F.col("number")),
        "ts": F.col("shown_ms"),
        "log_ts": F.col("received_ms"),
        "user": user_key(F.col("user")),
        "creative": creative,
        "slot": F.col("slot"),
        "explore": F.col("explored"),
        "bid": F.col("bid_micros") / 1e6,
        "device": F.col("device"),
    }
    return {"value": _json_line(line)}


def _standard_engagements() -> dict[str, Column]:
    line = {
        "request_id": canonical_id("impressions", "standard", F.col("number")),
        "event": F.col("action"),
        "ts": F.col("acted_ms"),
        "log_ts": F.col("received_ms"),
        "dwell_ms": F.col("dwell_ms"),
    }
    return {"value": _json_line(line)}


def _shopping_impressions() -> dict[str, Column]:
    return {
        **_shopping_keys("shown_at", "shown_ms"),
        "shopper": F.col("user"),
        "ad_no": F.col("ad"),
        "campaign_no": F.col("campaign"),
        "advertiser_no": F.col("advertiser"),
        "shelf_place": F.col("slot"),
        "picked_by": F.when(F.col("explored"), "DRAW").otherwise("RANKER"),
        "bid_cents": F.col("bid_micros") / 1e4,
        "device_class": F.upper("device"),
    }


def _shopping_engagements() -> dict[str, Column]:
    names = {"click": "CLICK", "scroll_up": "SCROLL_UP", "save": "WISHLIST", "hide": "NOT_INTERESTED"}
    return {
        **_shopping_keys("happened_at", "acted_ms"),
        "interaction": _renamed("action", names),
        "dwell_s": F.col("dwell_ms") / 1000.0,
    }


def _video_impressions() -> dict[str, Column]:
    return {
        "view_uuid": canonical_id("impressions", "video", F.col("number")),
        "seen_local": _new_york("shown_ms"),
        "logged_local": _new_york("received_ms"),
        "viewer": F.concat(F.lit("viewer:"), F.col("user").cast("string")),
        "clip": F.concat(F.lit("ad/"), F.col("ad").cast("string")),
        "campaign": campaign_key(F.col("campaign")),
        "advertiser": advertiser_key(F.col("advertiser")),
        "slot": F.col("slot"),
        "random": F.col("explored").cast("int"),
        "bid_usd": F.when(F.col("spoiled"), "n/a").otherwise((F.col("bid_micros") / 1e6).cast("string")),
        "screen": _renamed("device", {"phone": "mobile", "tablet": "pad", "desktop": "computer", "tv": "tv"}),
    }


def _video_engagements() -> dict[str, Column]:
    names = {"click": "tap", "save": "bookmark", "hide": "dismiss", "scroll_up": "scroll"}
    return {
        "view_uuid": canonical_id("impressions", "video", F.col("number")),
        "act": _renamed("action", names),
        "act_local": _new_york("acted_ms"),
        "logged_local": _new_york("received_ms"),
        "dwell_ms": F.when(F.col("spoiled"), "n/a").otherwise(F.col("dwell_ms").cast("string")),
    }


_COLUMNS: dict[tuple[str, str], Callable[[], dict[str, Column]]] = {
    ("standard", "impressions"): _standard_impressions,
    ("standard", "engagements"): _standard_engagements,
    ("shopping", "impressions"): _shopping_impressions,
    ("shopping", "engagements"): _shopping_engagements,
    ("video", "impressions"): _video_impressions,
    ("video", "engagements"): _video_engagements,
}


def _json_line(parts: dict[str, Column]) -> Column:
    line = F.to_json(F.struct(*(value.alias(name) for name, value in parts.items())))
    return F.when(F.col("spoiled"), F.left(line, F.floor(F.length(line) / 2).cast("int"))).otherwise(line)


def _shopping_keys(clock: str, at_ms: str) -> dict[str, Column]:
    """Id and clocks; of planted faults every other lacks its id, the rest their clock."""
    lacks_id = F.col("spoiled") & (F.col("place") % 2 == 0)
    lacks_clock = F.col("spoiled") & ~lacks_id
    return {
        "impression_no": F.when(~lacks_id, F.col("number")),
        clock: F.when(~lacks_clock, _iso(at_ms)),
        "logged_at": _iso("received_ms"),
    }


def _iso(at_ms: str) -> Column:
    local = F.timestamp_millis(F.col(at_ms) + 2 * 3_600_000)
    return F.concat(F.date_format(local, "yyyy-MM-dd'T'HH:mm:ss.SSS"), F.lit("+02:00"))


def _new_york(at_ms: str) -> Column:
    return F.date_format(F.from_utc_timestamp(F.timestamp_millis(F.col(at_ms)), "America/New_York"), "yyyy-MM-dd HH:mm:ss.SSS")


def _renamed(column: str, names: dict[str, str]) -> Column:
    """The source's own word for a value; null stays null."""
    return F.create_map(*(F.lit(text) for pair in names.items() for text in pair))[F.col(column)]
