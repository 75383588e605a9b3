"""Negative downsampling: which rows go, what the others weigh, and that nothing it feeds is biased."""

from __future__ import annotations

import math

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from etl import schemas
from etl.sampling import with_sampling
from tests.small import rows, small_conf

ROWS = 4000
CONF = small_conf(sampling={"keep_negatives": {"feed": 0.25}})


def labels(number: int) -> dict[str, int | None]:
    """Of twenty rows, two are clicked, one of them well, and one is scrolled up; scroll_up is unknown in every seventh row."""
    return {
        "label_click": int(number % 20 < 2),
        "label_good_click": int(number % 20 == 0),
        "label_scroll_up": None if number % 7 == 0 else int(number % 20 == 5),
    }


@pytest.fixture(scope="module")
def sampled(spark: SparkSession) -> list:
    given = [{"impression_id": f"i{number}", "source": ("feed", "video")[number % 2], **labels(number // 2)} for number in range(ROWS)]
    return with_sampling(rows(spark, schemas.examples(CONF), given), CONF).collect()


def test_only_rows_without_any_engagement_of_the_named_sources_are_dropped(sampled: list) -> None:
    kept = {row["impression_id"] for row in sampled}
    for number in range(ROWS):
        engaged = 1 in labels(number // 2).values()
        if engaged or number % 2:
            assert f"i{number}" in kept
    quiet = [row for row in sampled if row["sampling_rate"] < 1]
    assert {(row["source"], row["sampling_rate"], row["weight"]) for row in quiet} == {("feed", 0.25, 4.0)}
    assert all(row["weight"] == 1.0 for row in sampled if row["sampling_rate"] == 1)


def test_weighted_sums_of_every_head_agree_with_the_full_data(sampled: list) -> None:
    full = [labels(number // 2) for number in range(ROWS)]
    for head in ("label_click", "label_good_click", "label_scroll_up"):
        known = [row for row in sampled if row[head] is not None]
        assert sum(row["weight"] for row in known if row[head] == 1) == sum(row[head] or 0 for row in full)  # positives are all there
        negatives = sum(row[head] == 0 for row in full)
        # Binomial: a row of weight w was kept with probability 1/w, so it adds w (w - 1) to the variance of the sum.
        spread = math.sqrt(sum(row["weight"] * (row["weight"] - 1) for row in known))
        assert abs(sum(row["weight"] for row in known if row[head] == 0) - negatives) < 4 * spread


def test_what_is_kept_depends_on_key_and_seed_alone_and_sampling_can_be_switched_off(spark: SparkSession, sampled: list) -> None:
    given = rows(spark, schemas.examples(CONF), [{"impression_id": f"i{n}", **labels(n // 2)} for n in range(0, 400, 2)])
    kept = {row["impression_id"] for row in sampled}
    again = with_sampling(given.orderBy(F.rand(3)).repartition(5), CONF).collect()
    assert {row["impression_id"] for row in again} == {row["impression_id"] for row in given.collect()} & kept
    other = with_sampling(given, CONF.model_copy(update={"seed": 2})).collect()
    assert {row["impression_id"] for row in other} != {row["impression_id"] for row in again}
    assert with_sampling(given, small_conf()).where("weight = 1 AND sampling_rate = 1").count() == 200


def test_a_rate_that_is_no_probability_and_a_source_that_is_none_are_refused() -> None:
    for wrong, told in (({"feed": 0.0}, "above 0 and at most 1"), ({"feeds": 0.5}, "no source of this configuration; sources: feed")):
        with pytest.raises(ConfError, match=told):
            small_conf(sampling={"keep_negatives": wrong})
