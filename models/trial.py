"""An arm of a comparison as numbers: its parts trained on snapshots, then asked about rows.

Shapes: N rows asked about, H heads.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow.parquet as pq
import torch

from conf.arms import Arm, View, Which
from conf.training import ModelConf, Training
from models.columns import Columns
from models.engagement import EngagementModel
from models.manifest import Manifest, read_manifest
from models.predictor import Predictor
from models.trainer import TrainRequest, train

WIDER = 1.05  # by which layers grow until a model is as large as another


@dataclass(frozen=True)
class Setting:
    """`rate` multiplies all three learning rates of the configuration."""

    rate: float
    epochs: int

    def __str__(self) -> str:
        return f"rates x {self.rate:g}, epochs {self.epochs}"

    def of(self, training: Training) -> Training:
        """One process, since the weights do not depend on who starts the ranks, and hundreds of short trainings would wait for it."""
        rates = {name: getattr(training, name) * self.rate for name in ("learning_rate", "embedding_learning_rate", "linear_learning_rate")}
        return training.model_copy(update={"backend": "single", "epochs": self.epochs} | rates)


class Rows(Protocol):
    """Where the rows are: etl.trial.TrialRows."""

    def snapshot(self, view: View, which: Which) -> Path: ...

    def encoded(self, view: View, which: Which, towers: list[str]) -> Path: ...


@dataclass(frozen=True)
class Question:
    """Learn from `learn`, answer for the rows of `asked`, which stand in these towers [N]."""

    learn: Which
    asked: Which
    towers: np.ndarray
    heads: Sequence[str]


class Answers(NamedTuple):
    """Of all parts of an arm together. `log_odds` float32 [N, H]: conditional; `seconds`: of the training alone."""

    log_odds: np.ndarray
    seconds: float


def answers(arm: Arm, rows: Rows, question: Question, training: Training, seed: int, scratch: Path) -> Answers:
    """`training`: with the setting's rates and epochs."""
    found, seconds = np.full((len(question.towers), len(question.heads)), np.nan, np.float32), 0.0
    for part in arm.parts:
        manifest = read_manifest(rows.snapshot(part.view, question.learn))
        model = part.model
        if part.as_large_as is not None:
            other = read_manifest(rows.snapshot(part.as_large_as.view, question.learn))
            model = widened(model, manifest, size_of(part.as_large_as.model, other))
        bundle = scratch / f"{arm.name}-{part.view.name}"
        request = TrainRequest(str(manifest.directory), str(bundle), bundle.name, model, training, training.epochs, seed)
        seconds += train(request).seconds
        table = pq.read_table(rows.encoded(part.view, question.asked, list(manifest.towers))).to_pandas()
        log_odds = Predictor(str(bundle)).log_odds({name: table[name].to_numpy() for name in table})
        shutil.rmtree(bundle)
        mine = slice(None) if part.view.only is None else np.nonzero(question.towers == part.view.only)[0]
        for place, head in enumerate(part.view.heads):
            found[mine, question.heads.index(head)] = log_odds[:, place]
    return Answers(found, seconds)


def size_of(model: ModelConf, manifest: Manifest) -> int:
    """Numbers that are learned, those of ids included."""
    with torch.random.fork_rng():
        base_TH = torch.from_numpy(manifest.base_log_odds())
        made = EngagementModel(manifest.template, manifest.heads, manifest.towers, model, manifest.statistics, base_TH)
    return sum(parameter.numel() for parameter in made.parameters())


def widened(model: ModelConf, manifest: Manifest, wanted: int) -> ModelConf:
    """The model with at least `wanted` numbers: what is missing goes to the ids' embeddings first, a number each, then to all layers alike."""
    ids = Columns(manifest.template, len(manifest.towers)).offsets[-1]
    more = max(wanted - size_of(model, manifest), 0) // max(ids, 1)
    width = model.embedding_width + (int(more) if ids else 0)
    for step in count():
        by = WIDER**step
        widths = {name: tuple(ceil(units * by) for units in getattr(model, name)) for name in ("bottom_widths", "tower_widths")}
        wider = model.model_copy(update={"embedding_width": width} | widths)
        if size_of(wider, manifest) >= wanted:
            return wider
    raise AssertionError
