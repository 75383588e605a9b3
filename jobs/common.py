"""What every job shares: options, exit codes, the context of a run, and how a stage is run or skipped."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from py4j.protocol import Py4JNetworkError
from pyspark.sql import SparkSession

from conf.load import ConfError, load
from conf.schema import Conf
from etl.contents import Contents
from etl.disk import disk_trouble
from etl.landing import InputMissing, InputUnreadable
from etl.lock import LockHeld
from etl.runs import Ledger, Record
from etl.snapshot import SnapshotError
from etl.splits import ONE_DAY, Night
from etl.tables import ConflictError, TableError

DONE, BUG, USAGE, INPUT, VALIDATION, TRAINING, SCORING, CONFLICT, REFUSED = 0, 1, 2, 3, 4, 5, 6, 7, 8
AGAIN = 75  # nothing is wrong with data, configuration or code: the same command may succeed later
STOPPED = "stopped by a signal; what is finished stands, and the same command goes on from there"


class StageFailed(RuntimeError):
    """A stage could not do its work; carries the exit code that says of which kind, and what was counted, for the report."""

    def __init__(self, message: str, code: int, counts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.counts = code, counts or {}


class NotYet(Exception):
    """Nothing to do for this stage on this night, and that is no fault: the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What a stage made (output names, see etl.contents), counted, and would say in one line."""

    outputs: tuple[str, ...]
    counts: dict[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass
class Run:
    """One night, or one range of days; in one driver, or in several one after the other that share a run_id.

    `asked` is the first day asked for; the night rebuilds from `first` on.
    """

    spark: SparkSession
    conf: Conf
    night: Night
    asked: date
    run_id: str
    ledger: Ledger
    contents: Contents
    records: list[dict[str, Any]] = field(default_factory=list)  # this run's stages so far, as the summary and the report tell them
    waiting: list[str] = field(default_factory=list)  # stages of this driver that had nothing to do yet
    failed_counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    landed: dict[str, Any] = field(default_factory=dict)  # kind -> what ingest found when it asked for its inputs
    production: Any = None  # the model that was current as the night began, once looked up (jobs/contenders.py)

    @property
    def first(self) -> date:
        """M of the first night of the range."""
        return self.asked - (self.conf.label_days - 1) * ONE_DAY

    @property
    def run_dir(self) -> Path:
        return runs_dir(self.conf, self.night.day)

    def last_writable(self, stage: str, table: str) -> date:
        """The last day this night may write: days that a later night built are that night's."""
        later = self.ledger.first_day_of_later_nights(stage, table, self.night.day)
        return min(self.night.day, later - ONE_DAY) if later else self.night.day

    def counts_of(self, stage: str) -> dict[str, Any]:
        """What the stage counted when it last did its work for this night, or when it failed in this run."""
        if stage in self.failed_counts:
            return self.failed_counts[stage]
        record = self.ledger.last(stage, self.night.day)
        return record.counts if record else {}


@dataclass(frozen=True)
class Stage:
    """A step of the night. `inputs` are the hashes it depends on, `reads` the part of the configuration, `packages` the code."""

    name: str
    packages: tuple[str, ...]
    reads: Callable[[Conf], dict[str, Any]]
    inputs: Callable[[Run], dict[str, str]]
    work: Callable[[Run], Outcome]


def of_the_disk(run: Run, error: Exception) -> StageFailed | None:
    """A full disk, or one that is closed to us, as what it is, wherever it was met."""
    local = run.spark.conf.get("spark.local.dir", None) or tempfile.gettempdir()
    found = disk_trouble(error, {"workdir": Path(run.conf.workdir).resolve(), "spark.local.dir": str(local)})
    return StageFailed(found.message, AGAIN if found.full else USAGE) if found else None


def told(record: Record) -> dict[str, Any]:
    """A stage, as the summary and the report tell it."""
    named = {name: getattr(record, name) for name in ("stage", "status", "message", "why")}
    return {**named, "seconds": round(record.seconds, 1)}


def parser(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--conf-file", required=True, help="YAML configuration, such as conf/demo.yaml")
    return options


def day_option(text: str) -> date:
    """A strict ISO date (UTC): 2026-05-14, never a word or a pattern."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):  # Python takes weeks, and days without dashes
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2026-05-14") from error


def runs_dir(conf: Conf, day: date) -> Path:
    """Where a night leaves its summary, log, report and Data Docs."""
    return Path(conf.workdir).resolve() / "runs" / day.isoformat()


def open_run(spark: SparkSession, conf: Conf, night: Night, asked: date, run_id: str | None = None) -> Run:
    """A run of its own, or with `run_id` what goes on with the run of that name: it knows the stages that were run before."""
    ledger = Ledger(spark, conf)
    records = [told(record) for record in ledger.stages_of(run_id, night.day)] if run_id else []
    run_id = run_id or f"{night.day:%Y%m%d}-{datetime.now(UTC):%H%M%S}-{uuid.uuid4().hex[:6]}"
    return Run(spark, conf, night, asked, run_id, ledger, Contents(spark, conf), records)


def code_of(error: BaseException) -> int:
    """The exit code for an error: what kind of help the operator needs."""
    if isinstance(error, StageFailed):
        return error.code
    kinds: Sequence[tuple[type[BaseException] | tuple[type[BaseException], ...], int]] = (
        (ConfError, USAGE),
        (TableError, USAGE),
        ((InputMissing, InputUnreadable), INPUT),
        (SnapshotError, TRAINING),
        ((LockHeld, ConflictError), CONFLICT),
        (Py4JNetworkError, AGAIN),  # Spark's JVM is gone: it was killed, or the machine has no memory left
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), BUG)


def say(line: str) -> None:
    """A line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)
    return path


def write_summary(path: Path, summary: dict[str, Any]) -> Path:
    """`run_summary.json`: the exit code in words."""
    return write_whole(path, json.dumps(summary, indent=2, default=str) + "\n")


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM does what Ctrl-C does: what Spark is at is cancelled, and the job leaves everything in order. A second one ends it at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cancel = signal.getsignal(signal.SIGINT)
    if callable(cancel):
        with suppress(Exception):  # Spark's JVM may have got the signal too
            cancel(number, frame)
    raise KeyboardInterrupt


def main(job: Callable[[Sequence[str] | None], int]) -> None:
    """Run a job's function as a command: errors in words on stderr, and the exit code that says of which kind."""
    signal.signal(signal.SIGTERM, stop)
    try:
        code = job(None)
    except (KeyboardInterrupt, Exception) as last:
        error = ended_by(last)
        if isinstance(error, KeyboardInterrupt):
            code = AGAIN
            say(STOPPED)
        else:
            code = code_of(error)
            if code == BUG:
                traceback.print_exc()
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.exit(code)


def ended_by(last: BaseException) -> BaseException:
    """The error itself, unless the job was ending already when it was met, by a signal or since Spark's JVM was gone: then that.

    With its JVM gone Spark cannot be stopped either, and says so by errors of several kinds, one while handling the other. An error that
    says by its own exit code what is wrong gives way to a signal alone.
    """
    ends = (KeyboardInterrupt, Py4JNetworkError) if code_of(last) == BUG else KeyboardInterrupt
    error, earlier = last, last.__context__
    while earlier is not None:
        if isinstance(earlier, ends):
            error = earlier
        earlier = earlier.__context__
    return error


def conf_of(arguments: argparse.Namespace) -> Conf:
    return load(arguments.conf_file)
