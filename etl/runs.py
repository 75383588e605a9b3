"""The run ledger: what each stage of each night read, made and counted, and why; and when a stage may be skipped.

A stage is skipped when its fingerprint (hashes of its inputs, of the configuration it reads, of the source it may import) is the one
recorded, and each of its outputs still has a hash that this or a later night recorded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl.contents import EMPTY
from etl.schemas import RUNS
from etl.tables import append, frame_of, read

#: Stages of jobs/retain.py: under the first the ledger knows what was removed.
RETAIN, VACUUM = "retain", "vacuum"
FORGET = "forget"  # jobs/forget.py
#: Rows of the ledger that are of no night's stage.
UPKEEP = (RETAIN, VACUUM, FORGET)


@dataclass(frozen=True)
class Record:
    """One stage of one run."""

    day: date
    run_id: str
    stage: str
    status: str
    as_of: datetime
    started_at: datetime
    seconds: float
    fingerprint: str
    outputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    why: str = ""
    depends: dict[str, Any] = field(default_factory=dict)  # of jobs/depends.py; not read back with the ledger, see `depended`


class Ledger:
    """The `runs` table, read once and kept up with this process's own records."""

    def __init__(self, spark: SparkSession, conf: Conf) -> None:
        self._spark, self._conf = spark, conf
        rows = read(spark, conf.workdir, RUNS).where("status = 'done'").drop("depends").collect()
        self.done = sorted((_from_row(row.asDict()) for row in rows), key=lambda record: record.started_at)

    def stages_of(self, run_id: str, day: date) -> list[Record]:
        """Each stage's newest record of one run of a night, whatever its status, in order."""
        of_run = (F.col("run_id") == F.lit(run_id)) & (F.col("day") == F.lit(day))
        rows = read(self._spark, self._conf.workdir, RUNS).where(of_run).drop("depends").collect()
        oldest_first = sorted((_from_row(row.asDict()) for row in rows), key=lambda record: record.started_at)
        return sorted({record.stage: record for record in oldest_first}.values(), key=lambda record: record.started_at)

    def add(self, record: Record) -> None:
        row = {
            **{
                name: getattr(record, name)
                for name in ("day", "run_id", "stage", "status", "as_of", "started_at", "seconds", "fingerprint", "message", "why")
            },
            "outputs": json.dumps(record.outputs, sort_keys=True),
            "counts": json.dumps(record.counts, sort_keys=True, default=str),
            "depends": json.dumps(record.depends, sort_keys=True, default=str),
        }
        append(frame_of(self._spark, [row], RUNS), self._conf.workdir, RUNS)
        if record.status == "done":
            self.done.append(record)

    def last(self, stage: str, day: date) -> Record | None:
        """The newest finished record of a stage of a night."""
        return next((record for record in reversed(self.done) if record.stage == stage and record.day == day), None)

    def depended(self, record: Record) -> dict[str, Any]:
        """What a finished stage was made from; empty where the ledger does not say, as of nights of before it kept that."""
        one = (F.col("run_id") == record.run_id) & (F.col("stage") == record.stage) & (F.col("started_at") == record.started_at)
        rows = read(self._spark, self._conf.workdir, RUNS).where(one & (F.col("day") == record.day)).select("depends").collect()
        return json.loads(rows[0].depends or "{}") if rows else {}

    def recorded_hashes(self, output: str, since: date) -> set[str]:
        """Hashes that the nights of `since` and later recorded for an output."""
        return {record.outputs[output] for record in self.done if record.day >= since and output in record.outputs}

    def first_day_of_later_nights(self, stage: str, table: str, day: date) -> date | None:
        """The earliest day of `table` that a later night built: this night must leave it as it is."""
        days = [
            date.fromisoformat(name.split("/")[1])
            for record in self.done
            if record.stage == stage and record.day > day
            for name in record.outputs
            if name.startswith(f"{table}/")
        ]
        return min(days, default=None)

    def may_skip(self, stage: str, day: date, fingerprint: str, current: dict[str, str]) -> bool:
        last = self.last(stage, day)
        if last is None or last.fingerprint != fingerprint:
            return False
        return not self.changed_outputs(last, current)

    def changed_outputs(self, last: Record, current: dict[str, str]) -> list[str]:
        """Outputs of a finished stage whose current hash neither its night nor a later one recorded."""
        return [name for name in last.outputs if current.get(name, EMPTY) not in self.recorded_hashes(name, last.day)]

    def removed(self, day: date) -> dict[str, str]:
        """What jobs/retain.py removed of what the night of `day`, or one before it, may have read: name -> the hash that it had."""
        gone: dict[str, str] = {}
        for record in self.done:
            if record.stage == RETAIN and record.day >= day:
                gone |= record.counts["removed"]
        return gone


def fingerprint(*parts: Any) -> str:
    """Short hash of anything JSON can hold, keys in order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code_hash(*packages: str) -> str:
    """Hash of the source files of our packages, which have no folders of code: a change of code makes what it made again."""
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        for path in sorted(Path(spec.origin).parent.glob("*")):
            if path.suffix in (".py", ".html", ".md"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _from_row(row: dict[str, Any]) -> Record:
    for name in ("as_of", "started_at"):
        row[name] = row[name].astimezone(UTC)
    read_back = {name: json.loads(row[name] or "{}") for name in ("outputs", "counts")}
    return Record(**{**row, **read_back, "why": row["why"] or ""})
