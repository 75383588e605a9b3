"""Examples of one pinned version -> the plain Parquet files and the manifest that training reads.

Grain: one row an example that etl/sampling.py keeps (the loss masks what has no label). Columns: those of etl/encoding.py, then
`label_<head>` tinyint (1, 0, -1 = masked) for each head, `weight` and `sampling_rate` float. No nulls, no strings, one column a feature.

Rows stand in a seeded hash order and are dealt round `virtual_shards` files, as cards are: row i is row i // V of shard i % V. So shards
differ by at most one row, each is a fair sample, and the files are the same bytes however the examples were partitioned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf, Head
from conf.template import Feature
from etl.encoding import TOWER, encoded, encoded_columns
from etl.ordering import with_global_index
from etl.sampling import with_sampling

ROW_GROUP_BYTES = 32 * 1024 * 1024  # petastorm's unit of work and memory
WEIGHTS = ("weight", "sampling_rate")
CLIP_AT = (0.001, 0.999)
# Statistics use at most this many rows, the first of the hash order: a fair sample, and the same one in every run. (percentile_approx
# over all rows gives other quantiles for another partitioning of the same rows.)
STATISTICS_ROWS = 1_000_000


class SnapshotError(RuntimeError):
    """The training snapshot could not be written as promised."""


def write_snapshot(
    examples: DataFrame, conf: Conf, directory: Path, *, examples_version: int, table_id: str, days: tuple[date, date]
) -> dict[str, Any]:
    """Write `directory` (shard-<i>.parquet, manifest.json), whole or not at all, and give the manifest.

    `examples` holds rows of the `examples` table; `days` are its first and last day. The same rows give the same bytes: writing again
    changes nothing.
    """
    towers = sorted(row[TOWER] for row in examples.select(TOWER).distinct().collect())
    if not towers:
        raise SnapshotError(f"no examples on days {days[0]} to {days[1]}; ingest and build these days first, or move the night's --day")
    directory.parent.mkdir(parents=True, exist_ok=True)
    writing = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(writing, ignore_errors=True)
    rows = _write_shards(examples, conf, towers, writing)
    if not rows:
        raise SnapshotError(
            f"sampling kept no example of days {days[0]} to {days[1]}; raise sampling.keep_negatives, or train on more days"
        )
    shards = [_described(writing, shard) for shard in range(conf.training.virtual_shards)]
    _require_fair_deal([shard["rows"] for shard in shards], rows)
    manifest: dict[str, Any] = {
        "template": conf.template.model_dump(mode="json"),
        "heads": {name: head.model_dump(mode="json") for name, head in conf.heads.items()},
        "towers": towers,
        "virtual_shards": conf.training.virtual_shards,
        "shards": shards,
        "rows": rows,
        **_label_counts(examples.sparkSession, writing, conf.heads, towers),
        "statistics": _statistics(writing, shards, conf.template.of_type("continuous")),
        "days": [day.isoformat() for day in days],
    }
    content = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    # The id is of what was snapshotted, not of the version it was read from: the same rows, committed once more, are the same snapshot.
    manifest = {"id": content[:16], **manifest, "examples_version": examples_version, "table_id": table_id}
    (writing / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _put_in_place(writing, directory)
    return manifest


def _write_shards(examples: DataFrame, conf: Conf, towers: Sequence[str], writing: Path) -> int:
    shards = conf.training.virtual_shards
    labels = [f"label_{head}" for head in conf.heads]
    order = F.xxhash64("impression_id", F.lit(conf.seed).cast("bigint"))
    kept = with_sampling(examples, conf)
    numbers = encoded(kept, conf.template, towers, keep=("impression_id", *labels, *WEIGHTS)).withColumn("__order", order)
    indexed, rows = with_global_index(numbers, "__order", "impression_id", name="__index")
    dealt = (
        indexed.withColumn("__shard", F.col("__index") % shards)
        .repartition(shards, "__shard")  # all rows of a shard in one task, hence one file
        .sortWithinPartitions("__shard", "__index")
        .select(
            *encoded_columns(conf.template),
            *(F.coalesce(F.col(label).cast("tinyint"), F.lit(-1).cast("tinyint")).alias(label) for label in labels),
            *WEIGHTS,
            "__shard",
        )
    )
    dealing = writing / "dealing"
    dealt.write.partitionBy("__shard").option("compression", "snappy").option("parquet.block.size", ROW_GROUP_BYTES).parquet(_url(dealing))
    for shard in range(shards):
        files = sorted((dealing / f"__shard={shard}").glob("part-*.parquet"))
        if len(files) > 1:
            raise SnapshotError(f"shard {shard} came out as {len(files)} files; leave spark.sql.files.maxRecordsPerFile at 0")
        if files:
            files[0].rename(writing / f"shard-{shard}.parquet")
    shutil.rmtree(dealing)
    return rows


def _described(writing: Path, shard: int) -> dict[str, Any]:
    path = writing / f"shard-{shard}.parquet"
    if not path.exists():
        return {"file": None, "rows": 0, "sha256": None}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "rows": pq.read_metadata(path).num_rows, "sha256": digest}


def _require_fair_deal(found: Sequence[int], rows: int) -> None:
    wanted = [len(range(shard, rows, len(found))) for shard in range(len(found))]
    if list(found) != wanted:
        raise SnapshotError(f"shards hold {list(found)} rows, {rows} examples deal out as {wanted}; read `examples` at a pinned version")


def _label_counts(spark: SparkSession, writing: Path, heads: Mapping[str, Head], towers: Sequence[str]) -> dict[str, Any]:
    """Weight, positives and labelled rows of each head by tower, read back from the files; a child: on rows whose parent's label is 1."""
    written = spark.read.parquet(*(_url(path) for path in sorted(writing.glob("shard-*.parquet"))))
    sums = []
    for name, head in heads.items():
        counted = F.col(f"label_{name}") >= 0
        if head.parent is not None:
            counted = counted & (F.col(f"label_{head.parent}") == 1)
        for what, rows in (("labelled", counted), ("positives", counted & (F.col(f"label_{name}") == 1))):
            sums.append(F.sum(F.when(rows, F.col("weight").cast("double")).otherwise(0.0)).alias(f"{what}_{name}"))
    found = {towers[row[TOWER]]: row for row in written.groupBy(TOWER).agg(*sums).collect()}
    positives, labelled = (
        {name: {tower: found[tower][f"{what}_{name}"] for tower in towers} for name in heads} for what in ("positives", "labelled")
    )
    return {"weight": {name: sum(labelled[name].values()) for name in heads}, "positives": positives, "labelled": labelled}


