"""How a stage of a night is run, or skipped; jobs/plan.py asks the same questions and does nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from etl.contents import EMPTY
from etl.runs import Record, code_hash
from jobs.common import BUG, USAGE, NotYet, Outcome, Run, Stage, StageFailed, code_of, of_the_disk, told
from jobs.depends import NEVER_DONE, Depends, some
from jobs.progress import Progress
from jobs.watch import Watch
from models import logs

UNCHANGED = "inputs, configuration and code are unchanged, and its outputs are as recorded"


@dataclass(frozen=True)
class Asked:
    """What a stage of a night depends on, and why it has work to do: empty where it may be skipped."""

    depends: Depends
    why: str


def asked_of(run: Run, stage: Stage) -> Asked:
    """NotYet where there is nothing to do, InputMissing where there is nothing to do it with."""
    day = run.night.day
    with run.contents.as_before_removal(run.ledger.removed(day)):
        inputs = stage.inputs(run)
    code = {package: code_hash(package) for package in ("jobs", "conf", *stage.packages)}
    depends = Depends(stage.name, inputs, stage.reads(run.conf), code, str(run.asked))
    last = run.ledger.last(stage.name, day)
    if last is None:
        return Asked(depends, NEVER_DONE)
    if last.fingerprint != depends.mark:
        return Asked(depends, f"{changes_since(run, last, depends)}, since {last.started_at:%Y-%m-%d %H:%M} UTC")
    current = run.contents.of(last.outputs)
    if run.ledger.may_skip(stage.name, day, depends.mark, current):
        return Asked(depends, "")
    return Asked(depends, f"its outputs changed: {some(run.ledger.changed_outputs(last, current))}")


def changes_since(run: Run, last: Record, depends: Depends) -> str:
    before = run.ledger.depended(last)
    return (depends.changes(before) if before else "") or "inputs, configuration or code changed"


def require_inputs(run: Run, stage: Stage, asked: Asked) -> None:
    """Retention took away what this night read, or a model that it made: what could be made of the rest would stand in the place of the whole."""
    last = run.ledger.last(stage.name, run.night.day)
    of_models = {name for name in (last.outputs if last else {}) if name.startswith("models/")}
    removed = (asked.depends.inputs.keys() | of_models) & run.ledger.removed(run.night.day).keys()
    gone = [name for name, value in run.contents.of(sorted(removed)).items() if value == EMPTY]
    if gone:
        raise StageFailed(
            f"{stage.name} has work to do ({asked.why}) and needs {some(gone)}, which jobs/retain.py removed; leave this night as it is, or "
            f"first ingest and build those days again",
            USAGE,
        )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


def run_stage(run: Run, stage: Stage, progress: Progress) -> Record:
    """Do the stage's work, or skip it; either way the ledger says so, and the log."""
    run.spark.sparkContext.setJobDescription(f"{run.night.day} {stage.name}")
    with logs.naming(stage=stage.name):
        return _Running(run, stage, progress).run()


class _Running:
    def __init__(self, run: Run, stage: Stage, progress: Progress) -> None:
        self.of, self.stage, self.progress = run, stage, progress
        self.started, self.begun = datetime.now(UTC), time.monotonic()
        self.asked: Asked | None = None  # once its inputs were found
        self.kept: dict[str, Any] = {}  # what it is made from, once it has work to do
        self.watch = Watch(run, stage.name, progress.say)

    def run(self) -> Record:
        try:
            with self.progress.stage(self.stage.name):
                outcome = self.work()
            return self.ended("done", outcome.message, outcome) if outcome else self.ended("skipped", UNCHANGED)
        except NotYet as nothing:
            self.of.waiting.append(self.stage.name)
            return self.ended("skipped", str(nothing))
        except Exception as error:
            failure = of_the_disk(self.of, error) or error
            if isinstance(error, StageFailed) and error.counts:
                self.of.failed_counts[self.stage.name] = error.counts
            try:
                self.ended("failed", f"{type(failure).__name__}: {first_line(failure)}", error=failure)
            except Exception as second:  # the first error is the one to show
                self.progress.say(f"not in the ledger: {type(second).__name__}: {first_line(second)}")
            if failure is error:
                raise
            raise failure from error

    def work(self) -> Outcome | None:
        """None where it may be skipped."""
        self.asked = asked = asked_of(self.of, self.stage)
        if not asked.why:
            return None
        require_inputs(self.of, self.stage, asked)
        self.kept = asked.depends.kept(self.of.contents.versions(asked.depends.inputs))
        self.watch.working(asked.depends.inputs, asked.why)
        if asked.why != NEVER_DONE:
            self.progress.say(f"{self.stage.name} is done again: {asked.why}")
        outcome = self.stage.work(self.of)
        return replace(outcome, counts={**outcome.counts, "bytes": self.watch.bytes_added()})

    def ended(self, status: str, message: str, outcome: Outcome | None = None, error: Exception | None = None) -> Record:
        outputs = self.of.contents.of(outcome.outputs) if outcome else {}
        seconds, counts = time.monotonic() - self.begun, outcome.counts if outcome else {}
        night, asked = self.of.night, self.asked
        entry = Record(
            night.day,
            self.of.run_id,
            self.stage.name,
            status,
            night.as_of,
            self.started,
            seconds,
            asked.depends.mark if asked else "",
            outputs,
            counts,
            message,
            asked.why if asked else "",
            self.kept,
        )
        # The log first: where Spark is gone the ledger cannot be written.
        self.watch.ended(entry, error if error and code_of(error) == BUG else None)
        self.of.ledger.add(entry)
        self.of.records = [row for row in self.of.records if row["stage"] != self.stage.name] + [told(entry)]
        self.progress.line(self.stage.name, status, seconds, message)
        return entry
