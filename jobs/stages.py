"""How a stage of a night is run, or skipped; jobs/plan.py asks the same questions and does nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from etl.contents import EMPTY
from etl.runs import Record, code_hash, fingerprint
from jobs.common import BUG, USAGE, NotYet, Outcome, Run, Stage, StageFailed, code_of, of_the_disk, told
from jobs.progress import Progress
from jobs.watch import Watch
from models import logs

UNCHANGED = "inputs, configuration and code are unchanged, and its outputs are as recorded"


@dataclass(frozen=True)
class Asked:
    """What a stage of a night depends on, the fingerprint of that, and why it has work to do: empty where it may be skipped."""

    inputs: dict[str, str]
    mark: str
    why: str


def asked_of(run: Run, stage: Stage) -> Asked:
    """NotYet where there is nothing to do, InputMissing where there is nothing to do it with."""
    day = run.night.day
    with run.contents.as_before_removal(run.ledger.removed(day)):
        inputs = stage.inputs(run)
    mark = fingerprint(stage.name, inputs, stage.reads(run.conf), code_hash("jobs", "conf", *stage.packages), str(run.asked))
    last = run.ledger.last(stage.name, day)
    if last is None:
        return Asked(inputs, mark, "never done before")
    if last.fingerprint != mark:
        return Asked(inputs, mark, f"inputs, configuration or code changed since {last.started_at:%Y-%m-%d %H:%M} UTC")
    current = run.contents.of(last.outputs)
    if run.ledger.may_skip(stage.name, day, mark, current):
        return Asked(inputs, mark, "")
    return Asked(inputs, mark, f"its outputs changed: {some(run.ledger.changed_outputs(last, current))}")


def require_inputs(run: Run, stage: Stage, asked: Asked) -> None:
    """Retention took away what this night read, or a model that it made: what could be made of the rest would stand in the place of the whole."""
    last = run.ledger.last(stage.name, run.night.day)
    of_models = {name for name in (last.outputs if last else {}) if name.startswith("models/")}
    removed = (asked.inputs.keys() | of_models) & run.ledger.removed(run.night.day).keys()
    gone = [name for name, value in run.contents.of(sorted(removed)).items() if value == EMPTY]
    if gone:
        raise StageFailed(
            f"{stage.name} has work to do ({asked.why}) and needs {some(gone)}, which jobs/retain.py removed; leave this night as it is, or "
            f"first ingest and build those days again",
            USAGE,
        )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


def some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def run_stage(run: Run, stage: Stage, progress: Progress) -> Record:
    """Do the stage's work, or skip it; either way the ledger says so, and the log."""
    run.spark.sparkContext.setJobDescription(f"{run.night.day} {stage.name}")
    with logs.naming(stage=stage.name):
        return _Running(run, stage, progress).run()


class _Running:
    def __init__(self, run: Run, stage: Stage, progress: Progress) -> None:
        self.of, self.stage, self.progress = run, stage, progress
        self.started, self.begun, self.mark = datetime.now(UTC), time.monotonic(), ""
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
        asked = asked_of(self.of, self.stage)
        self.mark = asked.mark
        if not asked.why:
            return None
        require_inputs(self.of, self.stage, asked)
        self.watch.working(asked.inputs)
        outcome = self.stage.work(self.of)
        return replace(outcome, counts={**outcome.counts, "bytes": self.watch.bytes_added()})

    def ended(self, status: str, message: str, outcome: Outcome | None = None, error: Exception | None = None) -> Record:
        outputs = self.of.contents.of(outcome.outputs) if outcome else {}
        seconds, counts = time.monotonic() - self.begun, outcome.counts if outcome else {}
        night = self.of.night
        entry = Record(
            night.day, self.of.run_id, self.stage.name, status, night.as_of, self.started, seconds, self.mark, outputs, counts, message
        )
        # The log first: where Spark is gone the ledger cannot be written.
        self.watch.ended(entry, error if error and code_of(error) == BUG else None)
        self.of.ledger.add(entry)
        self.of.records = [row for row in self.of.records if row["stage"] != self.stage.name] + [told(entry)]
        self.progress.line(self.stage.name, status, seconds, message)
        return entry
