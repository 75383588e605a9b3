"""Real Horovod ranks on Spark: two of them are as good as one, and fail in words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from models import bundle
from models.distributed import _Relay, launch
from models.errors import SlotsMissing, TrainingFailed
from models.trainer import TrainRequest
from tests.models.ranks import fail_on_rank_1, seen_then_trained
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot

TWO_RANKS = TRAINING.model_copy(update={"backend": "horovod_spark", "ranks": 2})


def test_one_rank_and_two_see_the_same_batches_and_end_with_the_same_weights(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    snapshot = write_snapshot(tmp_path / "snapshot", example_columns(2003))
    found = {}
    for name, training in (("one", TRAINING), ("two", TWO_RANKS)):
        request = TrainRequest(str(snapshot), str(tmp_path / name), name, SMALL, training, epochs=2, seed=1)
        found[name] = launch(training, seen_then_trained, request)
    one, two = found["one"], found["two"]
    assert (one["trained"].ranks, two["trained"].ranks) == (1, 2)
    assert two["sums"] == [0 + 1, 1 + 1]
    assert one["batches"] == two["batches"]
    rows = [row for batch in two["batches"] for row in batch]
    assert len(rows) == len(set(rows)) == 2003
    assert two["trained"].loss == pytest.approx(one["trained"].loss, abs=1e-5)
    weights = {name: bundle.read_tensors(tmp_path / name, bundle.read_meta(tmp_path / name)) for name in found}
    for name, tensor in weights["one"].items():
        assert (weights["two"][name] - tensor).abs().max() <= 1e-5, name
    out, err = capfd.readouterr()
    assert out == ""
    assert "train: step 64/64" in err
    assert "<stderr>" not in err


def test_a_rank_that_fails_is_named_with_its_cause_and_signals_stay_the_drivers(spark: SparkSession):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingFailed, match="training failed on rank 1 of 2: ValueError: a bad file") as failed:
        launch(TWO_RANKS, fail_on_rank_1)
    assert "fail_on_rank_1" in failed.value.trace
    assert signal.getsignal(signal.SIGTERM) is before


def test_more_ranks_than_slots_are_refused_before_anything_starts(spark: SparkSession):
    four = TRAINING.model_copy(update={"backend": "horovod_spark", "ranks": 4})
    with pytest.raises(
        SlotsMissing, match=r"training.ranks is 4, and spark.master local\[2,4\] runs 2 tasks at once; set training.ranks to 2"
    ):
        launch(four, fail_on_rank_1)


def test_what_ranks_print_comes_out_in_whole_lines_without_horovods_prefix(capsys: pytest.CaptureFixture[str]):
    relay = _Relay()
    for piece in ("[0]<std", "err>:train: step 1", "\n[0]<stderr>:train: ", "step 2\n[1]<stdout>:", "half"):
        relay.write(piece)
    assert capsys.readouterr() == ("", "train: step 1\ntrain: step 2\n")
