"""Layers that multiply in bfloat16, as on GPUs by default, here on the CPU: every layer can, and a training learns what one in float32 does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from torch import Tensor

from conf.training import ModelConf, Training
from models import bundle
from models.predictor import Predictor
from models.trainer import TrainRequest, train
from tests.models.placed import EVERY_MODEL, EVERY_TRAINING, PLACED, placed_columns
from tests.models.snapshots import HEADS, known_rows, write_snapshot

ROWS = 4003
PLAIN = {"towers": "plain", "private_layers": {}, "serving": "off"}


def model(**knobs: Any) -> ModelConf:
    return EVERY_MODEL.model_copy(update={"dropout": 0.0, **knobs})


def training(**knobs: Any) -> Training:
    return EVERY_TRAINING.model_copy(update={"bfloat16": "always", **knobs})


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("snapshots") / "four-thousand", placed_columns(ROWS), PLACED)


def trained(snapshot: Path, folder: Path, of_model: ModelConf, of_training: Training) -> dict[str, Tensor]:
    train(TrainRequest(str(snapshot), str(folder), "model", of_model, of_training, epochs=2, seed=1))
    return bundle.read_tensors(folder, bundle.read_meta(folder))


def cross_entropy(folder: Path) -> dict[str, float]:
    """Head -> mean over rows that no training saw."""
    columns = placed_columns(3000, seed=2)
    log_odds, found = Predictor(str(folder)).log_odds(columns), {}
    for number, head in enumerate(HEADS):
        rows = known_rows(columns, HEADS, head)
        found[head] = float((np.logaddexp(0, log_odds[rows, number]) - columns[f"label_{head}"][rows] * log_odds[rows, number]).mean())
    return found


@pytest.mark.parametrize(
    "of_model",
    [
        model(),
        model(bottom="mmoe", cross="latent", cross_order=3),
        model(bottom="ple", cross="dcn_v2"),
        model(bottom="shared", cross="none", **PLAIN),
    ],
    ids=["every choice", "mmoe and latent cross", "ple and dcn_v2", "plain"],
)
def test_every_layer_learns_in_bfloat16_what_it_learns_in_float32(snapshot: Path, tmp_path: Path, of_model: ModelConf):
    rough = trained(snapshot, tmp_path / "rough", of_model, training())
    exact = trained(snapshot, tmp_path / "exact", of_model, training(bfloat16="never"))
    assert all(tensor.dtype == exact[name].dtype for name, tensor in rough.items())
    assert all(tensor.dtype != torch.bfloat16 for tensor in rough.values())
    assert any(not tensor.equal(exact[name]) for name, tensor in rough.items())
    assert cross_entropy(tmp_path / "rough") == pytest.approx(cross_entropy(tmp_path / "exact"), rel=0.01)


def test_by_default_a_cpu_multiplies_in_float32_and_a_gpu_in_bfloat16():
    assert {device: Training().in_bfloat16(device) for device in ("cpu", "cuda")} == {"cpu": False, "cuda": True}
    assert not training(bfloat16="never").in_bfloat16("cuda")


def test_two_ranks_in_bfloat16_learn_what_one_does(spark: SparkSession, snapshot: Path, tmp_path: Path):
    trained(snapshot, tmp_path / "one", model(), training())
    trained(snapshot, tmp_path / "two", model(), training(backend="horovod_spark", ranks=2))
    assert cross_entropy(tmp_path / "two") == pytest.approx(cross_entropy(tmp_path / "one"), rel=0.005)
