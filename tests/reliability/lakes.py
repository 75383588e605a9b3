"""The tables of one simulated night as they stand before each of its stages, which trials of faults copy, and as it leaves them undisturbed.

Logs of conf/tiny.yaml; days 1 to 6 are built as a range, the night is that of day 7. What is made is kept for the next command, until code or
configuration change.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.runs import code_hash
from etl.schemas import PUBLICATIONS, Table
from etl.session import side_by_side
from etl.simulate import simulate
from etl.tables import content_hashes, create_tables, read
from jobs.common import DONE, Stage, day_option
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import Place, copied, day, place

NIGHT = day_option(day(7))
#: Stages before which a lake is kept.
KEPT = ("ingest", "train", "calibrate", "publish_model", "score")
CODE = ("conf", "etl", "jobs", "models", "validation")

Hashes = dict[str, dict[str, str]]
#: Text of a commit -> content hashes of its table as of it.
KNOWN: dict[str, dict[str, str]] = {}


@dataclass(frozen=True)
class Lakes:
    """`before`: stage -> the lake that a night starts from whose earlier stages are done. `after`: as the undisturbed night ends.

    `seconds`: stage -> how long the undisturbed night took from there on, in a warm driver.
    """

    before: dict[str, Place]
    after: Place
    seconds: dict[str, float]

    def states(self, spark: SparkSession) -> tuple[dict[str, Hashes], Hashes]:
        """The content hashes of all of them."""
        return {stage: hashes(spark, lake) for stage, lake in self.before.items()}, hashes(spark, self.after)


def hashes(spark: SparkSession, of: Place) -> Hashes:
    """Table -> day -> content hash; without the ledger, whose rows are events. Of `publications` by what was published too: a night publishes
    a model, and at its end scores.

    A version of a table is read once, wherever it was copied to: its newest commit, which has an id of its own, says which version it is.
    """

    versions = of.versions()

    def found(table: Table) -> dict[str, str]:
        log = of.workdir / "tables" / table.name / "_delta_log"
        commit = (log / f"{versions[table.name]:020}.json").read_text(encoding="utf-8")
        if commit not in KNOWN:
            KNOWN[commit] = _days(read(spark, of.workdir, table), table)
        return KNOWN[commit]

    tables = of.tables("runs")
    return {table.name: days for table, days in zip(tables, side_by_side(found, tables), strict=True)}


def _days(rows: DataFrame, table: Table) -> dict[str, str]:
    if table != PUBLICATIONS:
        return content_hashes(rows, table)
    parts = {what: content_hashes(rows.where(F.col("what") == what), table) for what in ("model", "scores", "rollback")}
    return {f"{day} {what}": value for what, days in parts.items() for day, value in days.items()}


def torn(now: Hashes, old: Hashes, new: Hashes) -> list[str]:
    """Days of tables that are neither as the night found them nor as it leaves them."""
    return [
        f"{table}/{day}"
        for table, days in now.items()
        for day in sorted(days.keys() | old[table].keys())
        if days.get(day) not in (old[table].get(day), new[table].get(day))
    ]


def lakes(spark: SparkSession, folder: Path) -> Lakes:
    """Made under `folder`, unless they stand there already."""
    told, mark = folder / "lakes.json", code_hash(*CODE)
    known = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if known.get("code") != mark:
        shutil.rmtree(folder, ignore_errors=True)
        seconds = _make(spark, folder)
        told.write_text(json.dumps({"code": mark, "seconds": seconds}), encoding="utf-8")
        known = {"seconds": seconds}
    return Lakes({stage: _lake(folder, stage) for stage in KEPT}, _lake(folder, "after"), known["seconds"])


def _lake(folder: Path, name: str) -> Place:
    return Place(folder / name / "conf.yaml")


def _make(spark: SparkSession, folder: Path) -> dict[str, float]:
    at = place(folder / "ingest", "tiny", landing=folder / "landing")
    simulate(spark, at.conf, lambda _: None)
    create_tables(spark, at.conf)
    _run(spark, at, ETL, first=1, last=6)
    seconds, spent = {KEPT[0]: 0.0}, 0.0
    names = [stage.name for stage in STAGES]
    for begun, until in zip(KEPT, (*KEPT[1:], "after"), strict=True):
        at = copied(at, folder / until)
        upto = STAGES[names.index(begun) : names.index(until) if until in names else len(names)]
        started = time.monotonic()
        _run(spark, at, upto, first=7, last=7)
        seconds[until] = spent = spent + time.monotonic() - started
    return {stage: spent - seconds[stage] for stage in KEPT}


def _run(spark: SparkSession, at: Place, stages: Sequence[Stage], first: int, last: int) -> None:
    assert run_night(spark, at.conf, day_option(day(first)), day_option(day(last)), stages) == DONE
