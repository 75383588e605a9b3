"""Every choice that is off by default, on at once: a training still goes on as if nothing had happened, and two ranks are as good as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession
from torch import Tensor

from conf.training import Training
from models import bundle
from models.collectives import SingleProcess
from models.trainer import TrainRequest, train, train_on_rank
from tests.models.placed import EVERY_MODEL, EVERY_TRAINING, PLACED, placed_columns
from tests.models.snapshots import write_snapshot


class Stops(SingleProcess):
    """A rank that is gone in its 49th step: in the second of two epochs of 32."""

    steps = 0

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        self.steps += 1
        if self.steps == 49:
            raise InterruptedError
        return super().gather(rows)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("snapshots") / "two-thousand", placed_columns(2003), PLACED)


def request_of(folder: Path, snapshot: Path, training: Training = EVERY_TRAINING, checkpoints: str | None = None) -> TrainRequest:
    return TrainRequest(str(snapshot), str(folder), "model", EVERY_MODEL, training, epochs=2, seed=1, checkpoints=checkpoints)


def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    each = EVERY_TRAINING.model_copy(update={"checkpoint_seconds": 0})
    stopped = request_of(tmp_path / "model", snapshot, each, str(tmp_path / "checkpoints"))
    with pytest.raises(InterruptedError), torch.random.fork_rng():
        train_on_rank(Stops(), stopped)
    train(stopped)
    assert "train: resumed at step 48/64" in capsys.readouterr().err
    train(request_of(tmp_path / "whole", snapshot))
    resumed, whole = ((tmp_path / name / bundle.WEIGHTS).read_bytes() for name in ("model", "whole"))
    assert resumed == whole
    assert bundle.read_meta(tmp_path / "model") == bundle.read_meta(tmp_path / "whole")


def test_two_ranks_end_with_the_weights_of_one(spark: SparkSession, snapshot: Path, tmp_path: Path):
    two = EVERY_TRAINING.model_copy(update={"backend": "horovod_spark", "ranks": 2})
    results = [train(request_of(tmp_path / name, snapshot, training)) for name, training in (("one", EVERY_TRAINING), ("two", two))]
    assert [result.ranks for result in results] == [1, 2]
    assert results[1].loss == pytest.approx(results[0].loss, abs=1e-5)
    weights = [bundle.read_tensors(tmp_path / name, bundle.read_meta(tmp_path / name)) for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert torch.allclose(weights[1][name], tensor, atol=2e-5), name
