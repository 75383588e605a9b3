"""What a person sees of a training: figures that are right, a bar where there is a terminal, lines elsewhere, curves on the disk."""

from __future__ import annotations

import math
import os
import pty
import select
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models import terminal
from models.progress import Progress, Seen
from models.rank_voices import ON_TERMINAL, Ears, Heard, Voice
from models.trainer import TrainRequest, train
from tests.models.snapshots import HEADS, SMALL, TRAINING, example_columns, write_snapshot

SEEN = Seen(loss=[0.5, math.nan], ratio=[1.25, math.inf], pace=0.5)


@contextmanager
def screen() -> Iterator[Callable[[], str]]:
    """stderr is a terminal; what was written to it since the last call, waited for. In the test itself: between a fixture and a test pytest
    puts a stderr of its own there."""
    master, slave = pty.openpty()
    tty.setraw(slave)  # line ends as they are written
    before = sys.stderr

    def shown() -> str:
        return os.read(master, 10_000).decode() if select.select([master], [], [], 5)[0] else ""

    with open(slave, "w", encoding="utf-8") as sys.stderr:
        try:
            yield shown
        finally:
            sys.stderr = before
    os.close(master)


@pytest.fixture(autouse=True)
def _fresh_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 120 columns, and without a bar of the test before."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(terminal, "_bar_shown_at", -math.inf)


def half_done(begun: int = 0, tensorboard: str | None = None) -> Progress:
    """Of 100 steps of 10 rows, ten seconds ago begun, the first line overdue."""
    progress = Progress(0, steps=100, rows=1000, begun=begun, heads=["click", "save"], tensorboard=tensorboard)
    progress.started -= 10
    progress.told = progress.written = -math.inf
    return progress


def test_elsewhere_it_is_a_plain_line_with_rate_time_left_loss_and_calibration(capsys: pytest.CaptureFixture[str]):
    half_done().step(50, lambda: SEEN)
    assert capsys.readouterr().err == (
        "train: step 50/100, 50 rows/s, 10 s, 10 s left; loss and predicted/observed: click 0.5000 x1.25, save - x-\n"
    )


def test_on_a_terminal_it_is_a_bar_in_place_that_nobody_writes_over_and_at_the_end_a_line():
    with screen() as shown:
        progress = half_done()
        progress.step(50, lambda: SEEN)
        progress.step(51, lambda: pytest.fail("too soon after the last one"))
        assert shown() == "\r\x1b[Ktrain [##########..........] 50%, 50 rows/s, 10 s left; click 0.5000 x1.25, save - x-"
        assert terminal.held()
        progress.step(100, lambda: SEEN)
        last = shown()
    assert last.startswith("\r\x1b[Ktrain: step 100/100, 100 rows/s, 10 s, 0 s left; ")
    assert last.endswith("save - x-\n")


def test_a_bar_longer_than_the_terminal_is_cut_to_one_line():
    with screen() as shown:
        terminal.bar("x" * 500)
        assert shown() == "\r\x1b[K" + "x" * 119


def test_a_ranks_bar_is_shown_in_place_on_the_terminal_of_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ON_TERMINAL, "1")
    with screen() as shown:
        ears = Ears("127.0.0.1", Heard())
        voice = Voice(0, ("127.0.0.1", ears.port), ears.key)
        assert voice.isatty()
        print("\r\x1b[Ktrain [##..]", end="", file=voice, flush=True)
        assert shown() == "\r\x1b[Ktrain [##..]"
        print("\r\x1b[Ktrain: a line", file=voice, flush=True)
        assert shown() == "\r\x1b[Ktrain: a line\n"
        ears.close()


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalar -> (step, value), as TensorBoard reads them."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_a_training_leaves_the_curves_that_its_result_ends_with(tmp_path: Path):
    snapshot = write_snapshot(tmp_path / "snapshot", example_columns(600))
    result = train(
        TrainRequest(str(snapshot), str(tmp_path / "model"), "model", SMALL, TRAINING, 1, 1, tensorboard=str(tmp_path / "curves"))
    )
    found = curves(tmp_path / "curves")
    for head in HEADS:
        for name, ends_with in (("loss", result.loss[head]), ("ratio", result.ratio[head])):
            step, value = found[f"{name}/{head}"][-1]
            assert step == result.steps
            assert value == pytest.approx(ends_with, rel=1e-4)
    assert set(found) == {f"{kind}/{head}" for kind in ("loss", "ratio") for head in HEADS} | {"rows_per_second", "learning_rate_share"}


def test_a_resumed_training_goes_on_with_its_curve_from_the_checkpoint(tmp_path: Path):
    for begun, steps in ((0, (10, 40, 60)), (40, (50, 100))):  # killed after step 60, resumed from a checkpoint of step 40
        progress = half_done(begun, str(tmp_path))
        for step in steps:
            progress.written = -math.inf
            progress.step(step, lambda: SEEN)
        progress.close()
    assert curves(tmp_path)["loss/click"] == [(step, 0.5) for step in (10, 40, 50, 100)]
    assert "loss/save" not in curves(tmp_path)


def test_curves_that_cannot_be_written_end_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    half_done(tensorboard=str(tmp_path / "file" / "curves")).step(100, lambda: SEEN)
    assert "train: goes on without TensorBoard files (" in capsys.readouterr().err