def _statistics(writing: Path, shards: Sequence[Mapping[str, Any]], features: Sequence[Feature]) -> dict[str, dict[str, float]]:
    """Clip bounds, then mean and std after clipping, of each transformed feature. A constant has std 1, so that it can be divided by."""
    share = -(-STATISTICS_ROWS // len(shards))
    files = [writing / shard["file"] for shard in shards if shard["file"]]
    fitted = {}
    for feature in features:
        if feature.transform == "none":
            continue
        values = np.concatenate([_first_values(path, feature.column, share) for path in files]).astype(np.float64)
        if feature.transform == "log":
            values = np.sign(values) * np.log1p(np.abs(values))
        low, high = np.quantile(values, CLIP_AT) if len(values) else (0.0, 0.0)
        clipped = np.clip(values, low, high) if len(values) else np.zeros(1)
        fitted[feature.column] = {
            "low": float(low),
            "high": float(high),
            "mean": float(clipped.mean()),
            "std": float(clipped.std()) or 1.0,
        }
    return fitted


def _first_values(path: Path, name: str, rows: int) -> np.ndarray:
    """The values that are there among a file's first `rows` rows."""
    parts, left = [], rows
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=65_536, columns=[name, f"{name}__missing"]):
            part = batch.slice(0, left)
            left -= part.num_rows
            parts.append(part.column(0).to_numpy(zero_copy_only=False)[part.column(1).to_numpy(zero_copy_only=False) == 0])
            if not left:
                break
    return np.concatenate(parts)


def _put_in_place(writing: Path, directory: Path) -> None:
    """Rename; a directory that is there already steps aside first, and a run cut off in between is mended by running again."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.rename(directory, old)
    os.rename(writing, directory)
    shutil.rmtree(old, ignore_errors=True)


def _url(path: Path) -> str:
    # Not Path.as_uri(): Hadoop takes %20 as it stands, and the path as it is otherwise.
    return f"file://{path.resolve()}"
