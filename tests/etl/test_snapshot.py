"""What a training snapshot holds: every example once, dealt out fairly, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded_columns
from etl.snapshot import SnapshotError, write_snapshot
from models.batches import read_batches
from models.manifest import read_manifest
from tests.small import rows, small_conf

ROWS, SHARDS = 203, 8
DAYS = (date(2026, 5, 1), date(2026, 5, 10))
FEATURES = [
    {"column": "number", "family": "context", "type": "continuous", "transform": "none"},  # names the row
    {"column": "age", "family": "user", "type": "continuous"},
    {"column": "spend", "family": "user", "type": "continuous", "transform": "log"},
    {"column": "level", "family": "user", "type": "continuous"},
    {"column": "never", "family": "user", "type": "continuous"},
    {"column": "user_id", "family": "user", "type": "hashed", "buckets": 100},
    {"column": "device", "family": "context", "type": "one_hot", "vocabulary": ["phone", "desktop"]},
    {"column": "look", "family": "ad", "type": "dense", "width": 2},
]


def conf(**over: Any) -> Conf:
    return small_conf(template={"features": FEATURES}, **over)


def example(number: int) -> dict[str, Any]:
    """Row `number`: every third one in tower video, the rest in feed. Of ten rows, three are clicked, one of them well and one unknown."""
    clicked = number % 10 < 3
    return {
        "impression_id": f"i{number:03}",
        "tower": "video" if number % 3 == 0 else "feed",
        "user_id": None if number % 7 == 0 else f"u{number % 50}",
        "number": float(number),
        "age": None if number % 5 == 0 else 20.0 if number % 2 else 40.0,
        "spend": math.e - 1 if number % 2 else 1 - math.e,
        "level": 7.0,
        "device": ["phone", "desktop", "fridge"][number % 3],
        "look": [0.5, number / 2] if number % 4 else None,
        "label_click": int(clicked),
        "label_good_click": [1, None, 0][number % 10] if clicked else 0,
        "label_scroll_up": None if number % 3 == 0 else number % 2,
    }


def examples(spark: SparkSession, numbers: Sequence[int] = range(ROWS)) -> DataFrame:
    return rows(spark, schemas.examples(conf()), [example(number) for number in numbers])


def write(frame: DataFrame, directory: Path, **over: Any) -> dict[str, Any]:
    return write_snapshot(frame, conf(**over), directory, examples_version=3, table_id="t-1", days=DAYS)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def snapshot(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("snapshots") / "first"
    write(examples(spark), directory)
    return directory


@pytest.fixture(scope="module")
def manifest(snapshot: Path) -> dict[str, Any]:
    return json.loads((snapshot / "manifest.json").read_text())


@pytest.fixture(scope="module")
def shards(snapshot: Path) -> list[pa.Table]:
    return [pq.read_table(snapshot / f"shard-{shard}.parquet") for shard in range(SHARDS)]


def test_rows_in_seeded_hash_order_are_dealt_round_the_shards(spark: SparkSession, shards: list[pa.Table]) -> None:
    in_order = examples(spark).orderBy(F.xxhash64("impression_id", F.lit(conf().seed).cast("bigint")), "impression_id")
    numbers = [row["number"] for row in in_order.select("number").collect()]
    assert [shard["number"].to_pylist() for shard in shards] == [numbers[shard::SHARDS] for shard in range(SHARDS)]


def test_a_file_holds_the_encoded_columns_then_labels_and_weight_without_nulls_or_strings(snapshot: Path, shards: list[pa.Table]) -> None:
    names = [*encoded_columns(conf().template), "label_click", "label_good_click", "label_scroll_up", "weight", "sampling_rate"]
    for shard, table in enumerate(shards):
        assert table.column_names == names
        assert {str(field.type) for field in table.schema} == {"float", "int32", "int8"}
        assert not any(field.nullable for field in table.schema)
        found = pq.read_metadata(snapshot / f"shard-{shard}.parquet")
        groups = [found.row_group(group) for group in range(found.num_row_groups)]
        assert {group.column(column).compression for group in groups for column in range(group.num_columns)} == {"SNAPPY"}


def test_every_example_is_there_once_with_masked_labels_as_minus_1_and_weight_1(shards: list[pa.Table]) -> None:
    labels = ["label_click", "label_good_click", "label_scroll_up"]
    found = {int(row["number"]): row for table in shards for row in table.to_pylist()}
    assert sorted(found) == list(range(ROWS)) and sum(len(table) for table in shards) == ROWS
    for number, row in found.items():
        wanted = [-1 if example(number)[label] is None else example(number)[label] for label in labels]
        assert ([row[label] for label in labels], row["weight"]) == (wanted, 1.0)
    assert (found[4]["look__0"], found[4]["look__1"], found[4]["look__missing"], found[4]["tower"]) == (0.0, 0.0, 1, 0)
    assert (found[9]["look__0"], found[9]["look__1"], found[9]["look__missing"], found[9]["tower"]) == (0.5, 4.5, 0, 1)


def test_labels_are_counted_by_head_and_tower_and_a_child_under_its_parent(manifest: dict[str, Any]) -> None:
    video = range(0, ROWS, 3)
    feed = [number for number in range(ROWS) if number % 3]
    assert manifest["towers"] == ["feed", "video"]
    assert manifest["labelled"]["click"] == {"feed": len(feed), "video": len(video)} == {"feed": 135, "video": 68}
    for tower, own in (("feed", feed), ("video", video)):
        assert manifest["positives"]["click"][tower] == sum(number % 10 < 3 for number in own)
        assert manifest["labelled"]["good_click"][tower] == sum(number % 10 in (0, 2) for number in own)  # clicked, and known
        assert manifest["positives"]["good_click"][tower] == sum(number % 10 == 0 for number in own)
    assert manifest["labelled"]["scroll_up"] == {"feed": 135, "video": 0}  # masked for video
    assert manifest["positives"]["scroll_up"] == {"feed": sum(number % 2 for number in feed), "video": 0}
    # 63 rows end in 0, 1 or 2; 42 of them in 0 or 2
    assert manifest["weight"] == {"click": 203, "good_click": 42, "scroll_up": 135}


def test_statistics_are_of_the_transformed_values_that_are_there(manifest: dict[str, Any]) -> None:
    ages = [40.0] * 81 + [20.0] * 81  # of 203 rows, 41 have none: those ending in 0 or 5
    spends = [1.0] * 101 + [-1.0] * 102  # sign(x) * log1p(|x|) of +-(e - 1)
    assert manifest["statistics"].keys() == {"age", "spend", "level", "never"}  # number has transform none
    assert manifest["statistics"]["age"] == {"low": 20.0, "high": 40.0, "mean": np.mean(ages), "std": 10.0}
    assert manifest["statistics"]["spend"] == pytest.approx({"low": -1.0, "high": 1.0, "mean": np.mean(spends), "std": np.std(spends)})
    assert manifest["statistics"]["level"] == {"low": 7.0, "high": 7.0, "mean": 7.0, "std": 1.0}  # a constant can be divided by its std
    assert manifest["statistics"]["never"] == {"low": 0.0, "high": 0.0, "mean": 0.0, "std": 1.0}


def test_the_same_rows_give_the_same_bytes_however_they_are_partitioned(spark: SparkSession, snapshot: Path, tmp_path: Path) -> None:
    for leftover in ("again", ".again.new", ".again.old"):  # an earlier snapshot, and what a killed run left
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "shard-9.parquet").write_text("old")
    # Adaptive execution would join such small partitions to one, in which rows are in order anyway.
    other = {"spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": "5"}
    before = {key: str(spark.conf.get(key)) for key in other}
    try:
        for key in other:
            spark.conf.set(key, other[key])
        write(examples(spark, range(ROWS)[::-1]).repartition(3), tmp_path / "again")
    finally:
        for key in before:
            spark.conf.set(key, before[key])
    assert contents(tmp_path / "again") == contents(snapshot)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_the_id_is_of_what_is_in_it_and_not_of_the_version_that_it_was_read_from(manifest: dict[str, Any]) -> None:
    lineage = {"examples_version": 3, "table_id": "t-1"}
    assert {name: manifest[name] for name in lineage} == lineage
    rest = {name: value for name, value in manifest.items() if name not in ("id", *lineage)}
    assert manifest["id"] == hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
    for shard in manifest["shards"]:
        assert len(shard["sha256"]) == 64


def test_another_seed_deals_otherwise_and_a_shard_without_rows_has_no_file(
    spark: SparkSession, manifest: dict[str, Any], tmp_path: Path
) -> None:
    few = write(examples(spark, range(3)), tmp_path / "few")
    other = write(examples(spark, range(3)), tmp_path / "other", seed=2)
    assert [(shard["file"], shard["rows"]) for shard in few["shards"]] == [*((f"shard-{i}.parquet", 1) for i in range(3)), *[(None, 0)] * 5]
    assert len({few["id"], other["id"], manifest["id"]}) == 3


def test_no_examples_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no examples on days 2026-05-01 to 2026-05-10"):
        write(examples(spark).limit(0), tmp_path / "empty")
    assert list(tmp_path.iterdir()) == []


def test_sampling_that_keeps_no_example_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"sampling kept no example of days .*; raise sampling\.keep_negatives"):
        write(examples(spark, [4]), tmp_path / "none", sampling={"keep_negatives": {"feed": 1e-9}})


def test_training_reads_every_row_of_it(snapshot: Path) -> None:
    manifest = read_manifest(snapshot)
    manifest.require_unchanged(range(SHARDS))
    batches = list(read_batches(manifest, 64, range(SHARDS), epoch=0, seed=1))
    weight = np.concatenate([batch.weight_B.numpy() for batch in batches])
    numbers = np.concatenate([batch.features.continuous_BC[:, 0].numpy() for batch in batches])
    assert sorted(numbers[weight > 0]) == list(range(ROWS))
    known = np.concatenate([batch.known_BH.numpy() for batch in batches]).sum(axis=0)
    assert dict(zip(manifest.heads, known, strict=True)) == manifest.weight
