"""Landing files -> impressions, engagements, users, ads, inventory and quarantine. A stage of jobs/nightly.py; alone: --only ingest."""

from __future__ import annotations

from datetime import date
from typing import Any

from pyspark.sql import functions as F

from conf.schema import Conf, Kind, Source
from etl import schemas
from etl.landing import LandedFile, files_by_day, fingerprint, first_complete_day
from etl.schemas import QUARANTINE, Table
from etl.sources import Block, account, classified
from etl.splits import ONE_DAY, days_between
from etl.tables import overwrite_days
from jobs.common import Outcome, Run, Stage
from validation.rules import row_rules

KINDS: tuple[Kind, ...] = ("impressions", "engagements", "users", "ads", "inventory")


def blocks_of(conf: Conf, kind: Kind) -> dict[str, Source]:
    return {name: source for name, source in conf.sources.items() if source.kind == kind}


def table_of(conf: Conf, kind: Kind) -> Table:
    return schemas.all_tables(conf)[kind]


def landed(run: Run, kind: Kind) -> tuple[date, date, dict[str, tuple[LandedFile, ...]]]:
    """First and last day of the table that this run writes, and the files to read for them."""
    blocks = blocks_of(run.conf, kind)
    if kind == "inventory":
        day = run.night.scored
        return day, day, {name: tuple(files_by_day(run.spark, run.conf, source, day, day)[day]) for name, source in blocks.items()}
    # The state of users and ads that the first day's scorer had was received the day before.
    asked = run.asked - ONE_DAY if kind in ("users", "ads") else run.asked
    earliest = asked if kind in ("users", "ads") else run.first
    first, files = first_complete_day(run.spark, run.conf, blocks, earliest, asked, run.night.day)
    return first, run.last_writable("ingest", kind), files


def inputs(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in KINDS:
        if blocks_of(run.conf, kind):
            first, last, files = landed(run, kind)
            found |= {f"{name} {first} {last}": fingerprint(paths) for name, paths in files.items()}
    return found


def work(run: Run) -> Outcome:
    accounts: list[dict[str, Any]] = []
    outputs: list[str] = []
    for kind in KINDS:
        if blocks_of(run.conf, kind):
            accounts += ingest_kind(run, kind, outputs)
    kept, broken = sum(row["kept"] for row in accounts), sum(row["quarantined"] for row in accounts)
    doubles = sum(row["duplicates"] for row in accounts)
    return Outcome(tuple(outputs), {"account": accounts}, f"{kept:,} rows kept, {doubles:,} duplicates, {broken:,} quarantined")


def ingest_kind(run: Run, kind: Kind, outputs: list[str]) -> list[dict[str, Any]]:
    """Write one table's days: its broken rows first, then the good ones, so that a crash between loses none."""
    conf, table = run.conf, table_of(run.conf, kind)
    first, last, files = landed(run, kind)
    blocks = [Block(name, conf.sources[name], tuple(file.path for file in paths)) for name, paths in files.items() if paths]
    if first > last or not blocks:
        return []
    rows = classified(run.spark, conf, blocks, table, row_rules(kind), first, last, run.night.day).persist()
    try:
        counted = [row for row in account(rows) if first.isoformat() <= row["day"] <= last.isoformat()]
        broken = rows.where("verdict = 'quarantined'").select(
            F.lit(kind).alias("table_name"), "block", "source", "file", "reasons", "raw", F.lit(run.run_id).alias("run_id"), "day"
        )
        overwrite_days(broken, conf.workdir, QUARANTINE, first, last, also={"table_name": kind})
        overwrite_days(rows.where("verdict = 'kept'"), conf.workdir, table, first, last)
    finally:
        rows.unpersist()
    outputs += [f"{name}/{day}" for day in days_between(first, last) for name in (kind, "quarantine")]
    require_balance(run, kind, first, last, counted)
    return counted


def require_balance(run: Run, kind: Kind, first: date, last: date, counted: list[dict[str, Any]]) -> None:
    """The table must hold exactly the rows that the account calls kept."""
    written = run.contents.of_days(kind, first, last)
    in_table = sum(int(value.split(":")[0]) for value in written.values())
    kept = sum(int(row["kept"]) for row in counted)
    if in_table != kept:
        raise RuntimeError(f"{kind} {first} to {last}: the account says {kept} rows kept, the table holds {in_table}")


STAGE = Stage(
    name="ingest",
    packages=("etl", "validation"),
    reads=lambda conf: [conf.model_dump(mode="json", include={"sources", "landing", "tower", "heads", "clock", "template"})],
    inputs=inputs,
    work=work,
)

