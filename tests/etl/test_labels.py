"""When an engagement makes an impression positive, and when a label is masked."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import schemas
from etl.labels import too_late, with_labels
from tests.small import DAY, at, rows, small_conf

LATER = DAY + timedelta(days=3)


def labels(spark: SparkSession, conf: Conf, shown: list[dict], engaged: list[dict], last: date = LATER) -> dict[str, tuple]:
    impressions = rows(spark, schemas.impressions(conf), shown)
    found = with_labels(impressions, rows(spark, schemas.ENGAGEMENTS, engaged), conf, last).collect()
    assert len(found) == len(shown)
    return {row["impression_id"]: tuple(row[f"label_{head}"] for head in conf.heads) for row in found}


def test_a_click_counts_only_inside_the_window_and_once(spark: SparkSession) -> None:
    next_day = DAY + timedelta(days=1)
    cases = [  # impression_id, acted_at of its clicks, click; each is shown at 10:00, the window is 24 hours
        ("never clicked", [], 0),
        ("clicked as it was shown", [at("10:00")], 1),
        ("clicked as the window ends", [at("10:00", next_day)], 1),
        ("one second late", [at("10:00:01", next_day)], 0),
        ("before it was shown", [at("09:59:59")], 0),
        ("twice, and still one row", [at("10:01"), at("10:02")], 1),
    ]
    engaged = [{"impression_id": name, "acted_at": time, "received_at": time} for name, times, _ in cases for time in times]
    found = labels(spark, small_conf(), [{"impression_id": name} for name, _, _ in cases], engaged)
    assert {name: found[name][0] for name, _, _ in cases} == {name: click for name, _, click in cases}


def test_a_good_click_needs_dwell_and_is_zero_without_a_click(spark: SparkSession) -> None:
    cases: list[tuple[str, list[int | None], tuple[int, int]]] = [  # impression_id, dwell of its click in ms, (click, good_click)
        ("no click", [], (0, 0)),
        ("29.999 s", [29_999], (1, 0)),
        ("30 s", [30_000], (1, 1)),
        ("dwell unknown", [None], (1, 0)),
    ]
    engaged = [{"impression_id": name, "dwell_ms": dwell} for name, dwells, _ in cases for dwell in dwells]
    found = labels(spark, small_conf(), [{"impression_id": name} for name, _, _ in cases], engaged)
    assert {name: found[name][:2] for name, _, _ in cases} == {name: wanted for name, _, wanted in cases}


def test_a_head_that_does_not_apply_is_masked_never_zero(spark: SparkSession) -> None:
    shown = [{"impression_id": "in the feed"}, {"impression_id": "a video", "source": "video"}]
    engaged = [{"impression_id": "a video", "action": "scroll_up"}]
    found = labels(spark, small_conf(), shown, engaged)
    assert (found["in the feed"][2], found["a video"][2]) == (0, None)


def test_a_label_is_masked_until_its_window_and_the_lateness_have_closed(spark: SparkSession) -> None:
    # 24 h window + 48 h lateness: an impression of 10 May is settled at the close of the night of 13 May, not of the 12th
    engaged = [{"impression_id": "i"}]
    assert labels(spark, small_conf(), [{"impression_id": "i"}], engaged, last=LATER)["i"][:1] == (1,)
    assert labels(spark, small_conf(), [{"impression_id": "i"}], engaged, last=LATER - timedelta(days=1))["i"] == (None, None, None)


def test_an_engagement_received_after_the_last_rebuild_does_not_count(spark: SparkSession) -> None:
    closes = at("00:00", DAY + timedelta(days=4))
    engaged = [
        {"impression_id": "just in time", "received_at": closes - timedelta(microseconds=1)},
        {"impression_id": "with the next night", "received_at": closes},
    ]
    shown = [{"impression_id": row["impression_id"]} for row in engaged]
    found = labels(spark, small_conf(), shown, engaged, last=DAY + timedelta(days=20))
    assert (found["just in time"][0], found["with the next night"][0]) == (1, 0)


def test_by_last_touch_the_newest_impression_before_the_engagement_gets_it_within_user_ad_and_session(spark: SparkSession) -> None:
    conf = small_conf(heads={"click": {"action": "click", "attribution": "last_touch"}})
    same = {"user_id": "u", "ad_id": "a", "session": "s"}
    next_day = DAY + timedelta(days=1)
    cases: list[tuple[str, dict[str, Any], int]] = [  # impression_id, its columns, click; the engagements are below
        ("earlier", {**same, "shown_at": at("09:00")}, 0),
        ("newest before", {**same, "shown_at": at("10:00")}, 1),
        ("shown after", {**same, "shown_at": at("11:00")}, 0),
        ("another session", {**same, "session": "t"}, 0),
        ("another ad", {**same, "ad_id": "b"}, 0),
        ("without sessions", {**same, "session": None, "ad_id": "c"}, 1),
        ("nobody's", {**same, "user_id": None, "ad_id": "d"}, 0),
        ("on time", {**same, "ad_id": "e"}, 1),
        ("received a day later", {**same, "ad_id": "e", "shown_at": at("10:20"), "received_at": at("09:00", next_day)}, 1),
    ]
    acts = [("a", "s"), ("c", None), ("d", "s"), ("e", "s")]
    engaged = [
        {"impression_id": None, "user_id": "u", "ad_id": ad, "session": session, "acted_at": at("10:30"), "received_at": at("10:31")}
        for ad, session in acts
    ]
    found = labels(spark, conf, [{"impression_id": name, **columns} for name, columns, _ in cases], engaged)
    assert found == {name: (click,) for name, _, click in cases}


def test_an_engagement_that_names_its_impression_is_not_credited_by_last_touch_to_a_head_that_asks_by_impression(
    spark: SparkSession,
) -> None:
    heads = {"click": {"action": "click"}, "touched": {"action": "click", "attribution": "last_touch"}}
    shown = [
        {"impression_id": "named", "user_id": "u", "shown_at": at("09:00")},
        {"impression_id": "newest", "user_id": "u", "shown_at": at("10:00")},
    ]
    engaged = [{"impression_id": "named", "user_id": "u", "ad_id": "a1", "acted_at": at("10:30"), "received_at": at("10:31")}]
    assert labels(spark, small_conf(heads=heads), shown, engaged) == {"named": (1, 0), "newest": (0, 1)}


def test_a_label_is_masked_until_something_shows_that_its_outcome_was_seen(spark: SparkSession) -> None:
    heads = {"long_view": {"action": "next_view", "min_dwell_seconds": 60, "observed_by": "next_view"}}
    cases: list[tuple[str, list[int], int | None]] = [  # impression_id, dwell of what came next in ms, long_view
        ("long", [60_000], 1),
        ("short", [59_999], 0),
        ("last of its session", [], None),
    ]
    engaged = [{"impression_id": name, "action": "next_view", "dwell_ms": dwell} for name, dwells, _ in cases for dwell in dwells]
    found = labels(spark, small_conf(heads=heads), [{"impression_id": name} for name, _, _ in cases], engaged)
    assert found == {name: (label,) for name, _, label in cases}


def test_what_comes_too_late_for_any_label_is_told_apart(spark: SparkSession) -> None:
    limit = timedelta(hours=48)
    engaged = [
        {"impression_id": "in time", "received_at": at("10:02") + limit},
        {"impression_id": "too late", "received_at": at("10:02:01") + limit},
        {"impression_id": "of no head", "action": "share", "received_at": at("10:02:01") + limit},
    ]
    late = too_late(rows(spark, schemas.ENGAGEMENTS, engaged), small_conf()).collect()
    assert [row["impression_id"] for row in late] == ["too late"]
