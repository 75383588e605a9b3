"""A night that kills itself, as `kill -9` of its process group would: at a named point, or some seconds after it began.

python -m tests.reliability.killed --conf-file F --day D (--at POINT | --after SECONDS)

The jobs are untouched: this driver wraps the function whose call a point names, or waits for the file that it names to appear.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from conf.load import load
from jobs import nightly
from tests.jobs.nights import ROOT, Place
from tests.processes import MARK, marked, words_of

KILLED = -signal.SIGKILL
FOLLOW_SECONDS = 90.0  # ranks that lost their driver are given this long to notice it


@dataclass(frozen=True)
class Point:
    """A moment inside `stage`: before (or `after`) the call of a function for the table or stage `of`, or once a file is there."""

    stage: str
    call: str = ""
    of: str = ""
    after: bool = False
    file: str = ""


POINTS = {
    "broken rows are not in quarantine yet": Point("ingest", call="jobs.ingest:quarantine"),
    "quarantine is written, its tables are not": Point("ingest", call="jobs.ingest:quarantine", after=True),
    "one of the ingested tables is written": Point("ingest", call="jobs.ingest:keep", after=True),
    "ingest is done, the ledger does not say so": Point("ingest", call="etl.runs:Ledger.add", of="ingest"),
    "files of history lie there, and are in no version": Point("ingest", file="tables/history/day=*/part-*.parquet"),
    "history is written, examples are not": Point("ingest", call="jobs.build_examples:overwrite_days", of="history", after=True),
    "files of examples lie there, and are in no version": Point("ingest", file="tables/examples/day=*/part-*.parquet"),
    "a part of the snapshot is written": Point("train", file="snapshots/.*.new/dealing/**/part-*.parquet"),
    "the snapshot is written, no rank has begun": Point("train", call="jobs.train:write_training_snapshot", after=True),
    "a checkpoint is being written": Point("train", file="checkpoints/*/.*.new"),
    "the model is trained, the ledger does not say so": Point("train", call="etl.runs:Ledger.add", of="train"),
    "one of the day's tables of logits is written": Point("calibrate", call="jobs.calibrate:overwrite_days", after=True),
    "the model is registered, not published": Point("publish_model", call="jobs.publish_model:register", after=True),
    "the model is published, the ledger does not say so": Point("publish_model", call="etl.runs:Ledger.add", of="publish_model"),
    "files of scores lie there, and are in no version": Point("score", file="tables/scores/day=*/**/part-*.parquet"),
    "scores are written, not published": Point("score", call="jobs.score:publish"),
    "scores are published, the ledger does not say so": Point("score", call="etl.runs:Ledger.add", of="score"),
    "the night is done, its views are not written": Point("score", call="jobs.nightly:write_views"),
}


def die() -> None:
    os.killpg(0, signal.SIGKILL)


def arm(point: Point, workdir: Path) -> None:
    if point.file:
        known = set(workdir.glob(point.file))
        _in_thread(lambda: _wait_for(lambda: bool(set(workdir.glob(point.file)) - known)))
        return
    module, _, name = point.call.partition(":")
    *parts, last = name.split(".")
    owner = import_module(module)
    for part in parts:
        owner = getattr(owner, part)
    called = getattr(owner, last)

    def wrapped(*given: Any, **options: Any) -> Any:
        meant = not point.of or point.of in [getattr(one, what, None) for one in given for what in ("name", "stage")]
        if meant and not point.after:
            die()
        made = called(*given, **options)
        if meant:
            die()
        return made

    setattr(owner, last, wrapped)


def _wait_for(happened: Callable[[], bool]) -> None:
    while not happened():
        time.sleep(0.001)
    die()


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def kill_night(of: Place, day: str, *how: str) -> tuple[int, str]:
    """Run the night of `day` until it kills itself: its exit code (-9) and stderr. Raises where a process of it outlives FOLLOW_SECONDS."""
    command = [sys.executable, "-m", "tests.reliability.killed", "--conf-file", str(of.conf_file), "--day", day, *how]
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    ended = subprocess.run(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {MARK: mark},
    )
    _all_ended(mark)
    return ended.returncode, ended.stderr


def _all_ended(mark: str) -> None:
    given_up = time.monotonic() + FOLLOW_SECONDS
    while left := marked(mark):
        if time.monotonic() > given_up:
            told = [" ".join(words_of(process))[:200] for process in left]
            raise AssertionError(f"processes outlived their night by {FOLLOW_SECONDS:.0f} s: {told}")
        time.sleep(0.5)


def run_and_kill_executor(of: Place, seconds: float, *options: str) -> tuple[int, str, bool]:
    """A night in a driver of its own whose executors are processes; one of them is killed so long after the first has begun.

    Exit code, stderr, and whether the night was not over by then.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    night = _started(of, mark, *options)
    told: list[str] = []
    _in_thread(lambda: told.append(night.stderr.read() if night.stderr else ""))
    begun, killed = 0.0, False
    while night.poll() is None and not killed:
        executors = [process for process in marked(mark) if "CoarseGrainedExecutorBackend" in " ".join(words_of(process))]
        begun = begun or (time.monotonic() if executors else 0.0)
        if begun and executors and time.monotonic() - begun > seconds:
            executors[0].kill()
            killed = True
        time.sleep(0.2)
    code = night.wait()
    while not told:
        time.sleep(0.1)
    return code, told[0], killed


def stop_night(of: Place, line: str, *options: str, launcher: str = sys.executable) -> tuple[int, str, float]:
    """A night whose process group, as Airflow does it, gets SIGTERM once a line of its stderr holds `line`.

    Exit code, stderr, and seconds until no process of it was left. Raises where one outlives FOLLOW_SECONDS.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    night, told, sent = _started(of, mark, *options, launcher=launcher), "", 0.0
    assert night.stderr is not None
    for said in night.stderr:
        told += said
        if not sent and line in said:
            os.killpg(night.pid, signal.SIGTERM)
            sent = time.monotonic()
    code = night.wait()
    _all_ended(mark)
    return code, told, time.monotonic() - sent


def two_nights(of: Place, apart: float, *options: str) -> tuple[list[int], list[str]]:
    """Exit codes and stderr of two drivers that begin the same night `apart` seconds after each other."""
    first = _started(of, "first", *options)
    time.sleep(apart)
    nights = [first, _started(of, "second", *options)]
    told = [night.communicate()[1] for night in nights]
    return [night.returncode for night in nights], told


def _started(of: Place, mark: str, *options: str, launcher: str = sys.executable) -> subprocess.Popen[str]:
    command, env = [launcher, "jobs/nightly.py", "--conf-file", str(of.conf_file), *options], os.environ | {MARK: mark}
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env, start_new_session=True
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--conf-file", required=True)
    options.add_argument("--day", required=True)
    options.add_argument("--at", choices=POINTS)
    options.add_argument("--after", type=float)
    given = options.parse_args()
    if given.at:
        arm(POINTS[given.at], Path(load(given.conf_file).workdir).resolve())
    else:
        begun = nightly.run_night

        def late_death() -> None:
            time.sleep(given.after)
            die()

        def timed(*arguments: Any) -> int:
            _in_thread(late_death)
            return begun(*arguments)

        setattr(nightly, "run_night", timed)  # noqa: B010  (as a point does it)
    sys.exit(nightly.nightly(["--conf-file", given.conf_file, "--day", given.day]))


if __name__ == "__main__":
    main()
