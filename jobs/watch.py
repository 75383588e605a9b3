"""What is told of a stage while it runs, beside its record: lines of the run's log, bytes committed, lineage. None of it can fail a night."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from etl.commits import committed_since, newest_versions
from jobs.lineage import Lineage
from models import logs

if TYPE_CHECKING:
    from etl.runs import Record
    from jobs.common import Run


class Watch:
    """One stage of one run, from its start to its record."""

    def __init__(self, run: Run, stage: str, say: Callable[[str], None]) -> None:
        self.run, self.stage, self.say = run, stage, say
        self.before: dict[str, int] = {}
        self.lineage = Lineage(run.conf, run.run_id, run.night.day, stage)
        with self.harmless():
            self.before = newest_versions(run.conf.workdir)
            logs.tell("stage started")

    def working(self, inputs: Mapping[str, str], why: str) -> None:
        """It is not skipped, and why: its work begins, on `inputs`."""
        with self.harmless():
            logs.tell("stage works", message=why)
        with self.harmless():
            self.lineage.started(inputs, self.before)

    def bytes_added(self) -> int:
        """Of the files that were committed to the tables since the stage started; those of another night at the same time are among them."""
        added = 0
        with self.harmless():
            added = sum(of.bytes_added for of in committed_since(self.run.conf.workdir, self.before).values())
        return added

    def ended(self, record: Record, bug: BaseException | None = None) -> None:
        """`bug`: what ended it, where its traceback is wanted."""
        with self.harmless():
            level = logging.ERROR if record.status == "failed" else logging.INFO
            told = {"seconds": round(record.seconds, 3), "message": record.message, **figures(record.counts)}
            logs.tell(f"stage {record.status}", level, bug, **told)
        with self.harmless():
            self.lineage.ended(record.status, committed_since(self.run.conf.workdir, self.before), logs.without_secrets(record.message))

    @contextmanager
    def harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the night is worth more than what is told of it
            self.say(f"{self.stage}: something is not told in log or lineage ({type(error).__name__}: {error}); nothing else depends on it")


def figures(counts: Mapping[str, Any]) -> dict[str, int]:
    """Rows and bytes of a stage, by what it counted."""
    found = {name: int(counts[name]) for name in ("rows", "bytes") if name in counts and isinstance(counts[name], int)}
    if "account" in counts:
        found["rows"] = sum(int(row["rows_in"]) for row in counts["account"])
    return found
