"""What Spark finds of each column, on rows with one of every kind and with two that know too much."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Conf
from etl import schemas
from etl.description import Described, Labelled
from etl.leaks import suspicions
from etl.profile import candidates, described
from etl.proposal import propose
from tests.small import rows, small_conf

ROWS = 2000
FEATURES: list[dict[str, Any]] = [
    {"column": "user_id", "family": "user", "type": "hashed", "buckets": 100},
    {"column": "country", "family": "user", "type": "hashed", "buckets": 10},
    {"column": "price", "family": "ad", "type": "continuous"},
    {"column": "look", "family": "ad", "type": "dense", "width": 3},
    {"column": "never", "family": "ad", "type": "continuous"},
    {"column": "request", "family": "context", "type": "hashed", "buckets": 100},
    {"column": "title", "family": "context", "type": "hashed", "buckets": 100},
    {"column": "topics", "family": "user", "type": "hashed", "buckets": 100, "length": 2},
    {"column": "inviter", "family": "user", "type": "hashed", "buckets": 100},
    {"column": "verdict", "family": "context", "type": "hashed", "buckets": 10},
    {"column": "dwell", "family": "context", "type": "continuous"},
]


def conf(**over: Any) -> Conf:
    return small_conf(template={"features": FEATURES}, **over)


def example(number: int) -> dict[str, Any]:
    """One row in ten is clicked; `verdict` says so, and `dwell` is there for those and five others."""
    clicked = number % 10 == 0
    return {
        "impression_id": f"i{number}",
        "user_id": None if number % 11 == 0 else f"u{number % 7}",
        "country": ["DE", "US", "US"][number % 3],
        "price": [None, float("nan"), float("inf")][number] if number < 3 else float(number),
        "look": None if number % 9 == 0 else [0.5, 1.0, float(number)],
        "request": f"r{number}",
        "title": f"Buy {number % 77} of these, NOW please",
        "topics": [None, [], [None], ["cats"], ["cats", "cats", "dogs"], ["dogs", "cats", None, "birds"]][number % 6],
        "inviter": f"u{number % 13 % 6}",  # users too
        "verdict": "good" if clicked else "bad",
        "dwell": 3.0 if clicked or number % 400 == 1 else None,
        "position": number % 3,
        "label_click": int(clicked),
        "label_good_click": 0,
        "label_scroll_up": None,
    }


@pytest.fixture(scope="module")
def examples(spark: SparkSession) -> DataFrame:
    return rows(spark, schemas.examples(conf()), [example(number) for number in range(ROWS)])


@pytest.fixture(scope="module")
def found(examples: DataFrame) -> dict[str, Described]:
    return {column.column: column for column in described(examples, conf())}


def test_candidates_are_the_templates_columns_then_the_fixed_ones_that_a_model_may_read():
    named = ["user_id", "country", "price", "look", "never", "request", "title", "topics", "inviter", "verdict", "dwell"]
    assert list(candidates(conf())) == [*named, "ad_id", "campaign_id", "advertiser_id", "source", "bid_micros", "position"]
    families = candidates(conf())
    assert (families["dwell"], families["campaign_id"], families["source"], families["position"]) == ("context", "ad", "context", "serving")


def test_a_column_is_described_by_what_is_there(found: dict[str, Described]):
    user, country, price, look = (found[name] for name in ("user_id", "country", "price", "look"))
    assert (user.kind, user.rows, user.filled, user.distinct) == ("text", ROWS, 1818, 7)
    assert {value for value, _ in user.top} == {f"u{n}" for n in range(7)} and sum(share for _, share in user.top) == pytest.approx(1)
    assert country.top == (("US", 1333 / ROWS), ("DE", 667 / ROWS))
    assert (price.kind, price.filled, price.quantiles[0.0], price.quantiles[1.0]) == ("number", 1997, 3.0, 1999.0)  # NaN is missing
    assert price.quantiles[0.5] == pytest.approx(1001) and price.quantiles[0.25] == pytest.approx(502)
    assert (look.kind, look.filled, look.lengths) == ("numbers", 1777, (3, 3))
    assert (found["never"].filled, found["campaign_id"].filled, found["position"].filled) == (0, 0, ROWS)
    assert (found["title"].words, found["title"].distinct, len(found["title"].top)) == (6.0, 77, 51)


def test_sentences_and_lists_are_described_by_what_they_are_made_of(found: dict[str, Described]):
    title, topics = found["title"].parts, found["topics"].parts
    assert title and topics and found["user_id"].parts is None
    assert (title.length, title.counted, title.distinct) == (6, 6 * ROWS, 5 + 77)
    assert title.top[:5] == tuple((token, 1 / 6) for token in ("buy", "now", "of", "please", "these"))
    assert (found["topics"].kind, found["topics"].filled) == ("texts", 999)
    assert found["topics"].words == pytest.approx((1 + 3 + 4) / 3)
    assert (topics.length, topics.distinct) == (4, 3)  # of one row an element counts once, and a null is none
    assert topics.top == (("cats", 999 / 1998), ("dogs", 666 / 1998), ("birds", 333 / 1998))
    assert found["topics"].heads["click"].filled.rows == 999
    chosen = {name: propose(found[name]).feature for name in ("title", "topics")}
    assert {name: (of.type, of.length) for name, of in chosen.items() if of} == {"title": ("text", 6), "topics": ("one_hot", 4)}


def test_a_column_that_knows_the_engagement_is_suspected_and_one_that_memorises_it_is_not(found: dict[str, Described]):
    assert found["verdict"].heads["click"].auc == 1.0
    assert found["request"].heads["click"].auc == 0.5  # no value of one half comes again in the other
    assert (found["dwell"].heads["click"].filled, found["dwell"].heads["click"].missing) == (Labelled(205, 200), Labelled(1795, 0))
    assert {name for name, column in found.items() if suspicions(column)} == {"verdict", "dwell"}
    assert list(found["verdict"].heads) == ["click"]  # good_click has no positives, scroll_up no labels


def test_the_same_rows_are_described_alike_however_they_are_partitioned(examples: DataFrame, found: dict[str, Described]):
    assert described(examples.repartition(5, "request"), conf()) == list(found.values())


def test_of_more_rows_than_are_counted_values_are_estimated(
    examples: DataFrame, found: dict[str, Described], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.profile.VALUE_ROWS", 1000)
    monkeypatch.setattr("etl.profile.QUANTILE_ROWS", 500)
    some = {column.column: column for column in described(examples, conf())}
    assert some["request"].sampled and some["request"].distinct == pytest.approx(ROWS, rel=0.06)
    assert some["price"].quantiles[0.5] == pytest.approx(1001, rel=0.1) and some["price"].quantiles[1.0] == 1999.0
    assert dict(some["country"].top)["US"] == pytest.approx(2 / 3, abs=0.05) and some["user_id"].filled == found["user_id"].filled
