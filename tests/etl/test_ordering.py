"""A row's place in a total order."""

from __future__ import annotations

import random

import pytest
from pyspark.sql import SparkSession

from etl.ordering import with_global_index

LEAST, LARGEST = -(2**63), 2**63 - 1


def places(spark: SparkSession, rows: list[tuple], schema: str, partitions: int, descending: bool) -> tuple[dict[str, int], int]:
    frame = spark.createDataFrame(rows, schema).repartition(partitions)
    indexed, count = with_global_index(frame, "key", "tie", descending=descending, name="place")
    assert indexed.columns == ["key", "tie", "place"]
    return {row["tie"]: row["place"] for row in indexed.collect()}, count


@pytest.mark.parametrize("partitions", [1, 7])
def test_places_follow_the_key_then_the_tie_however_rows_are_partitioned(spark: SparkSession, partitions: int) -> None:
    draw = random.Random(1)
    rows = [(draw.choice([LEAST, -7, 0, 0, 3, LARGEST, draw.randint(LEAST, LARGEST)]), f"t{i:03}") for i in range(500)]
    upwards = [tie for _, tie in sorted(rows)]
    found, count = places(spark, rows, "key BIGINT, tie STRING", partitions, descending=False)
    assert (sorted(found, key=lambda tie: found[tie]), sorted(found.values()), count) == (upwards, list(range(500)), 500)


def test_descending_turns_the_key_round_and_leaves_ties_ascending(spark: SparkSession) -> None:
    rows = [(0.5, "a"), (0.9, "b"), (0.5, "c"), (-1.0, "d"), (0.9, "e")]
    found, _ = places(spark, rows, "key DOUBLE, tie STRING", 2, descending=True)
    assert found == {"b": 0, "e": 1, "a": 2, "c": 3, "d": 4}


def test_rows_with_one_key_are_told_apart_by_the_tie(spark: SparkSession) -> None:
    found, count = places(spark, [(1.5, tie) for tie in "dbca"], "key DOUBLE, tie STRING", 3, descending=True)
    assert (found, count) == ({"a": 0, "b": 1, "c": 2, "d": 3}, 4)


def test_no_rows_have_no_places(spark: SparkSession) -> None:
    assert places(spark, [], "key DOUBLE, tie STRING", 2, descending=True) == ({}, 0)


def test_rows_never_meet_in_a_single_task(spark: SparkSession) -> None:
    indexed, _ = with_global_index(spark.range(1000).withColumnRenamed("id", "key").selectExpr("key", "key AS tie"), "key", "tie")
    plan = indexed._jdf.queryExecution().executedPlan().toString()
    assert "SinglePartition" not in plan and "__range_of_index" in plan
