"""Forty trainings on two Horovod ranks, each rank killed and stopped ten times at random moments: none hangs, all resume to the same weights.

python -m tests.reliability.stopped_ranks [--trials 40] [--seed 1]

Each training is a driver of its own with Spark, on made-up rows. Promised: within the stall limit (15 s here) plus 60 s it ends non-zero and
in words, none of its processes is left, and run again it ends with the weights of an undisturbed training. What a trial found is kept in
var/reliability/ranks/trials.jsonl, and forty that were stopped go on with those that are missing; after a change of code they begin anew. Prints
one JSON object and fails by its exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from conf.load import load
from etl.runs import code_hash
from etl.session import start
from models import bundle
from models.errors import TrainingFailed
from models.trainer import TrainRequest, train
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot
from tests.processes import MARK, is_horovod_rank, marked
from tests.reliability.kept import Kept
from tests.reliability.lakes import CODE

ROOT = Path(__file__).parents[2]
STALL_SECONDS, GRACE_SECONDS = 15, 60
ROWS = 96_000
FOLDER = ROOT / "var" / "reliability" / "ranks"
CALM = "undisturbed"


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
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {MARK: str(folder)}, stdout=log, stderr=log)


def ranks_of(folder: Path, driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Waits for the two ranks' own processes."""
    while driver.poll() is None:
        found = [process for process in marked(str(folder)) if is_horovod_rank(process)]
        if len(found) == 2:
            return sorted(found, key=lambda process: int(process.environ()["HOROVOD_RANK"]))
        time.sleep(0.1)
    raise SystemExit(f"the training ended by itself ({driver.returncode}): {last_line(folder)}")


def trial(folder: Path, number: signal.Signals, rank: int, wait: float) -> dict[str, Any]:
    """Send `number` to `rank`, `wait` seconds after both ranks began, or half as many where they had ended by then; what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    driver = begun(folder)
    ranks = ranks_of(folder, driver)
    time.sleep(wait)
    try:
        ranks[rank].send_signal(number)
    except psutil.NoSuchProcess:
        driver.wait()
        return trial(folder, number, rank, wait / 2)
    sent = time.monotonic()
    while driver.poll() is None or marked(str(folder)):
        if time.monotonic() - sent > STALL_SECONDS + GRACE_SECONDS:
            break
        time.sleep(0.2)
    seconds, left = time.monotonic() - sent, marked(str(folder))
    for process in left:
        process.kill()
    steps = sorted(int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal())
    return {
        "after_s": round(wait, 1),
        "code": driver.poll(),
        "seconds": round(seconds, 1),
        "left": len(left),
        "checkpoints": steps,
        "words": last_line(folder),
    }


def last_line(folder: Path) -> str:
    lines = (folder / "log").read_text().strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("TrainingFailed")), lines[-1] if lines else "")


def largest_difference(folder: Path, other: Path) -> float:
    one, two = (bundle.read_tensors(place / "model", bundle.read_meta(place / "model")) for place in (folder, other))
    assert one.keys() == two.keys()
    return max(float((one[name].to(torch.float64) - two[name].to(torch.float64)).abs().max()) for name in one if one[name].numel())


def undisturbed(root: Path) -> float:
    """Write the rows and train on them; seconds from the start of the ranks to the end of their driver."""
    write_snapshot(root / "snapshot", example_columns(ROWS), row_group_rows=2000)
    driver = begun(root / CALM)
    ranks_of(root / CALM, driver)
    since = time.monotonic()
    assert driver.wait() == 0, last_line(root / CALM)
    return round(time.monotonic() - since, 1)


def run(trials: int, seed: int, root: Path) -> dict[str, Any]:
    kept = Kept(root / "trials.jsonl", {"code_hash": code_hash(*CODE), "seed": seed})
    if not kept.rows:
        shutil.rmtree(root, ignore_errors=True)
        kept.add({"trial": CALM, "seconds": undisturbed(root)})
    (calm, *found) = kept.rows
    for place in range(len(found), trials):
        folder, number, rank = root / f"trial-{place}", (signal.SIGKILL, signal.SIGSTOP)[place % 2], place // 2 % 2
        wait = random.Random(f"{seed} {place}").uniform(0, 0.7 * calm["seconds"])
        row = {"trial": place, "signal": number.name, "rank": rank, **trial(folder, number, rank, wait)}
        again = begun(folder).wait()
        difference = largest_difference(folder, root / CALM) if again == 0 else None
        good = row["code"] not in (0, None) and not row["left"] and difference is not None and difference <= 1e-5
        found.append(row | {"rerun": again, "largest_difference": difference, "good": good})
        kept.add(found[-1])
        shutil.rmtree(folder)
    return {
        "reliability": "ranks",
        "simulated": True,
        "trials": len(found),
        "good": sum(row["good"] for row in found),
        "slowest_seconds": max((row["seconds"] for row in found), default=None),
        "wrong": [row for row in found if not row["good"]],
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--folder", type=Path, default=FOLDER)
    options.add_argument("--one", type=Path, help="only this folder's training, in this process")
    given = options.parse_args()
    if given.one:
        one_training(given.one)
        sys.exit()
    result = run(given.trials, given.seed, given.folder)
    print(json.dumps(result))
    sys.exit(bool(result["wrong"]))
