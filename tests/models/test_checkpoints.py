"""A training that was killed goes on from its newest good checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import SparkSession

from models import bundle
from models.checkpoints import META, STATE, STEPS, Checkpoints
from models.errors import TrainingFailed
from models.manifest import sha256
from models.progress import Progress
from models.trainer import TrainRequest, train
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot

ROOT = Path(__file__).parents[2]
CONF = TRAINING.model_copy(update={"batch_size": 32})
AN_EPOCH, EPOCHS = 63, 2  # 251 rows of the largest shard, 4 a step


def request_of(folder: Path, snapshot: Path, dropout: float = 0.0, **changes: object) -> TrainRequest:
    """A training with its bundle and checkpoints in `folder`."""
    model = SMALL.model_copy(update={"dropout": dropout})
    request = TrainRequest(str(snapshot), str(folder / "model"), "model", model, CONF, epochs=EPOCHS, seed=1)
    return dataclasses.replace(request, **({"checkpoints": str(folder / "checkpoints")} | changes))  # type: ignore[arg-type]


def weights(folder: Path) -> bytes:
    return (folder / "model" / bundle.WEIGHTS).read_bytes()


def steps_of(checkpoints: Path) -> list[int]:
    return sorted(int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal())


def trained_until_killed(folder: Path, snapshot: Path, dropout: float) -> Path:
    """The checkpoints that a training leaves which a SIGKILL ends in its second epoch, the last."""
    program = (
        "import sys; from pathlib import Path; from models.trainer import train; from tests.models import test_checkpoints as t; "
        "each = t.CONF.model_copy(update={'checkpoint_seconds': 0}); "
        "train(t.request_of(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), training=each))"
    )
    command = [sys.executable, "-c", program, str(folder), str(snapshot), str(dropout)]
    # One thread, as here: sums over two have other bits.
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True) as training:
        while training.poll() is None and max(steps_of(folder / "checkpoints"), default=0) < AN_EPOCH + 8:
            time.sleep(0.002)
        training.kill()
        _, err = training.communicate()
    assert training.returncode == -signal.SIGKILL, err
    assert not (folder / "model").exists()
    # The kill may have come between writing one and removing the oldest, or while that was being removed.
    steps = steps_of(folder / "checkpoints")
    assert len(steps) in (2, 3)
    assert AN_EPOCH < steps[-2] < steps[-1] < AN_EPOCH * EPOCHS
    return folder / "checkpoints"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("snapshots") / "two-thousand", example_columns(2003))


@pytest.fixture(scope="module")
def undisturbed(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(request_of(folder, snapshot, checkpoints=None))
    return folder


@pytest.fixture(scope="module")
def killed(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_until_killed(tmp_path_factory.mktemp("killed"), snapshot, dropout=0.0)


@pytest.fixture
def left(killed: Path, tmp_path: Path) -> Path:
    """What the kill left, for one test to go on from."""
    return shutil.copytree(killed, tmp_path / "checkpoints")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    snapshot: Path, undisturbed: Path, left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    newest = steps_of(left)[-1]
    result = train(request_of(tmp_path, snapshot))
    assert f"train: resumed at step {newest}/{AN_EPOCH * EPOCHS} from checkpoint {left / str(newest)}\n" in capsys.readouterr().err
    assert weights(tmp_path) == weights(undisturbed)
    metas = [bundle.read_meta(folder / "model") for folder in (tmp_path, undisturbed)]
    assert metas[0] == metas[1]  # losses and counts among it
    assert (result.rows, result.steps) == (2003 * EPOCHS, AN_EPOCH * EPOCHS)
    assert not left.exists()


def test_with_dropout_it_goes_on_with_the_same_masks(snapshot: Path, tmp_path: Path):
    trained_until_killed(tmp_path / "killed", snapshot, dropout=0.3)
    train(request_of(tmp_path / "killed", snapshot, dropout=0.3))
    train(request_of(tmp_path / "whole", snapshot, dropout=0.3, checkpoints=None))
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    snapshot: Path, undisturbed: Path, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    previous, newest = steps_of(killed)[-2:]
    cases = [  # what happens to the newest, how it is refused
        ("a flipped byte", lambda folder: flip_a_byte(folder / STATE), f"it is damaged, the sha256 of {STATE} is not the one in {META}"),
        ("cut short", lambda folder: os.truncate(folder / STATE, 1000), "it is damaged"),
        ("half a checkpoint.json", lambda folder: os.truncate(folder / META, 100), ""),
        ("without its tensors", lambda folder: (folder / STATE).unlink(), "No such file"),
        ("without checkpoint.json", lambda folder: (folder / META).unlink(), "No such file"),
    ]
    for name, damage, words in cases:
        left = shutil.copytree(killed, tmp_path / name / "checkpoints")
        damage(left / str(newest))
        train(request_of(tmp_path / name, snapshot))
        err = capsys.readouterr().err
        refusal = next(line for line in err.splitlines() if "is refused" in line)
        assert refusal.startswith(f"train: checkpoint {left / str(newest)} is refused: "), name
        assert words in refusal, name
        assert refusal.endswith(f"; the previous one, of step {previous}, is used"), name
        assert f"train: resumed at step {previous}/" in err, name
        assert weights(tmp_path / name) == weights(undisturbed), name


def test_with_every_checkpoint_damaged_training_starts_from_the_beginning(
    snapshot: Path, undisturbed: Path, left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for path in left.glob(f"[0-9]*/{STATE}"):
        flip_a_byte(path)
    train(request_of(tmp_path, snapshot))
    err = capsys.readouterr().err
    assert err.count("is refused: it is damaged") >= 2
    assert "; training starts from the beginning" in err
    assert "resumed" not in err
    assert weights(tmp_path) == weights(undisturbed)


def test_a_checkpoint_of_another_training_is_never_used(
    snapshot: Path, undisturbed: Path, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = write_snapshot(tmp_path / "other", example_columns(2003, seed=2))
    slower = CONF.model_copy(update={"learning_rate": 0.005})
    cases: list[tuple[Path, dict[str, Any], str]] = [  # snapshot, what else differs, how it is named
        (snapshot, {"seed": 2}, "seed"),
        (snapshot, {"model_id": "other"}, "model_id"),
        (snapshot, {"training": slower}, "training"),
        (snapshot, {"parent": str(undisturbed / "model")}, "parent"),
        (other, {"epochs": EPOCHS + 1}, "epochs and snapshot"),
    ]
    for source, changes, named in cases:
        folder = tmp_path / named
        shutil.copytree(killed, folder / "checkpoints")
        train(request_of(folder, source, **changes))
        err = capsys.readouterr().err
        assert f"is refused: it is of a training with another {named}; " in err
        assert "resumed" not in err
        train(request_of(folder / "fresh", source, checkpoints=None, **changes))
        assert weights(folder) == weights(folder / "fresh"), named


def test_a_snapshot_that_was_written_again_with_other_bytes_is_the_same(
    snapshot: Path, undisturbed: Path, left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    again = write_snapshot(tmp_path / "again", example_columns(2003))
    path = again / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        file = again / shard["file"]
        pq.write_table(pq.read_table(file).replace_schema_metadata({"written": "again"}), file, row_group_size=100)
        shard["sha256"] = sha256(file)
    path.write_text(json.dumps(manifest | {"examples_version": 2}))
    train(request_of(tmp_path, again))
    assert "train: resumed at step" in capsys.readouterr().err
    assert weights(tmp_path) == weights(undisturbed)


def test_ranks_and_timeouts_are_no_part_of_what_a_training_is_made_from():
    run_otherwise = {
        "backend": "horovod_spark",
        "ranks": 4,
        "checkpoint_seconds": 1,
        "start_timeout_seconds": 9,
        "stall_shutdown_seconds": 99,
    }
    assert CONF.model_copy(update=run_otherwise).deciding == CONF.deciding
    assert CONF.model_copy(update={"learning_rate": 0.5}).deciding != CONF.deciding


def test_the_two_newest_are_kept_until_the_training_is_done(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"seed": 1}, seconds=0)
    for step in (9, 10, 101):
        assert checkpoints.due()
        checkpoints.save({STEPS: torch.tensor(step)}, epoch=step // AN_EPOCH)
    assert steps_of(tmp_path / "checkpoints") == [10, 101]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "101").iterdir()) == [META, STATE]
    told = json.loads((tmp_path / "checkpoints" / "101" / META).read_text())
    assert (told["epoch"], told["step"], told["of"]) == (1, 101, {"seed": 1})
    assert not Checkpoints(tmp_path, {}, seconds=60).due()
    checkpoints.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_one_with_other_tensors_is_refused_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoints = Checkpoints(tmp_path, {}, seconds=0)
    checkpoints.save({STEPS: torch.tensor(7), "weight": torch.ones(3)}, epoch=0)
    state = {STEPS: torch.tensor(0), "weight": torch.zeros(4)}
    assert checkpoints.restore(state) is None
    assert (int(state[STEPS]), state["weight"].tolist()) == (0, [0.0] * 4)
    assert "is refused: its tensors are not those of this training; training starts from the beginning" in capsys.readouterr().err


def test_one_taken_after_the_last_step_leaves_only_the_bundle_to_be_written(snapshot: Path, tmp_path: Path):
    each = CONF.model_copy(update={"checkpoint_seconds": 0})
    (tmp_path / "file").touch()
    with pytest.raises(TrainingFailed, match="file"):  # no bundle can be saved below a file
        train(request_of(tmp_path, snapshot, training=each, epochs=1, bundle_dir=str(tmp_path / "file" / "model")))
    assert steps_of(tmp_path / "checkpoints") == [AN_EPOCH - 1, AN_EPOCH]
    rest = train(request_of(tmp_path, snapshot, epochs=1))
    whole = train(request_of(tmp_path / "whole", snapshot, epochs=1, checkpoints=None))
    assert (rest.loss, rest.steps, rest.rows_per_second) == (whole.loss, AN_EPOCH, 0)
    assert weights(tmp_path) == weights(tmp_path / "whole")


def test_the_rate_counts_the_rows_of_this_run_alone():
    progress = Progress(1, steps=100, rows=1000, begun=90)
    progress.started -= 10
    assert progress.rows_per_second(95) == pytest.approx(5, rel=0.01)  # 5 steps of 10 rows in 10 s


def test_what_one_rank_wrote_two_ranks_go_on_from(
    spark: SparkSession, snapshot: Path, undisturbed: Path, left: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    newest, two = steps_of(left)[-1], CONF.model_copy(update={"backend": "horovod_spark", "ranks": 2})
    result = train(request_of(tmp_path, snapshot, training=two))
    assert result.ranks == 2
    assert f"train: resumed at step {newest}/" in capfd.readouterr().err
    tensors = [bundle.read_tensors(folder / "model", bundle.read_meta(folder / "model")) for folder in (tmp_path, undisturbed)]
    for name, tensor in tensors[1].items():
        assert (tensors[0][name] - tensor).abs().max() <= 1e-5, name
