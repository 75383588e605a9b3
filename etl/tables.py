"""The only reads and writes of Delta: by day and by version.

Every table lies at `<workdir>/tables/<name>`, partitioned by `day` and, some, by one column more. A write replaces whole days in one
commit (`replaceWhere`), so a rerun leaves one copy and a day without rows ends empty.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructField, StructType

from conf.schema import Conf
from etl.schemas import Table, all_tables
from etl.session import side_by_side

#: Tables whose versions are named by what was made of them: by models, and by scores.
PINNED = ("examples", "inventory")
#: A version is found by the log alone, of which Delta would keep a month.
KEEP_LOG = ("delta.logRetentionDuration", "interval 3650 days")
RETIRED = "retired: "  # how the comment of a retired column begins


class TableError(RuntimeError):
    """A table is not what the configuration says it is."""


class ConflictError(RuntimeError):
    """Another run wrote the same days; run this one again."""


@dataclass(frozen=True)
class Pin:
    """One version of one table: what a run records of each input."""

    path: str
    table_id: str
    version: int


def table_path(workdir: str | Path, name: str) -> str:
    return str(Path(workdir).resolve() / "tables" / name)


def create_tables(spark: SparkSession, conf: Conf) -> None:
    """Create what is missing; refuse a table whose columns lag behind the configuration."""
    side_by_side(lambda table: create_table(spark, conf.workdir, table), all_tables(conf).values(), threads=4)


def table_stands(spark: SparkSession, workdir: str | Path, table: Table) -> bool:
    """Whether the table is there; TableError where its columns lag behind the configuration."""
    path = table_path(workdir, table.name)
    if not DeltaTable.isDeltaTable(spark, path):
        return False
    missing, foreign = difference(spark.read.format("delta").load(path).schema, table.schema)
    if missing or foreign:
        raise _lags(f"table {table.name} at {path}", missing, foreign)
    return True


def _lags(what: str, missing: Sequence[StructField], foreign: Sequence[StructField]) -> TableError:
    return TableError(
        f"{what}: missing {[f'{field.name} {field.dataType.simpleString()}' for field in missing] or 'nothing'}, "
        f"not in the configuration {[field.name for field in foreign] or 'nothing'}. "
        f"Run `python jobs/migrate.py --conf-file ...` (--dry-run shows what it would change), or give the configuration a new workdir"
    )


def create_table(spark: SparkSession, workdir: str | Path, table: Table) -> None:
    """Create the table if it is not there; refuse one with other columns, those apart that a migration has retired."""
    if not table_stands(spark, workdir, table):
        _create(spark, table_path(workdir, table.name), table)


def _create(spark: SparkSession, path: str, table: Table) -> None:
    builder = DeltaTable.createIfNotExists(spark).location(path).addColumns(table.schema).partitionedBy(*table.partitions)
    builder = builder.property("delta.enableDeletionVectors", "false").property("delta.columnMapping.mode", "none")
    # Tables are read by day, their partition: least and greatest values a file would be worked out for nobody.
    builder = builder.property("delta.dataSkippingNumIndexedCols", "0")
    if table.name in PINNED:
        builder = builder.property(*KEEP_LOG)
    for name, expression in table.checks:
        builder = builder.property(f"delta.constraints.{name}", expression)
    builder.execute()


def difference(found: StructType, wanted: StructType) -> tuple[list[StructField], list[StructField]]:
    """Columns that the table lacks (or has in another type, or retired), and those it has beyond what is wanted, not yet retired."""
    have = {field.name: field.dataType for field in found if not is_retired(field)}
    names = {field.name for field in wanted}
    missing = [field for field in wanted if have.get(field.name) != field.dataType]
    return missing, [field for field in found if field.name not in names and not is_retired(field)]


def is_retired(field: StructField) -> bool:
    """A column that left the configuration: it stays in its table, null in new rows, and nobody reads it."""
    return str(field.metadata.get("comment", "")).startswith(RETIRED)


def read(spark: SparkSession, workdir: str | Path, table: Table, version: int | None = None) -> DataFrame:
    """Rows of the table: the columns of the configuration, in its order; retired ones are left out. TableError where it lacks one."""
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    path = table_path(workdir, table.name)
    frame = reader.load(path)
    try:
        return frame.select(*(field.name for field in table.columns))
    except AnalysisException as error:
        missing, foreign = difference(frame.schema, table.schema)
        if not missing:
            raise
        at = f"version {version} of table {table.name} at {path}" if version is not None else f"table {table.name} at {path}"
        raise _lags(at, missing, foreign) from error


def read_days(spark: SparkSession, workdir: str | Path, table: Table, first: date, last: date, version: int | None = None) -> DataFrame:
    """Rows of days `first` to `last`, both included."""
    return read(spark, workdir, table, version).where(F.col("day").between(F.lit(first), F.lit(last)))


def pin(spark: SparkSession, workdir: str | Path, table: Table) -> Pin:
    """The table's newest version, resolved once.

    Read from Delta's log itself: the public history and detail are Spark jobs of half a second each, and a night asks dozens of times.
    """
    path = table_path(workdir, table.name)
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    snapshot = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path).update(
        False, jvm.scala.Option.empty(), jvm.scala.Option.empty()
    )
    return Pin(path, snapshot.metadata().id(), int(snapshot.version()))


def frame_of(spark: SparkSession, rows: Sequence[Mapping[str, Any]], table: Table) -> DataFrame:
    """A few rows that the driver holds, as a frame of `table`; a column that a row does not name is null.

    By Arrow, so that no Python worker is started for them.
    """
    schema = table.schema
    given = [{field.name: row.get(field.name) for field in schema} for row in rows]
    return spark.createDataFrame(pa.Table.from_pylist(given, schema=to_arrow_schema(schema)), schema)


def conform_to(frame: DataFrame, table: Table) -> DataFrame:
    """The table's columns, in its order and types; a missing one is an error here, since Delta would write nulls."""
    missing = [field.name for field in table.columns if field.name not in frame.columns]
    if missing:
        raise TableError(f"rows for {table.name} lack {missing}; present: {sorted(frame.columns)}")
    return frame.select(*(F.col(field.name).cast(field.dataType).alias(field.name) for field in table.columns))


