"""Two real ranks of every backend are as good as one; those of this machine fail in words and leave no process behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession
from torch import Tensor

from conf.training import Training
from models import bundle
from models.backends import launch
from models.errors import RanksLost, SlotsMissing, TrainingFailed
from models.trainer import TrainRequest
from tests.models.ranks import Seen, abort_if_taken_down, fail_on_rank_1, hold_up_rank_1, kill_rank_1, seen_then_trained, stop_rank_1
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot
from tests.processes import words_of

HERE = ("horovodrun", "torch")
ROWS = 1003


def two_ranks(backend: str, **over: object) -> Training:
    return TRAINING.model_copy(update={"backend": backend, "ranks": 2, **over})


def trained(folder: Path, training: Training) -> tuple[Seen, dict[str, Tensor]]:
    """What the ranks saw, and the weights they ended with."""
    name = f"{training.backend}-model"
    request = TrainRequest(str(folder / "snapshot"), str(folder / name), name, SMALL, training, epochs=2, seed=1)
    seen = launch(training, seen_then_trained, request)
    return seen, bundle.read_tensors(folder / name, bundle.read_meta(folder / name))


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("backends")
    write_snapshot(folder / "snapshot", example_columns(ROWS))
    return folder, *trained(folder, TRAINING)


@pytest.mark.parametrize("backend", ["horovod_spark", *HERE])
def test_one_rank_and_two_see_the_same_batches_and_end_with_the_same_weights(
    spark: SparkSession, by_one: tuple[Path, Seen, dict[str, Tensor]], backend: str, capfd: pytest.CaptureFixture[str]
):
    folder, one, weights = by_one
    capfd.readouterr()
    two, weights_of_two = trained(folder, two_ranks(backend))
    assert (one.trained.ranks, two.trained.ranks) == (1, 2)
    assert two.sums == [0 + 1, 1 + 1]
    assert two.first == 0 + 7
    assert one.batches == two.batches
    rows = [row for batch in two.batches for row in batch]
    assert len(rows) == len(set(rows)) == ROWS
    assert two.trained.loss == pytest.approx(one.trained.loss, abs=1e-5)
    assert two.trained.ratio == pytest.approx(one.trained.ratio, abs=1e-5)
    for name, tensor in weights.items():
        assert (weights_of_two[name] - tensor).abs().max() <= 1e-5, name
    out, err = capfd.readouterr()
    assert out == ""
    assert "train: step 32/32" in err
    assert "<stderr>" not in err


@pytest.mark.parametrize("backend", HERE)
def test_a_rank_of_this_machine_that_is_done_leaves_without_taking_its_interpreter_down(backend: str):
    assert launch(two_ranks(backend), abort_if_taken_down) == 2


@pytest.mark.parametrize("backend", HERE)
def test_a_rank_of_this_machine_that_fails_is_named_with_its_cause_and_no_process_is_left(backend: str):
    with pytest.raises(TrainingFailed, match="training failed on rank 1 of 2: ValueError: a bad file") as failed:
        launch(two_ranks(backend), fail_on_rank_1)
    assert "fail_on_rank_1" in failed.value.trace
    assert ranks_left() == []


def test_a_rank_of_this_machine_that_is_killed_is_named():
    with pytest.raises(RanksLost, match=r"of 2 ranks one ended before its work was done, without a word: rank 1 on \S+ was killed"):
        launch(two_ranks("torch"), kill_rank_1)
    assert ranks_left() == []


def test_a_rank_of_this_machine_that_is_stopped_is_named_and_killed():
    with pytest.raises(RanksLost, match=r"one no longer answered.*nothing was heard from rank 1 on \S+ for \d+ s"):
        launch(two_ranks("horovodrun", stall_shutdown_seconds=4), stop_rank_1)
    assert ranks_left() == []


def test_a_rank_that_lives_and_does_not_come_is_named_by_those_that_waited():
    with pytest.raises(RanksLost, match=r"lost each other: rank 1 on \S+ did not come to the exchange.*rank 0 says PeerLost: exchange 3"):
        launch(two_ranks("torch", stall_shutdown_seconds=3), hold_up_rank_1)
    assert ranks_left() == []


@pytest.mark.parametrize("backend", HERE)
def test_more_ranks_than_cpus_are_refused_before_anything_starts(backend: str):
    cpus = len(os.sched_getaffinity(0))
    told = rf"training.ranks is {cpus * 8}, and training.backend {backend} has the {cpus} \S+ of this machine; set training.ranks to {cpus}"
    with pytest.raises(SlotsMissing, match=told):
        launch(TRAINING.model_copy(update={"backend": backend, "ranks": cpus * 8}), fail_on_rank_1)


def ranks_left() -> list[str]:
    """Command lines of ranks and launchers, wherever on this machine they were left."""
    lines = (" ".join(words_of(process)) for process in psutil.process_iter())
    return [line for line in lines if re.search(r"models\.local_rank|horovod\.runner\.launch", line)]
