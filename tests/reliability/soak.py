"""Trials of faults, as many of each kind as promised: every one must leave whole tables, and the same command again the tables of a night undisturbed.

python -m tests.reliability.soak [--kinds "killed at random,disk full"] [--trials 5]

Simulated logs of conf/tiny.yaml. Each trial copies the tables as they stand before the stage it faults (tests/reliability/lakes.py), lets the
night of day 7 fail there, and looks: is each day of each table as it was or as it is to be, byte for byte of content? Then it runs the night
again. What a trial found is kept in var/reliability/soak/trials.jsonl, and a soak that was stopped goes on with the trials that are missing;
after a change of code it begins anew. Prints one JSON object and fails by its exit code.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from conf.load import load
from etl.runs import code_hash
from etl.session import start
from jobs.common import AGAIN, CONFLICT, DONE, code_of
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import ROOT, Place, copied
from tests.reliability.disk import disk_of_its_own, leave_free
from tests.reliability.kept import Kept
from tests.reliability.killed import KILLED, POINTS, kill_night, run_and_kill_executor, two_nights
from tests.reliability.lakes import CODE, KEPT, NIGHT, Hashes, Lakes, hashes, lakes, torn

FOLDER = ROOT / "var" / "reliability" / "soak"
TRIES = 5


@dataclass
class Bench:
    """What trials share."""

    spark: SparkSession
    folder: Path

    @cached_property
    def lakes(self) -> Lakes:
        return lakes(self.spark, self.folder / "lakes")

    @cached_property
    def states(self) -> tuple[dict[str, Hashes], Hashes]:
        return self.lakes.states(self.spark)

    def lake(self, stage: str, **knobs: Any) -> Place:
        """A fresh copy of the tables before `stage`, with some knobs set otherwise."""
        shutil.rmtree(self.folder / "trial", ignore_errors=True)
        return copied(self.lakes.before[stage], self.folder / "trial", **knobs)

    def judged(self, of: Place, stage: str, etl: bool = False) -> dict[str, Any]:
        """Days that are torn; then the night, or its ETL, run again in this driver, and whether it ends as if nothing had been."""
        before, after = self.states
        broken = torn(hashes(self.spark, of), before[stage], after)
        code = run_night(self.spark, of.conf, NIGHT, NIGHT, ETL if etl else STAGES)
        return {"torn": broken, "rerun": code, "equal": hashes(self.spark, of) == (before["train"] if etl else after)}


def killed_at(bench: Bench, number: int) -> dict[str, Any]:
    """At the named points, in turn; where a file was there for too short a time to be seen, and the night ended, once more."""
    name = list(POINTS)[number % len(POINTS)]
    for _ in range(TRIES):
        lake = bench.lake(POINTS[name].stage, training={"checkpoint_seconds": 0})  # else none is written in so short a training
        code, told = kill_night(lake, NIGHT.isoformat(), "--at", name)
        if code != DONE:
            break
    return {"at": name, "code": code, **bench.judged(lake, POINTS[name].stage), "right": code == KILLED} | tail(told, code != KILLED)


def killed_after(bench: Bench, number: int) -> dict[str, Any]:
    """At a random moment of the night; one that ended before it is killed earlier."""
    draw = random.Random(f"killed {number}")
    stage = draw.choice(KEPT)
    seconds = draw.uniform(0, 1.5 * bench.lakes.seconds[stage])  # a cold driver is slower
    while True:
        lake = bench.lake(stage)
        code, told = kill_night(lake, NIGHT.isoformat(), "--after", str(seconds))
        if code != DONE:
            break
        seconds /= 2
    return {"from": stage, "after": round(seconds, 1), "code": code, **bench.judged(lake, stage), "right": code == KILLED} | tail(
        told, code != KILLED
    )


def executor_lost(bench: Bench, number: int) -> dict[str, Any]:
    """One of two executors is killed at a random moment of ETL: the night goes on by itself, to the same tables. One that had ended before is
    tried again, with an earlier moment."""
    of_etl = bench.lakes.seconds["ingest"] - bench.lakes.seconds["train"]
    seconds, only = random.Random(f"executor {number}").uniform(0, 1.5 * of_etl), ",".join(stage.name for stage in ETL)
    while True:
        lake = bench.lake("ingest", spark={"master": "local-cluster[2,1,1536]", "driver_memory": "2g"})
        code, told, killed = run_and_kill_executor(lake, seconds, "--day", NIGHT.isoformat(), "--only", only)
        if killed or code != DONE:
            break
        seconds /= 2
    wanted = bench.states[0]["train"]
    return {
        "after": round(seconds, 1),
        "killed": killed,
        "code": code,
        "equal": hashes(bench.spark, lake) == wanted,
        "right": killed and code == DONE,
    } | tail(told, code != DONE)


def two_at_once(bench: Bench, number: int) -> dict[str, Any]:
    """The same night twice, some moments apart: one does it, the other exits 7."""
    lake, wait = bench.lake("ingest"), random.Random(f"two {number}").uniform(0, 2)
    codes, _ = two_nights(lake, wait, "--day", NIGHT.isoformat(), "--only", "ingest")
    return {"apart": round(wait, 1), "codes": codes, **bench.judged(lake, "ingest", etl=True), "right": sorted(codes) == [DONE, CONFLICT]}


#: Bytes that a stage finds free. Each is less than what it writes.
FREE = (0, 30_000)


def disk_full(bench: Bench, number: int) -> dict[str, Any]:
    """At each stage, with nothing or a little left: the night says which disk, and what stood stands."""
    stage, free = KEPT[number % len(KEPT)], FREE[number // len(KEPT)]
    with disk_of_its_own(bench.folder / "disk"):
        lake = copied(bench.lakes.before[stage], bench.folder / "disk" / "lake")
        leave_free(bench.folder / "disk", free)
        try:
            code, told = run_night(bench.spark, lake.conf, NIGHT, NIGHT, STAGES), ""
        except Exception as error:
            code, told = code_of(error), str(error)
        leave_free(bench.folder / "disk", None)
        right = code == AGAIN and str(lake.workdir.resolve()) in told and "no space left" in told
        return {"from": stage, "free": free, "code": code, "told": told[:1000], **bench.judged(lake, stage), "right": right}


def tail(told: str, wanted: bool) -> dict[str, str]:
    return {"told": told[-2000:]} if wanted else {}


KINDS: dict[str, tuple[int, Callable[[Bench, int], dict[str, Any]]]] = {
    "killed at a point": (len(POINTS), killed_at),
    "killed at random": (50 - len(POINTS), killed_after),
    "executor lost": (10, executor_lost),
    "two at once": (20, two_at_once),
    "disk full": (len(KEPT) * len(FREE), disk_full),
}


def passed(trial: dict[str, Any]) -> bool:
    return bool(trial["right"] and not trial.get("torn") and trial.get("equal", True) and trial.get("rerun", DONE) == DONE)


def run(bench: Bench, kinds: list[str], trials: int | None) -> dict[str, Any]:
    kept = Kept(bench.folder / "trials.jsonl", {"code_hash": code_hash(*CODE)})
    found = {(row["kind"], row["number"]): row for row in kept.rows}
    for kind in kinds:
        wanted, trial = KINDS[kind]
        for number in range(min(wanted, trials or wanted)):
            if (kind, number) in found:
                continue
            begun = time.monotonic()
            row = {"kind": kind, "number": number, **trial(bench, number)}
            row["seconds"] = round(time.monotonic() - begun, 1)
            found[kind, number] = row
            kept.add(row, f"{kind} {number + 1} of {wanted}: {'as promised' if passed(row) else 'WRONG'}; ")
    rows = [row for (kind, _), row in sorted(found.items()) if kind in kinds]
    return {
        "reliability": "soak",
        "simulated": True,
        "trials": {kind: f"{sum(row['kind'] == kind for row in rows)} of {KINDS[kind][0]}" for kind in kinds},
        "passed": sum(map(passed, rows)),
        "wrong": [row for row in rows if not passed(row)],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--kinds", default=",".join(KINDS), help="by comma")
    options.add_argument("--trials", type=int, help="at most so many of each kind")
    options.add_argument("--folder", type=Path, default=FOLDER)
    given = options.parse_args()
    spark = start(load(ROOT / "conf" / "tiny.yaml").spark, "soak")
    found = run(Bench(spark, given.folder), given.kinds.split(","), given.trials)
    print(json.dumps(found))
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