def overwrite_days(
    frame: DataFrame, workdir: str | Path, table: Table, first: date, last: date, also: Mapping[str, str] | None = None
) -> None:
    """Replace days `first` to `last` (of the rows where each column of `also` has its value) in one commit."""
    replace_where(frame, workdir, table, days_where(first, last, also))


def days_where(first: date, last: date, also: Mapping[str, str] | None = None) -> str:
    """Predicate for days `first` to `last` of the rows where each column of `also` has its value."""
    where = f"day >= DATE'{first.isoformat()}' AND day <= DATE'{last.isoformat()}'"
    for name, value in (also or {}).items():
        if not re.fullmatch(r"[\w-]+", value):
            raise TableError(f"{name} {value!r} cannot name rows to replace; letters, digits, _ and - can")
        where += f" AND {name} = '{value}'"
    return where


def replace_where(frame: DataFrame, workdir: str | Path, table: Table, where: str) -> None:
    """Replace the rows that `where` holds for by those of `frame`, for which it must hold too, in one commit."""
    writer = conform_to(frame, table).write.format("delta").mode("overwrite").option("replaceWhere", where)
    _commit(lambda: writer.save(table_path(workdir, table.name)), table.name)


def append(frame: DataFrame, workdir: str | Path, table: Table) -> None:
    """Add rows; only for the run ledger and publications, whose rows are events."""
    writer = conform_to(frame, table).coalesce(1).write.format("delta").mode("append")
    _commit(lambda: writer.save(table_path(workdir, table.name)), table.name)


def delete_days(spark: SparkSession, workdir: str | Path, table: Table, last: date) -> None:
    """Remove all days up to `last` in one commit; only for jobs/retain.py. Their files stay for versions before it, until a VACUUM."""
    delta = DeltaTable.forPath(spark, table_path(workdir, table.name))
    _commit(lambda: delta.delete(F.col("day") <= F.lit(last)), table.name)


def _commit(write: Callable[[], None], name: str) -> None:
    try:
        write()
    except Exception as error:
        text = str(error.java_exception) if isinstance(error, Py4JJavaError) else str(error)
        if "Concurrent" in text or "DELTA_CONCURRENT" in text:
            raise ConflictError(f"another run wrote {name} at the same time: {text.splitlines()[0]}") from error
        if "DELTA_VIOLATE_CONSTRAINT" in text or "CHECK constraint" in text:
            # Delta tells a broken CHECK beneath replaceWhere's own: the check that has a name is the one to show.
            lines = text.splitlines()
            named = (line for line in lines if "CHECK constraint" in line and "constraint EXPRESSION" not in line)
            raise TableError(f"{name}: {next(named, lines[0]).strip()}") from error
        raise


def content_hashes(frame: DataFrame, table: Table) -> dict[str, str]:
    """Day -> `rows:hash`, independent of row order and files, without lineage columns.

    A 64-bit hash a row and a second one of that are added up as decimals: a sum notices a row that is there twice, where an exclusive or
    would not, and changes that cancel in one sum do not in the other.
    """
    names = sorted(field.name for field in table.columns if field.name not in table.lineage)
    # xxhash64 skips nulls, so a null and its neighbour's value could trade places unnoticed: the names of the null columns go in too.
    nulls = F.concat_ws(",", *(F.when(F.col(name).isNull(), F.lit(name)) for name in names))
    hashed = frame.select("day", F.xxhash64(nulls, *names).alias("hash"))
    sums = [F.sum(value.cast("decimal(20,0)")).cast("string") for value in (F.col("hash"), F.xxhash64("hash"))]
    grouped = hashed.groupBy("day").agg(F.count(F.lit(1)).alias("rows"), F.concat_ws("/", *sums).alias("sums")).collect()
    return {row["day"].isoformat(): f"{row['rows']}:{_short(row['sums'])}" for row in grouped}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
