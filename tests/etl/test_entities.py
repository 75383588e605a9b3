"""What the scorer of a day could have known of a user."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import schemas
from etl.entities import with_entity
from tests.small import DAY, at, rows, small_conf

EVE = DAY - timedelta(days=1)
CONF = small_conf(clock={"entity_lookback_days": 2})


def test_the_newest_state_that_was_received_before_the_day_counts(spark: SparkSession) -> None:
    cases = [  # user_id, its states (valid_from, received_at, country), country seen at 10:00 of the day
        ("no state", [], None),
        ("one", [(at("20:00", EVE), at("22:00", EVE), "NL")], "NL"),
        ("the newer of two", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("21:00", EVE), at("22:00", EVE), "DE")], "DE"),
        ("received on the day itself", [(at("20:00", EVE), at("00:00"), "NL")], None),
        ("newer, but received too late", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("21:00", EVE), at("08:00"), "DE")], "NL"),
        ("valid only from a later moment", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("10:30"), at("23:00", EVE), "DE")], "NL"),
        ("valid from that very moment", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("10:00"), at("23:00", EVE), "DE")], "NL"),
        ("valid just before", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("09:59:59"), at("23:00", EVE), "DE")], "DE"),
        ("corrected before the day", [(at("20:00", EVE), at("22:00", EVE), "NL"), (at("20:00", EVE), at("23:00", EVE), "DE")], "DE"),
        ("older than the lookback", [(at("20:00", DAY - timedelta(days=3)), at("22:00", DAY - timedelta(days=3)), "NL")], None),
        ("as old as the lookback", [(at("20:00", DAY - timedelta(days=2)), at("22:00", DAY - timedelta(days=2)), "NL")], "NL"),
    ]
    shown = rows(spark, schemas.impressions(CONF), [{"impression_id": name, "user_id": name} for name, _, _ in cases])
    given = [
        {"user_id": name, "valid_from": valid, "received_at": received, "country": country, "day": received.date()}
        for name, states, _ in cases
        for valid, received, country in states
    ]
    states = rows(spark, schemas.entity(CONF, "user"), given)
    found = with_entity(shown, states, CONF, "user", DAY, DAY, F.col("shown_at")).collect()
    assert sorted((row["user_id"], row["country"]) for row in found) == sorted((name, country) for name, _, country in cases)


def test_an_unknown_user_has_no_features_and_is_not_lost(spark: SparkSession) -> None:
    shown = rows(spark, schemas.impressions(CONF), [{"impression_id": "i", "user_id": None}])
    states = rows(spark, schemas.entity(CONF, "user"), [{"user_id": "u", "received_at": at("22:00", EVE), "country": "NL"}])
    assert [row["country"] for row in with_entity(shown, states, CONF, "user", DAY, DAY, F.col("shown_at")).collect()] == [None]


moments = st.integers(-72, 48).map(lambda hour: at("00:00") + timedelta(hours=hour))
drawn_states = st.lists(st.tuples(st.sampled_from("uv"), moments, moments, st.sampled_from(["NL", "DE", "BR"])), max_size=10)


def stated(drawn: list[tuple[str, datetime, datetime, str]], known: bool) -> list[dict[str, Any]]:
    """Those of the drawn states that the scorer of DAY knew, or those that it could not know."""
    columns = ("user_id", "valid_from", "received_at", "country")
    states: list[dict[str, Any]] = [{**dict(zip(columns, state, strict=True)), "day": state[2].date()} for state in drawn]
    return [state for state in states if (state["received_at"] < at("00:00")) == known]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=drawn_states, other=drawn_states)
def test_what_is_received_from_the_day_on_moves_nothing(spark: SparkSession, drawn: list, other: list) -> None:
    """States received too late are changed at random, in value, validity and time of receipt: no feature of DAY changes."""
    table = schemas.entity(CONF, "user")
    shown = rows(
        spark,
        schemas.impressions(CONF),
        [{"impression_id": f"{user}{hour}", "user_id": user, "shown_at": at(f"{hour}:00")} for user in "uv" for hour in (10, 20)],
    )

    def countries(states: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
        found = with_entity(shown, rows(spark, table, states), CONF, "user", DAY, DAY, F.col("shown_at")).collect()
        return sorted((row["impression_id"], row["country"]) for row in found)

    known = stated(drawn, known=True)
    assert countries(known + stated(drawn, known=False)) == countries(known + stated(other, known=False)) == countries(known)
