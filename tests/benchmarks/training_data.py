"""Rows, widths and settings that the training benchmarks share: 20 columns of 100,000 values, embeddings of 16, two heads.

The rows are made up: clicks and saves follow weights of the values, drawn as often as Zipf's law says. Only speed is read off them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conf.schema import Head, ModelConf, Training
from conf.template import Template
from tests.models.snapshots import write_snapshot

COLUMNS, VALUES, BATCH = 20, 100_000, 4096
TEMPLATE = Template.model_validate(
    {"features": [{"column": f"c{i}", "family": "context", "type": "hashed", "buckets": VALUES} for i in range(COLUMNS)]}
)
HEADS = {"click": Head(action="click"), "save": Head(action="save")}
MODEL = ModelConf(embedding_width=16, bottom_widths=(256, 128), tower_widths=(64,))
ROW_GROUP = 16_384


def settings(ranks: int = 1) -> Training:
    return Training(backend="horovod_spark" if ranks > 1 else "single", ranks=ranks, batch_size=BATCH, checkpoint_seconds=3600)


def made_snapshot(folder: Path, rows: int, seed: int = 1) -> Path:
    """A training snapshot of that many rows; one of that size that stands there is kept."""
    target = folder / f"rows-{rows}"
    if (target / "manifest.json").is_file():
        return target
    draw = np.random.default_rng(seed)
    ids = 1 + draw.zipf(1.2, (COLUMNS, rows)) % VALUES
    weights = draw.normal(0, 0.25, (COLUMNS, VALUES + 1))
    log_odds = sum(weights[i][ids[i]] for i in range(COLUMNS)) - 2
    columns: dict[str, np.ndarray] = {f"c{i}": ids[i].astype(np.int32) for i in range(COLUMNS)}
    for head, shift in (("click", 0.0), ("save", -2.0)):
        columns[f"label_{head}"] = (draw.random(rows) < 1 / (1 + np.exp(-log_odds - shift))).astype(np.int8)
    columns |= {"tower": np.zeros(rows, np.int32), "weight": np.ones(rows, np.float32)}
    return write_snapshot(target, columns, TEMPLATE, HEADS, ["feed"], row_group_rows=ROW_GROUP)
