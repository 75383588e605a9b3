"""Tables follow the configuration: what a new head, feature or source adds, and what one that left leaves behind.

Additive alone. A column that left the configuration stays, with its old values, marked as retired and null in new rows; one that comes back
is taken into use again. A column never changes its type: that needs another name, or another workdir.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from conf.schema import Conf
from etl.schemas import Table, all_tables
from etl.session import side_by_side
from etl.tables import RETIRED, TableError, difference, is_retired, table_path

CONSTRAINT = "delta.constraints."


@dataclass(frozen=True)
class Change:
    """One statement on one table, and in words what it does."""

    table: str
    told: str
    sql: str


def planned(spark: SparkSession, conf: Conf) -> list[Change]:
    """What must change so that the tables that exist follow the configuration; TableError where that can't be done by adding."""
    found = side_by_side(lambda table: list(_changes(spark, conf, table)), all_tables(conf).values(), threads=4)
    return [change for changes in found for change in changes]


def migrate(spark: SparkSession, conf: Conf) -> list[Change]:
    """Make the planned changes, in order, each noted in `<workdir>/migrations.jsonl`. Cut off, it is finished by running it again."""
    made = planned(spark, conf)
    for change in made:
        spark.sql(change.sql)
        note = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "table": change.table, "change": change.told}
        with (Path(conf.workdir) / "migrations.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(note) + "\n")
    return made


def _changes(spark: SparkSession, conf: Conf, table: Table) -> Iterator[Change]:
    path = table_path(conf.workdir, table.name)
    if not DeltaTable.isDeltaTable(spark, path):
        return
    found = spark.read.format("delta").load(path).schema
    missing, foreign = difference(found, table.schema)
    _require_additions(table, found, missing)
    named, known = f"ALTER TABLE delta.`{path}`", set(found.names)
    standing = _constraints(spark, path)
    for name in standing:
        if name not in dict(table.checks):  # it may speak of a column that is null from now on
            yield Change(table.name, f"drops check {name}", f"{named} DROP CONSTRAINT {name}")
    for field in missing:
        comment = _text(field.metadata["comment"])
        if field.name in known:
            yield Change(table.name, f"takes {field.name} into use again", f"{named} ALTER COLUMN `{field.name}` COMMENT {comment}")
        else:
            kind = field.dataType.simpleString()
            yield Change(table.name, f"adds {field.name} {kind}", f"{named} ADD COLUMNS (`{field.name}` {kind} COMMENT {comment})")
    for field in foreign:
        comment = _text(RETIRED + str(field.metadata.get("comment", "")))
        yield Change(table.name, f"retires {field.name}", f"{named} ALTER COLUMN `{field.name}` COMMENT {comment}")
    for name, check in table.checks:
        if name not in standing:
            yield Change(table.name, f"adds check {name}", f"{named} ADD CONSTRAINT {name} CHECK ({_from_now_on(spark, path, check)})")


def _require_additions(table: Table, found: StructType, missing: list[StructField]) -> None:
    have = {field.name: field for field in found}
    retyped = [
        f"{field.name} is {have[field.name].dataType.simpleString()}, wanted {field.dataType.simpleString()}"
        for field in missing
        if field.name in have and have[field.name].dataType != field.dataType
    ]
    required = [field.name for field in missing if not field.nullable and not is_retired(have.get(field.name, field))]
    if retyped or required:
        told = "; ".join([*retyped, *(f"{name} may not be null, and older rows have no value for it" for name in required)])
        raise TableError(
            f"table {table.name} can't be migrated: {told}. Give the column another name, or the configuration another workdir"
        )


def _constraints(spark: SparkSession, path: str) -> list[str]:
    properties = DeltaTable.forPath(spark, path).detail().select("properties").first()
    assert properties is not None
    return sorted(name.removeprefix(CONSTRAINT) for name in properties[0] if name.startswith(CONSTRAINT))


def _from_now_on(spark: SparkSession, path: str, check: str) -> str:
    """The check, but not of days that were written before the column was there."""
    newest = spark.read.format("delta").load(path).agg(F.max("day")).first()
    assert newest is not None
    return check if newest[0] is None else f"day <= DATE'{newest[0].isoformat()}' OR ({check})"


def _text(comment: str) -> str:
    return "'" + comment.replace("\\", "\\\\").replace("'", "\\'") + "'"
