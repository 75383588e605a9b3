"""Landing files -> impressions, engagements, users, ads, inventory and quarantine. A stage of jobs/nightly.py; alone: --only ingest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial, reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from conf.source import Kind, Source
from etl import schemas
from etl.faults import without_task_traces
from etl.landing import LandedFile, files_by_day, fingerprint, first_complete_day
from etl.privacy import KEY_VARIABLE, forgotten_ids, forgotten_mark, key_name
from etl.raw import Block
from etl.schemas import QUARANTINE, Table
from etl.session import side_by_side
from etl.sources import settled
from etl.splits import ONE_DAY, days_between
from etl.tables import days_where, overwrite_days, replace_where
from jobs.common import Outcome, Run, Stage
from validation.rules import row_rules

KINDS: tuple[Kind, ...] = ("impressions", "engagements", "users", "ads", "inventory")


def blocks_of(conf: Conf, kind: Kind) -> dict[str, Source]:
    return {name: source for name, source in conf.sources.items() if source.kind == kind}


def table_of(conf: Conf, kind: Kind) -> Table:
    return schemas.all_tables(conf)[kind]


@dataclass(frozen=True)
class Landed:
    """First and last day of the table that a run writes, and the files to read for them, by block."""

    first: date
    last: date
    files: dict[str, tuple[LandedFile, ...]]


def look(run: Run, kind: Kind) -> Landed:
    blocks = blocks_of(run.conf, kind)
    if kind == "inventory":
        day = run.night.scored
        return Landed(day, day, {name: tuple(files_by_day(run.spark, run.conf, source, day, day)[day]) for name, source in blocks.items()})
    # The state of users and ads that the first day's scorer had was received the day before.
    asked = run.asked - ONE_DAY if kind in ("users", "ads") else run.asked
    earliest = asked if kind in ("users", "ads") else run.first
    first, files = first_complete_day(run.spark, run.conf, blocks, earliest, asked, run.night.day)
    return Landed(first, run.last_writable("ingest", kind), files)


def inputs(run: Run) -> dict[str, str]:
    # Files and tables that change while the run works are the next run's.
    run.landed = {kind: look(run, kind) for kind in KINDS if blocks_of(run.conf, kind)}
    require_same_key(run)
    found = {
        f"{name} {found.first} {found.last}": fingerprint(paths) for found in run.landed.values() for name, paths in found.files.items()
    }
    forgotten = forgotten_mark(run.spark, run.conf)
    return found | ({"forgotten": forgotten} if forgotten else {})


def require_same_key(run: Run) -> None:
    """ConfError where the tables' user ids were hashed with another key, or not at all: one person would be two."""
    known = next((record.counts.get("user_key", "") for record in reversed(run.ledger.done) if record.stage == "ingest"), None)
    if known not in (None, key_name(run.conf)):
        how = {True: "hashed with another key", False: "as they came"}[bool(known)]
        raise ConfError(
            f"the user ids of the tables in {run.conf.workdir} are {how}: give {KEY_VARIABLE} the value that it had, set privacy.hash_user_ids as it "
            "was, or build the days anew in an empty workdir"
        )


@dataclass(frozen=True)
class Batch:
    """One kind's rows of this run, each with its verdict, and their account."""

    kind: Kind
    first: date
    last: date
    rows: DataFrame
    account: list[dict[str, Any]]


def work(run: Run) -> Outcome:
    forgotten = forgotten_ids(run.spark, run.conf)
    with without_task_traces(run.spark):
        batches = [batch for batch in side_by_side(lambda kind: settled_batch(run, kind, forgotten), KINDS) if batch]
    try:
        side_by_side(lambda write: write(), [partial(quarantine, run, batches), *(partial(keep, run, batch) for batch in batches)])
    finally:
        for batch in batches:
            batch.rows.unpersist()
    side_by_side(lambda batch: run.contents.of_days(batch.kind, batch.first, batch.last), batches)
    rows = []
    for batch in batches:
        inside = [row for row in batch.account if str(batch.first) <= row["day"] <= str(batch.last)]
        require_balance(run, batch, inside)
        rows += inside
    sums = {name: sum(int(row[name]) for row in rows) for name in ("rows_in", "kept", "duplicates", "quarantined")}
    outputs = [f"{name}/{day}" for batch in batches for day in days_between(batch.first, batch.last) for name in (batch.kind, "quarantine")]
    told = f"{sums['rows_in']:,} rows in: {sums['kept']:,} kept, {sums['duplicates']:,} duplicates, {sums['quarantined']:,} quarantined"
    counts = {"account": rows} | ({"user_key": key_name(run.conf)} if run.conf.privacy.hash_user_ids else {})
    return Outcome(tuple(dict.fromkeys(outputs)), counts, told)


def settled_batch(run: Run, kind: Kind, forgotten: DataFrame | None) -> Batch | None:
    """The rows of one kind, cached; None where there is nothing to read or to write."""
    conf = run.conf
    if kind not in run.landed:
        return None
    found: Landed = run.landed[kind]
    blocks = [Block(name, conf.sources[name], tuple(file.path for file in files)) for name, files in found.files.items() if files]
    if found.first > found.last or not blocks:
        return None
    rules = row_rules(kind)
    rows, account = settled(run.spark, conf, blocks, table_of(conf, kind), rules, found.first, found.last, run.night.day, forgotten)
    return Batch(kind, found.first, found.last, rows, account)


def quarantine(run: Run, batches: Sequence[Batch]) -> None:
    """The broken rows of all kinds, in one commit."""
    if not batches:
        return
    broken = [
        batch.rows.where("verdict = 'quarantined'").select(
            F.lit(batch.kind).alias("table_name"), "block", "source", "file", "reasons", "raw", F.lit(run.run_id).alias("run_id"), "day"
        )
        for batch in batches
    ]
    where = " OR ".join(f"({days_where(batch.first, batch.last, {'table_name': batch.kind})})" for batch in batches)
    replace_where(reduce(DataFrame.unionByName, broken), run.conf.workdir, QUARANTINE, where)


def keep(run: Run, batch: Batch) -> None:
    table = table_of(run.conf, batch.kind)
    overwrite_days(batch.rows.where("verdict = 'kept'"), run.conf.workdir, table, batch.first, batch.last)


def require_balance(run: Run, batch: Batch, counted: Sequence[dict[str, Any]]) -> None:
    """The table must hold exactly the rows that the account calls kept."""
    written = run.contents.of_days(batch.kind, batch.first, batch.last)
    in_table = sum(int(value.split(":")[0]) for value in written.values())
    kept = sum(int(row["kept"]) for row in counted)
    if in_table != kept:
        raise RuntimeError(f"{batch.kind} {batch.first} to {batch.last}: the account says {kept} rows kept, the table holds {in_table}")


STAGE = Stage(
    name="ingest",
    packages=("etl", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"sources", "landing", "tower", "heads", "clock", "template", "privacy"}),
    inputs=inputs,
    work=work,
)
