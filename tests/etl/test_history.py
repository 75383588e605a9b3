"""Prior-day engagement rates: what they count, over which days, and that the future cannot move them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conf.history import history_column
from conf.load import ConfError
from conf.schema import Conf
from etl import schemas
from etl.history import daily_counts, first_history_day, first_impression_day, with_history
from tests.small import DAY, at, rows, small_conf

ONE_DAY = timedelta(days=1)
FIRST = DAY - 5 * ONE_DAY  # the first day of the logs here


def history_conf(*columns: str, **over: Any) -> Conf:
    features = [{"column": name, "family": "history", "type": "continuous"} for name in columns]
    return small_conf(template={"features": features}, **over)


def counts(spark: SparkSession, conf: Conf, shown: list[dict], engaged: list[dict], first: date = FIRST, last: date = DAY) -> Any:
    impressions = rows(spark, schemas.impressions(conf), shown)
    return daily_counts(impressions, rows(spark, schemas.ENGAGEMENTS, engaged), conf, first, last)


def features(spark: SparkSession, conf: Conf, shown: list[dict], engaged: list[dict], asked: list[dict]) -> list[tuple]:
    """History features of the rows `asked`, each of DAY, in their order."""
    history = counts(spark, conf, shown, engaged, last=DAY - ONE_DAY)
    found = with_history(rows(spark, schemas.impressions(conf), asked), history, conf, DAY, DAY).collect()
    assert len(found) == len(asked)
    by_id = {row["impression_id"]: tuple(row[name.column] for name in conf.template.features) for row in found}
    return [by_id[row["impression_id"]] for row in asked]


def shown_on(day: date, name: str, **over: Any) -> dict[str, Any]:
    return {"impression_id": name, "day": day, "shown_at": at("10:00", day), "received_at": at("10:01", day), **over}


def clicked_on(day: date, name: str, **over: Any) -> dict[str, Any]:
    return {"impression_id": name, "acted_at": at("10:05", day), "received_at": at("10:06", day), "action": "click", **over}


def test_a_days_counts_are_of_what_became_known_on_it(spark: SparkSession) -> None:
    eve = DAY - ONE_DAY
    shown = [
        shown_on(eve, "plain"),
        shown_on(eve, "late", received_at=at("00:30")),  # received a day after it was shown
        shown_on(eve, "clicked at once"),
        shown_on(eve, "clicked, told later"),
        shown_on(eve, "twice"),
    ]
    engaged = [
        clicked_on(eve, "clicked at once"),
        clicked_on(eve, "clicked, told later", received_at=at("08:00")),
        clicked_on(eve, "twice"),
        clicked_on(eve, "twice", acted_at=at("10:09", eve), received_at=at("07:00")),  # one engaged impression, on its first day
        clicked_on(eve, "late"),  # known only with its impression
    ]
    found = counts(spark, history_conf("ad_click_rate"), shown, engaged).collect()
    by_day = {row["day"]: (row["kind"], row["key"], row["impressions"], row["engaged_click"], row["engaged_good_click"]) for row in found}
    assert by_day == {eve: ("ad", "a1", 4, 2, 0), DAY: ("ad", "a1", 1, 2, 0)}


def test_rates_are_smoothed_towards_the_overall_rate_of_the_same_days(spark: SparkSession) -> None:
    conf = history_conf("ad_click_rate", "ad_click_count", "ad_impressions", "ad_days_since", history={"prior_impressions": 10, "days": 3})
    eve, older = DAY - ONE_DAY, DAY - 3 * ONE_DAY
    shown = [shown_on(eve, f"hot {n}", ad_id="hot") for n in range(4)] + [shown_on(older, f"cold {n}", ad_id="cold") for n in range(6)]
    shown += [shown_on(DAY - 4 * ONE_DAY, "out of the window", ad_id="cold")]
    engaged = [clicked_on(eve, "hot 0"), clicked_on(eve, "hot 1")]
    asked = [{"impression_id": "h", "ad_id": "hot"}, {"impression_id": "c", "ad_id": "cold"}, {"impression_id": "n", "ad_id": "new"}]
    hot, cold, new = features(spark, conf, shown, engaged, asked)
    overall = 2 / 10  # 2 clicks on 4 + 6 impressions
    assert hot == (pytest.approx((2 + 10 * overall) / (4 + 10)), 2, 4, 1)
    assert cold == (pytest.approx((0 + 10 * overall) / (6 + 10)), 0, 6, 3)
    assert new == (pytest.approx(overall), 0, 0, None)


def test_a_key_may_be_an_expression_and_a_null_key_is_not_counted(spark: SparkSession) -> None:
    conf = history_conf("slot_impressions", "user_impressions", history={"keys": {"slot": "concat(source, '/', ad_id)", "user": "user_id"}})
    shown = [shown_on(DAY - ONE_DAY, "known", user_id="u"), shown_on(DAY - ONE_DAY, "unknown")]
    asked = [{"impression_id": "x", "user_id": "u"}, {"impression_id": "y"}]
    assert features(spark, conf, shown, [], asked) == [(2, 1), (2, 0)]


def test_one_expression_may_be_two_keys_that_look_back_over_days_of_their_own(spark: SparkSession) -> None:
    own = {"days": 5, "days_of": {"user_lately": 1}, "keys": {"user": "user_id", "user_lately": "user_id"}}
    conf = history_conf("user_impressions", "user_lately_impressions", history=own)
    shown = [shown_on(DAY - back * ONE_DAY, f"{back} days ago", user_id="u1") for back in (1, 2, 5)]
    assert features(spark, conf, shown, [], [{"impression_id": "asked", "user_id": "u1"}]) == [(3.0, 1.0)]
    assert first_history_day(DAY, conf) == DAY - 5 * ONE_DAY
    with pytest.raises(ConfError, match="days_of names ad, which is no key; keys: user, user_lately"):
        history_conf("user_impressions", history=own | {"days_of": {"ad": 3}})


def test_a_name_that_asks_for_nothing_known_is_refused_and_the_forms_are_named() -> None:
    assert history_column("user_good_click_rate", ["user"], ["click", "good_click"]) == ("user", "rate", "good_click")
    with pytest.raises(ConfError, match=r"user_click_share is none of <key>_impressions.*keys: user, ad, campaign, advertiser"):
        history_conf("user_click_share")


moments = st.integers(0, 6 * 24).map(lambda hour: at("00:00", FIRST) + timedelta(hours=hour))  # FIRST to the end of DAY
events = st.lists(st.tuples(moments, st.integers(0, 40), st.booleans(), moments, st.integers(0, 70)), min_size=1, max_size=12)


def logs(drawn: list[tuple[datetime, int, bool, datetime, int]]) -> tuple[list[dict], list[dict]]:
    """Impressions (shown, hours until receipt) and, where true, a click of each (at the later of shown and acted, hours until receipt)."""
    shown, engaged = [], []
    for number, (when, delay, clicks, acted, acted_delay) in enumerate(drawn):
        name = f"i{number}"
        shown.append(
            {
                "impression_id": name,
                "day": when.date(),
                "shown_at": when,
                "received_at": when + timedelta(hours=delay),
                "ad_id": f"a{number % 2}",
                "user_id": f"u{number % 3}",
            }
        )
        if clicks:
            done = max(acted, when)
            engaged.append({"impression_id": name, "acted_at": done, "received_at": done + timedelta(hours=acted_delay)})
    return shown, engaged


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=events, other=events)
def test_nothing_that_the_scorer_could_not_know_moves_a_feature(spark: SparkSession, drawn: list, other: list) -> None:
    """Whatever is received from DAY on, or not received at all, is changed at random: no feature of DAY changes."""
    conf = history_conf("ad_click_rate", "ad_impressions", "user_click_count", "user_days_since")
    asked = [{"impression_id": f"{ad}{user}", "ad_id": ad, "user_id": user} for ad in ("a0", "a1") for user in ("u0", "u1", "u2")]
    shown, engaged = logs(drawn)
    other_shown, other_engaged = logs(other)
    began = at("00:00")
    known = [row for row in shown if row["received_at"] < began]
    told = [row for row in engaged if row["received_at"] < began]
    later = [{**row, "impression_id": f"other {row['impression_id']}"} for row in other_shown if row["received_at"] >= began]
    later_told = [row for row in other_engaged if row["received_at"] >= began]
    before = features(spark, conf, known, told, asked)
    after = features(spark, conf, known + later, told + later_told, asked)
    assert before == after


def test_days_in_one_range_and_one_by_one_are_counted_alike(spark: SparkSession) -> None:
    conf = history_conf("ad_click_rate")
    drawn = [
        (at("00:00", FIRST) + timedelta(hours=7 * n), 3 * n, n % 2 == 0, at("12:00", FIRST + n % 4 * ONE_DAY), 5 * n) for n in range(16)
    ]
    shown, engaged = logs(drawn)
    whole = sorted(counts(spark, conf, shown, engaged).collect())
    single: list[Any] = []
    for number in range((DAY - FIRST).days + 1):
        day = FIRST + number * ONE_DAY
        since = first_impression_day(day, conf)
        seen = [row for row in shown if row["day"] >= since]
        single += counts(spark, conf, seen, engaged, first=day, last=day).collect() if seen else []
    assert whole == sorted(single) and whole
