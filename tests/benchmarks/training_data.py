"""Rows, widths and settings that the training benchmarks share: 20 columns of 100,000 values, embeddings of 16, two heads.

The rows are made up: the log-odds of clicks and saves are a sum of weights of the values, drawn as often as Zipf's law says. Speed is what
they are for; that such a truth suits a linear path says nothing of real logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conf.schema import Head
from conf.template import Template
from conf.training import ModelConf, Training
from tests.models.snapshots import write_snapshot

COLUMNS, VALUES, BATCH = 20, 100_000, 4096
TEMPLATE = Template.model_validate(
    {"features": [{"column": f"c{i}", "family": "context", "type": "hashed", "buckets": VALUES} for i in range(COLUMNS)]}
)
HEADS = {"click": Head(action="click"), "save": Head(action="save")}
MODEL = ModelConf(embedding_width=16, bottom_widths=(256, 128), tower_widths=(64,))
ROW_GROUP = 16_384


@dataclass(frozen=True)
class MadeRows:
    """`columns`: encoded columns with labels and weight, each [N]; `log_odds` [N, H]: what the labels were drawn from."""

    columns: dict[str, np.ndarray]
    log_odds: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """int8 [N, H]"""
        return np.stack([self.columns[f"label_{head}"] for head in HEADS], axis=1)

    def log_loss(self, log_odds: np.ndarray) -> float:
        """Mean cross-entropy of both heads against the labels, nats."""
        return float((np.logaddexp(0, log_odds) - self.labels * log_odds).mean())


def settings(ranks: int = 1) -> Training:
    return Training(backend="horovod_spark" if ranks > 1 else "single", ranks=ranks, batch_size=BATCH, checkpoint_seconds=3600)


def made_rows(rows: int, seed: int = 1, part: int = 0) -> MadeRows:
    """Rows of the world `seed`, whose weights are the same in every `part`; parts hold other rows."""
    weights = np.random.default_rng((seed, 0)).normal(0, 0.25, (COLUMNS, VALUES + 1))
    draw = np.random.default_rng((seed, 1, part))
    ids = 1 + draw.zipf(1.2, (COLUMNS, rows)) % VALUES
    total = sum(weights[i][ids[i]] for i in range(COLUMNS)) - 2
    log_odds = np.stack([total, total - 2], axis=1)
    columns: dict[str, np.ndarray] = {f"c{i}": ids[i].astype(np.int32) for i in range(COLUMNS)}
    for h, head in enumerate(HEADS):
        columns[f"label_{head}"] = (draw.random(rows) < 1 / (1 + np.exp(-log_odds[:, h]))).astype(np.int8)
    columns |= {"tower": np.zeros(rows, np.int32), "weight": np.ones(rows, np.float32)}
    return MadeRows(columns, log_odds)


def made_snapshot(folder: Path, rows: int, seed: int = 1) -> Path:
    """A training snapshot of that many rows, part 0 of the world; one of that size that stands there is kept."""
    target = folder / f"world-{seed}-rows-{rows}"
    if not (target / "manifest.json").is_file():
        write_snapshot(target, made_rows(rows, seed).columns, TEMPLATE, HEADS, ["feed"], row_group_rows=ROW_GROUP)
    return target
