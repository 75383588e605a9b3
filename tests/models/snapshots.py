"""Small training snapshots by the contract of etl/snapshot.py, written with pyarrow alone, from rows whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf.schema import Head
from conf.template import Template
from conf.training import ModelConf, Training
from models.manifest import sha256

TEMPLATE = Template.model_validate(
    {
        "features": [
            {"column": "age", "family": "user", "type": "continuous"},
            {"column": "spend", "family": "user", "type": "continuous", "transform": "log"},
            {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 500},
            {"column": "device", "family": "context", "type": "one_hot", "vocabulary": ["phone", "desktop"]},
            {"column": "visual", "family": "ad", "type": "dense", "width": 2},
            # One id a row: what tells the rows of a batch apart.
            {"column": "row", "family": "context", "type": "hashed", "buckets": 100_000},
        ]
    }
)
HEADS = {
    "click": Head(action="click"),
    "good_click": Head(action="click", min_dwell_seconds=30, parent="click"),
    "save": Head(action="save"),
}
TOWERS = ["shopping", "standard", "video"]
SMALL = ModelConf(embedding_width=4, bottom_widths=(16, 8), tower_widths=(8, 4))
# Steps large enough for small layers to learn in a hundred of them.
TRAINING = Training(backend="single", ranks=1, batch_size=64, learning_rate=0.01, embedding_learning_rate=0.05)


def example_columns(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Encoded columns of that many examples, with labels and weight.

    Truth: logit(click) = 3 * age - 1 where the device is a phone (id 2), age - 1 where not; good_click follows spend; save is a coin
    with 5%. 10% of ages are missing; save does not apply to video.
    """
    draw = np.random.default_rng(seed)
    device, tower = draw.integers(2, 4, rows), draw.choice(3, rows, p=[0.3, 0.6, 0.1])
    age, spend, gone = draw.normal(size=rows), draw.lognormal(size=rows), draw.random(rows) < 0.1
    click = draw.random(rows) < 1 / (1 + np.exp(-(np.where(device == 2, 3, 1) * np.where(gone, 0, age) - 1)))
    good = click & (draw.random(rows) < np.where(spend > 1, 0.7, 0.2))
    return {
        "age": np.where(gone, 0, age).astype(np.float32),
        "age__missing": gone.astype(np.int8),
        "spend": spend.astype(np.float32),
        "spend__missing": np.zeros(rows, np.int8),
        "ad_id": draw.integers(1, 501, rows).astype(np.int32),
        "device": device.astype(np.int32),
        "visual__0": draw.normal(size=rows).astype(np.float32),
        "visual__1": draw.normal(size=rows).astype(np.float32),
        "visual__missing": np.zeros(rows, np.int8),
        "row": np.arange(1, rows + 1, dtype=np.int32),
        "tower": tower.astype(np.int32),
        "label_click": click.astype(np.int8),
        "label_good_click": good.astype(np.int8),
        "label_save": np.where(tower == 2, -1, draw.random(rows) < 0.05).astype(np.int8),
        "weight": np.ones(rows, np.float32),
    }


def write_snapshot(
    directory: Path,
    columns: dict[str, np.ndarray],
    template: Template = TEMPLATE,
    heads: dict[str, Head] | None = None,
    towers: list[str] | None = None,
    virtual_shards: int = 8,
    row_group_rows: int = 100,
) -> Path:
    """Row i goes to shard i % V. Row groups are small, so that a shard has several."""
    heads, towers = heads or HEADS, towers or TOWERS
    directory.mkdir(parents=True)
    shards: list[dict[str, Any]] = []
    for number in range(virtual_shards):
        part = {name: values[number::virtual_shards] for name, values in columns.items()}
        count = len(part["tower"])
        path = directory / f"shard-{number}.parquet"
        if count:
            pq.write_table(pa.table(part), path, row_group_size=row_group_rows)
        shards.append({"file": path.name if count else None, "rows": count, "sha256": sha256(path) if count else None})
    manifest = {
        "id": directory.name,
        "template": template.model_dump(mode="json"),
        "heads": {name: head.model_dump(mode="json") for name, head in heads.items()},
        "towers": towers,
        "virtual_shards": virtual_shards,
        "shards": shards,
        "rows": len(columns["tower"]),
        **_label_counts(columns, heads, towers),
        "statistics": _statistics(columns, template),
        "days": ["2026-05-01", "2026-05-10"],
        "examples_version": 1,
        "table_id": "test",
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def known_rows(columns: dict[str, np.ndarray], heads: dict[str, Head], head: str) -> np.ndarray:
    """bool [N]: rows that the head's loss counts."""
    known = columns[f"label_{head}"] >= 0
    parent = heads[head].parent
    return known if parent is None else known & (columns[f"label_{parent}"] == 1)


def _label_counts(columns: dict[str, np.ndarray], heads: dict[str, Head], towers: list[str]) -> dict[str, Any]:
    counts: dict[str, Any] = {"weight": {}, "positives": {}, "labelled": {}}
    for head in heads:
        weight = columns["weight"] * known_rows(columns, heads, head)
        own = {tower: columns["tower"] == t for t, tower in enumerate(towers)}
        counts["weight"][head] = float(weight.sum())
        counts["labelled"][head] = {tower: float(weight[rows].sum()) for tower, rows in own.items()}
        counts["positives"][head] = {tower: float((weight * (columns[f"label_{head}"] == 1))[rows].sum()) for tower, rows in own.items()}
    return counts


def _statistics(columns: dict[str, np.ndarray], template: Template) -> dict[str, dict[str, float]]:
    fitted = {}
    for feature in template.of_type("continuous"):
        if feature.transform != "none":
            values = columns[feature.column][columns[f"{feature.column}__missing"] == 0].astype(np.float64)
            values = np.sign(values) * np.log1p(np.abs(values)) if feature.transform == "log" else values
            values = values if len(values) else np.zeros(1)
            low, high = np.quantile(values, (0.001, 0.999))
            clipped = values.clip(low, high)
            fitted[feature.column] = {"low": low, "high": high, "mean": clipped.mean(), "std": clipped.std()}
    return fitted
