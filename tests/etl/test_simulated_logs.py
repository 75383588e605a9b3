"""Simulated logs: they say what truly happened, late and twice and with gaps as logs do, and every planted fault is told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl.simulate import planted, setting_of, simulate
from tests.etl.simulated import DAYS, ingested, small, truth_of


@pytest.fixture(scope="module")
def made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    conf = small(tmp_path_factory.mktemp("simulated"))
    assert simulate(spark, conf, print)
    return conf


def test_one_row_in_twenty_explores_all_ads_alike_while_the_policy_prefers_some(spark, made):
    rows = truth_of(spark, made).unionByName(truth_of(spark, made, "inventory"))
    alive = setting_of(made).size.ads_alive
    found = {
        row["explored"]: row
        for row in rows.groupBy("explored").agg(F.count(F.lit(1)).alias("n"), F.avg(F.col("ad") % alive).alias("slot")).collect()
    }
    assert found[True]["n"] / (found[True]["n"] + found[False]["n"]) == pytest.approx(0.05, abs=0.01)
    assert found[True]["slot"] == pytest.approx((alive - 1) / 2, rel=0.1) and found[False]["slot"] < alive / 3


def test_each_planted_fault_is_quarantined_on_its_day_and_nothing_else_is(spark, made):
    told = json.loads((Path(made.workdir) / "truth" / "planted.json").read_text())
    assert told == planted(setting_of(made)) and len(told) == 3 * 2 * DAYS
    found: Counter[tuple[str, str]] = Counter()
    for kind in ("impressions", "engagements"):
        for row in ingested(spark, made, kind).where("verdict = 'quarantined'").groupBy("block", "day").count().collect():
            found[row["block"], row["day"].isoformat()] = row["count"]
    assert found == {(row["block"], row["day"]): row["count"] for row in told}


def test_the_logs_say_of_each_impression_what_is_true(spark, made):
    """Clocks, ids and words in three styles: what ingest makes of them is the simulated user, ad, hour and moment, and whether it was explored."""
    truth = truth_of(spark, made).select(
        *(F.col(name).alias(f"true_{name}") for name in ("id", "source", "user", "ad", "hour", "shown_ms", "explored")), "day"
    )
    kept = ingested(spark, made, "impressions").where("verdict = 'kept'").drop("day")
    both = kept.join(truth, on=F.col("impression_id") == F.col("true_id"), how="left")
    holds = {
        "a true id": F.col("true_id").isNotNull(),
        "source": F.col("source") == F.col("true_source"),
        "clock": F.unix_millis("shown_at") == F.unix_millis(F.col("day").cast("timestamp")) + F.col("true_shown_ms"),
        "hour": F.col("hour").cast("long") == F.col("true_hour"),
        "weekday": F.col("weekday") == F.date_format("day", "E"),
        "user": F.col("user_id").isNull() | (F.col("user_id") == F.format_string("u%06d", "true_user")),
        "explored": F.col("explored") == F.col("true_explored"),
        "ad": F.col("ad_id") == F.format_string("a%06d", "true_ad"),
        "device": F.col("device").isNull() | F.col("device").isin("phone", "tablet", "desktop", "tv"),
        "bid": F.col("bid_micros").isNull() | (F.col("bid_micros") > 0),
    }
    wrong = both.agg(*(F.sum((~F.coalesce(condition, F.lit(False))).cast("int")).alias(name) for name, condition in holds.items()))
    assert wrong.first().asDict() == dict.fromkeys(holds, 0)


def test_every_impression_is_delivered_once_but_for_duplicates_and_those_not_due_yet(spark, made):
    rows = ingested(spark, made, "impressions")
    verdicts = {row["verdict"]: row["count"] for row in rows.groupBy("verdict").count().collect()}
    kept, all_rows = verdicts["kept"], 1500 * DAYS
    assert 0.98 * all_rows < kept < all_rows  # what is received after the last day is not delivered
    assert verdicts["duplicate"] / kept == pytest.approx(0.01, abs=0.005)
    assert set(verdicts) == {"kept", "duplicate", "quarantined"}
    missing = (
        rows.where("verdict = 'kept'")
        .agg(F.avg(F.col("user_id").isNull().cast("int")), F.avg(F.col("device").isNull().cast("int")))
        .first()
    )
    assert missing[0] == pytest.approx(0.03, abs=0.01) and missing[1] == pytest.approx(0.02, abs=0.01)
    late = rows.where("verdict = 'kept' AND to_date(received_at) > day").count()
    assert late > 0


def test_engagements_happen_with_their_true_probabilities_inside_the_window_and_reach_us_within_the_lateness(spark, made):
    rows = ingested(spark, made, "engagements").where("verdict = 'kept'")
    truth = truth_of(spark, made)
    both = rows.join(
        truth.select("id", F.unix_millis(F.col("day").cast("timestamp")).alias("midnight"), "shown_ms"),
        on=F.col("impression_id") == F.col("id"),
    )
    first = both.groupBy("impression_id", "action").agg(
        F.min(F.unix_millis("acted_at") - F.col("midnight") - F.col("shown_ms")).alias("after_ms")
    )
    least, most = first.agg(F.min("after_ms"), F.max("after_ms")).first()
    assert least >= 0 and most < 24 * 3_600_000
    delay = both.agg(
        F.max(F.unix_millis("received_at") - F.unix_millis("acted_at")),
        F.avg((F.unix_millis("received_at") - F.unix_millis("acted_at") > 3_600_000).cast("int")),
    ).first()
    assert delay[0] < 54 * 3_600_000 and 0.05 < delay[1] < 0.25  # a duplicate comes up to 6 hours after the 48 of the first

    # Of the first day all acts have been received but for the latest: as many as the truth expects, within four standard deviations.
    acts = {"click": "click", "scroll_up": "scroll_up", "save": "save"}
    day_one = truth.where(F.col("day") == setting_of(made).date(0))
    expected = day_one.agg(*(F.sum(f"p_{head}").alias(head) for head in acts)).first()
    seen = dict(both.join(day_one.select("id"), on="id").groupBy("action").agg(F.count_distinct("impression_id")).collect())
    for action, head in acts.items():
        assert abs(seen[action] - expected[head]) < 4 * np.sqrt(expected[head]) + 0.05 * expected[head], action


def test_a_good_click_is_a_click_with_half_a_minute_of_dwell(spark, made):
    clicks = ingested(spark, made, "engagements").where("verdict = 'kept' AND action = 'click'")
    best = clicks.groupBy("impression_id").agg((F.max("dwell_ms") >= 30_000).cast("int").alias("good"))
    both = best.join(truth_of(spark, made), on=F.col("impression_id") == F.col("id"))
    seen, expected, clicked = both.agg(F.sum("good"), F.sum("c_good_click"), F.count(F.lit(1))).first()
    assert abs(seen - expected) < 4 * np.sqrt(clicked / 4)


def test_video_knows_no_scrolling_up(spark, made):
    assert truth_of(spark, made).where("source = 'video' AND (p_scroll_up IS NOT NULL OR c_scroll_up IS NOT NULL)").count() == 0
    assert ingested(spark, made, "engagements").where("source = 'video' AND action = 'scroll_up'").count() == 0


def test_users_and_ads_were_received_before_the_day_that_shows_them(spark, made):
    """Each impression's ad stands in the export of the day before, as young as it then is; exports begin the day before the first."""
    ads = ingested(spark, made, "ads").where("verdict = 'kept'")
    users = ingested(spark, made, "users").where("verdict = 'kept'")
    clocks = (
        ads.select("valid_from", "received_at")
        .unionByName(users.select("valid_from", "received_at"))
        .distinct()
        .orderBy("received_at")
        .collect()
    )
    assert [(row["valid_from"].hour, row["received_at"].hour) for row in clocks] == [(22, 23)] * (DAYS + 1)
    shown = truth_of(spark, made).select(F.format_string("a%06d", "ad").alias("ad_id"), F.date_sub("day", 1).alias("day")).distinct()
    assert shown.join(ads, on=["ad_id", "day"], how="left_anti").count() == 0
    assert ads.agg(F.min("ad_age_days"), F.max("ad_age_days")).first()[:] == (0, 29)
    assert ads.where(F.size("ad_vector") == 16).count() > 0.9 * ads.count()
    assert users.groupBy("day").count().select("count").distinct().collect()[0][0] == 600


def test_the_inventory_of_a_day_is_sent_the_evening_before_with_one_row_a_candidate(spark, made):
    rows = ingested(spark, made, "inventory").where("verdict = 'kept'")
    truth = truth_of(spark, made, "inventory").where(F.col("day") == setting_of(made).date(DAYS))
    assert rows.join(truth, on=F.col("inventory_id") == F.col("id"), how="inner").count() == rows.count() == truth.count() == 1500
    sent = rows.select("received_at").distinct().collect()
    assert [row["received_at"].strftime("%m-%d %H:%M") for row in sent] == ["05-03 23:30"]
    assert rows.select("weekday").distinct().collect() == [(setting_of(made).date(DAYS).strftime("%a"),)]
