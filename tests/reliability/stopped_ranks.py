"""Forty trainings on two Horovod ranks, each rank killed and stopped ten times at random moments: none hangs, all resume to the same weights.

python -m tests.reliability.stopped_ranks [--trials 40] [--seed 1]

Each training is a driver of its own with Spark, on made-up rows. Promised: within the stall limit (15 s here) plus 60 s it ends non-zero and
in words, none of its processes is left, and run again it ends with the weights of an undisturbed training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from conf.load import load
from etl.session import start
from models import bundle
from models.errors import TrainingFailed
from models.trainer import TrainRequest, train
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot

ROOT = Path(__file__).parents[2]
STALL_SECONDS, GRACE_SECONDS = 15, 60
ROWS = 96_000
MARK = "ADTOWER_TRIAL"  # in the environment of a training's processes: how those that are left are found
RANK = "horovod.spark.task.gloo_exec_fn"


def one_training(folder: Path) -> None:
    """In a driver of its own: two ranks, a checkpoint a second."""
    spark = start(load(ROOT / "conf" / "tiny.yaml").spark.model_copy(update={"master": "local[2]"}), "stopped ranks")
    two = {"backend": "horovod_spark", "ranks": 2, "checkpoint_seconds": 1, "stall_shutdown_seconds": STALL_SECONDS}
    request = TrainRequest(
        snapshot=str(folder.parent / "snapshot"),
        bundle_dir=str(folder / "model"),
        model_id="model",
        model=SMALL,
        training=TRAINING.model_copy(update=two),
        epochs=1,
        seed=1,
        checkpoints=str(folder / "checkpoints"),
    )
    try:
        train(request)
    except TrainingFailed as error:
        sys.exit(f"TrainingFailed: {error}")
    finally:
        spark.stop()


def begun(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.reliability.stopped_ranks", "--one", str(folder)]
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {MARK: str(folder)}, stdout=log, stderr=log)


def is_rank(process: psutil.Process) -> bool:
    """A rank's own process, not the shell that started it."""
    return process.name().startswith("python") and RANK in process.cmdline()


def processes_of(folder: Path, wanted: Callable[[psutil.Process], bool] = lambda process: True) -> list[psutil.Process]:
    """Every process of the folder's training that is `wanted`, wherever it was started from."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE and wanted(process):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def ranks_of(folder: Path, driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Waits for the two ranks' own processes."""
    while driver.poll() is None:
        found = processes_of(folder, is_rank)
        if len(found) == 2:
            return sorted(found, key=lambda process: int(process.environ()["HOROVOD_RANK"]))
        time.sleep(0.1)
    raise SystemExit(f"the training ended by itself ({driver.returncode}): {last_line(folder)}")


def trial(folder: Path, number: signal.Signals, rank: int, wait: float) -> dict[str, object]:
    """Send `number` to `rank`, `wait` seconds after both ranks began; what came of it."""
    driver = begun(folder)
    ranks = ranks_of(folder, driver)
    time.sleep(wait)
    ranks[rank].send_signal(number)
    sent = time.monotonic()
    while driver.poll() is None or processes_of(folder):
        if time.monotonic() - sent > STALL_SECONDS + GRACE_SECONDS:
            break
        time.sleep(0.2)
    seconds, left = time.monotonic() - sent, processes_of(folder)
    for process in left:
        process.kill()
    steps = sorted(int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal())
    return {"code": driver.poll(), "seconds": round(seconds, 1), "left": len(left), "checkpoints": steps, "words": last_line(folder)}


def last_line(folder: Path) -> str:
    lines = (folder / "log").read_text().strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("TrainingFailed")), lines[-1] if lines else "")


def largest_difference(folder: Path, other: Path) -> float:
    one, two = (bundle.read_tensors(place / "model", bundle.read_meta(place / "model")) for place in (folder, other))
    assert one.keys() == two.keys()
    return max(float((one[name].to(torch.float64) - two[name].to(torch.float64)).abs().max()) for name in one if one[name].numel())


def main(trials: int, seed: int, root: Path) -> int:
    write_snapshot(root / "snapshot", example_columns(ROWS), row_group_rows=2000)
    draw, calm, broken = random.Random(seed), root / "undisturbed", 0
    undisturbed = begun(calm)
    ranks_of(calm, undisturbed)
    since = time.monotonic()
    assert undisturbed.wait() == 0, last_line(calm)
    lasts = time.monotonic() - since
    print(f"undisturbed: {lasts:.0f} s from the start of its ranks to the end of its driver", file=sys.stderr)
    for place in range(trials):
        folder, number = root / f"trial-{place}", (signal.SIGKILL, signal.SIGSTOP)[place % 2]
        rank, wait = place // 2 % 2, draw.uniform(0, 0.7 * lasts)
        found = trial(folder, number, rank, wait)
        again = begun(folder).wait()
        difference = largest_difference(folder, calm) if again == 0 else None
        good = found["code"] not in (0, None) and not found["left"] and difference is not None and difference <= 1e-5
        broken += not good
        line = {"trial": place, "signal": number.name, "rank": rank, "after_s": round(wait, 1), **found, "rerun": again}
        print(json.dumps(line | {"largest_difference": difference, "good": good}), flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--one", type=Path, help="only this folder's training, in this process")
    given = options.parse_args()
    if given.one:
        one_training(given.one)
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(given.trials, given.seed, Path(scratch)))
