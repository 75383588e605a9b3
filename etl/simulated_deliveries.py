"""True rows -> what is logged of them and when: acts, receipt, duplicates, missing values, planted faults. No format yet.

`day` of a delivery is the UTC date of its receipt, by which files are laid out; a planted fault (`spoiled`) is one more delivery, received
as its impression was shown. What would be received after the last simulated day has not been delivered.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from etl.simulated_draws import entry
from etl.simulated_entities import campaign_of
from etl.simulated_exports import or_missing
from etl.simulated_levels import DEVICES, Setting

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
GOOD_DWELL_MS = 30_000  # a good click is one with this much dwell
REPEATED_CLICKS = 0.05  # of clicks, followed by a second, short one
SLOTS = 5  # on a page


def canonical_id(kind: str, source: str, number: Column) -> Column:
    """impression_id or inventory_id, as conf/demo.yaml makes it of the raw logs."""
    if kind == "inventory":
        return F.concat(F.lit(f"{source}-"), number.cast("string"))
    if source == "video":
        return uuid_of(number)
    return (
        F.concat(F.lit("s-"), F.lpad(number.cast("string"), 9, "0"))
        if source == "standard"
        else F.concat(F.lit("h-"), number.cast("string"))
    )


def uuid_of(number: Column) -> Column:
    digits = F.lower(F.concat(*(F.lpad(F.hex(F.xxhash64(F.lit(half), number)), 16, "0") for half in ("high", "low"))))
    return F.concat_ws("-", *(F.substring(digits, start, length) for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))))


def impressions_delivered(truth: DataFrame, setting: Setting) -> DataFrame:
    """Grain a delivery of an impression: observed columns, shown_ms and received_ms since the epoch."""
    draws, row, planted = setting.draws, F.col("row"), F.col("place") < setting.size.corrupt_lines_a_day
    late = draws.uniform("late_impression", row) < setting.world.delivery.late_impressions
    delay = F.when(late, draws.pick("late_by", DAY_MS // 2, row)).otherwise(_soon(setting, "received_in", 20_000, row))
    rows = truth.select(
        "row", "number", "place", "explored", *observed(setting),
        draws.pick("slot", SLOTS, row).cast("int").alias("slot"),
        shown_at_ms(setting).alias("shown_ms"),
        delay.alias("delay_ms"),
        F.explode(F.when(planted, F.array(F.lit(False), F.lit(True))).otherwise(F.array(F.lit(False)))).alias("spoiled"),
    )  # fmt: skip
    return _delivered(rows, "shown_ms", setting)


def engagements_delivered(truth: DataFrame, setting: Setting) -> DataFrame:
    """Grain a delivery of an act: action, acted_ms and received_ms since the epoch, dwell_ms (of clicks).

    Acts happen with their true probabilities and inside the window; most are received within minutes, some up to two days later.
    """
    draws, row, delivery = setting.draws, F.col("row"), setting.world.delivery
    acts = truth.select("row", "number", "place", F.explode(F.array(*_acts(setting))).alias("act")).where("act is not null")
    rows = acts.select("row", "number", "place", "act.*")
    key, lateness_ms = (row, F.col("acted_ms")), int(delivery.lateness_hours * HOUR_MS)
    luck = draws.uniform("late_act", *key)
    delay = (
        F.when(luck < delivery.too_late_engagements, draws.pick("act_late_by", DAY_MS, *key) + lateness_ms)
        .when(luck < delivery.too_late_engagements + delivery.late_engagements, draws.pick("act_late_by", lateness_ms, *key))
        .otherwise(_soon(setting, "act_received_in", 60_000, *key))
    )
    return _delivered(rows.withColumn("delay_ms", delay), "acted_ms", setting)


def _acts(setting: Setting) -> list[Column]:
    """Structs (action, acted_ms, dwell_ms, spoiled), null where the act does not happen; the last is the planted fault."""
    draws, row, shown = setting.draws, F.col("row"), shown_at_ms(setting)
    window_ms = int(setting.world.delivery.window_hours * HOUR_MS)

    def act(action: str, happens: Column, acted_ms: Column, dwell_ms: Column, spoiled: bool = False) -> Column:
        parts = {"action": F.lit(action), "acted_ms": acted_ms, "dwell_ms": dwell_ms.cast("long"), "spoiled": F.lit(spoiled)}
        return F.when(happens, F.struct(*(value.alias(name) for name, value in parts.items())))

    def does(head: str) -> Column:
        return draws.uniform(f"act/{head}", row) < F.coalesce(F.col(f"c_{head}"), F.lit(0.0))

    def within_window(action: str) -> Column:
        """Soon more often than late: half of the acts within 1/64 of the window."""
        return shown + F.floor(F.pow(draws.uniform(f"acted_in/{action}", row), F.lit(6.0)) * window_ms)

    short, none = draws.pick("short_dwell", GOOD_DWELL_MS, row), F.lit(None)
    dwell = F.when(does("good_click"), _soon(setting, "long_dwell", 40_000, row) + GOOD_DWELL_MS).otherwise(short)
    again = does("click") & (draws.uniform("act/again", row) < REPEATED_CLICKS)
    again_at = within_window("click") + draws.pick("again_in", HOUR_MS, row) + 1
    return [
        act("click", does("click"), within_window("click"), dwell),
        act("click", again, again_at, short),
        *(act(name, does(name), within_window(name), none) for name in setting.heads if name not in ("click", "good_click")),
        act("click", F.col("place") < setting.size.corrupt_lines_a_day, shown, none, spoiled=True),
    ]


def candidates(truth: DataFrame, setting: Setting) -> DataFrame:
    """Grain a row of an inventory: observed columns, sent_at 23:30 UTC before the day scored."""
    expected = F.exp(setting.draws.normal("expected_impressions", F.col("row")) * 0.5)
    midnight = F.lit(setting.size.first_day).cast("timestamp") + F.make_dt_interval(F.col("day_index").cast("int"))
    return truth.select(
        "day", "id", "source", "hour", *observed(setting), expected.alias("expected_impressions"),
        (midnight - F.make_dt_interval(mins=F.lit(30))).alias("sent_at"),
    )  # fmt: skip


def observed(setting: Setting) -> list[Column]:
    """user, device, bid_micros (null where missing), ad, campaign, advertiser of a true row."""
    draws, row, campaign = setting.draws, F.col("row"), campaign_of(setting, F.col("ad"))
    bid = F.round(F.exp(draws.normal("bid/ad", F.col("ad")) * 0.5 + draws.normal("bid", row) * 0.2) * 500_000).cast("long")
    return [
        F.when(draws.uniform("unknown_user", row) >= setting.world.delivery.unknown_users, F.col("user")).alias("user"),
        or_missing(setting, "device", entry(DEVICES, F.col("device")), row).alias("device"),
        or_missing(setting, "bid", bid, row).alias("bid_micros"),
        F.col("ad"),
        campaign.alias("campaign"),
        entry(setting.campaign_advertiser, campaign).alias("advertiser"),
    ]


def shown_at_ms(setting: Setting) -> Column:
    """When a true row was shown, milliseconds since the epoch."""
    return (F.col("day_index") + _epoch_day(setting.size.first_day)) * DAY_MS + F.col("shown_ms")


def _delivered(rows: DataFrame, at_ms: str, setting: Setting) -> DataFrame:
    """delay_ms -> received_ms; adds duplicates (received up to 6 hours after the first), day, and file, a number in [0, files_a_day)."""
    draws, size, key, spoiled = setting.draws, setting.size, (F.col("row"), F.col(at_ms)), F.col("spoiled")
    twice = ~spoiled & (draws.uniform("duplicate", *key) < size.duplicate_share)
    later = F.when(twice, F.array(F.lit(0), draws.pick("duplicate_in", DAY_MS // 4, *key))).otherwise(F.array(F.lit(0)))
    copies = rows.withColumn("later", F.explode(later))
    received = F.col(at_ms) + F.when(spoiled, 0).otherwise(F.col("delay_ms") + F.col("later"))
    epoch_day = F.floor(F.col("received_ms") / DAY_MS)
    return (
        copies.withColumn("received_ms", received)
        .where(epoch_day < _epoch_day(size.first_day) + size.days)
        .withColumns(
            {
                "day": F.date_from_unix_date(epoch_day.cast("int")),
                "file": draws.pick("file", setting.files_a_day, *key, F.col("received_ms")),
            }
        )
    )


def _soon(setting: Setting, stream: str, mean_ms: int, *key: Column) -> Column:
    """A waiting time of exponential distribution, milliseconds."""
    return F.floor(-F.log(setting.draws.uniform(stream, *key)) * mean_ms)


def _epoch_day(day: date) -> int:
    return (day - date(1970, 1, 1)).days
