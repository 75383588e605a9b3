"""A source's landing files -> canonical rows, duplicates and broken rows told apart, every row accounted for.

Grain of `classified`: one row a line or record of the files. `verdict` is one of
  kept         the row goes to its table
  duplicate    a row with its key is kept already (the first received one; ties by content)
  quarantined  breaks a row rule, or could not be parsed (`unreadable`)
  late         received after the last night that rebuilds its day had closed
  not_due      received after as_of: a later night's row
  other_day    belongs to a day outside the range
rows in = kept + duplicate + quarantined, for each block and day; the other three are counted beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from difflib import get_close_matches
from functools import reduce
from typing import Any, cast

from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType, TimestampType
from pyspark.sql.window import Window

from conf.load import ConfError
from conf.schema import Conf, Source
from etl.schemas import Table
from etl.splits import end_of
from validation.rules import Rule

DAY_CLOCK = {"impressions": "shown_at", "engagements": "received_at", "users": "received_at", "ads": "received_at"}
CORRUPT = "_corrupt"


@dataclass(frozen=True)
class Block:
    """A source block with its name and the files found for it."""

    name: str
    source: Source
    files: tuple[str, ...]


def classified(
    spark: SparkSession, conf: Conf, blocks: Sequence[Block], table: Table, rules: Sequence[Rule], first: date, last: date, night: date
) -> DataFrame:
    """Every row of the blocks' files: canonical columns of `table`, and block, source, file, reasons,
    raw (of a broken row, null else), verdict.

    `first` and `last` bound the table's days; `night` is the night whose close is as_of. All blocks are of one kind.
    """
    frames = [_canonical(spark, conf, block, table).transform(_with_reasons, rules).transform(_with_day, first, last) for block in blocks]
    union = reduce(DataFrame.unionByName, frames)
    kind, as_of = blocks[0].source.kind, F.lit(end_of(night))
    # What is received at midnight belongs to the day that begins; only the inventory of that day may be received with its first moment.
    not_due = F.col("received_at") > as_of if kind == "inventory" else F.col("received_at") >= as_of
    inside = F.col("day").between(F.lit(first), F.lit(last))
    standing = (
        # A broken row of a file whose day a later night has built is that night's to quarantine.
        F.when(F.size("reasons") > 0, F.when(inside, "quarantined").otherwise("other_day"))
        .when(not_due, "not_due")
        .when(~inside, "other_day")
        .when(F.col("received_at") >= _close(conf, kind), "late")
        .otherwise("kept")
    )
    # Duplicates are looked for among the rows that would be kept; which one stays does not depend on the order of arrival.
    values = [field.name for field in table.columns if field.name not in ("day", "received_at")]
    same_key = Window.partitionBy("standing", "day", *table.key).orderBy("received_at", F.xxhash64(*values), "block", "file")
    place = F.when(F.col("standing") == "kept", F.row_number().over(same_key)).otherwise(1)
    return (
        union.withColumn("standing", standing)
        .withColumn("verdict", F.when(place > 1, "duplicate").otherwise(F.col("standing")))
        .drop("standing")
    )


def account(rows: DataFrame) -> list[dict[str, Any]]:
    """Counts by block and day: rows_in = kept + duplicates + quarantined, and late, not_due, other_day beside them."""

    def count(verdict: str) -> Column:
        return F.sum(F.when(F.col("verdict") == verdict, 1).otherwise(0))

    inside = F.col("verdict").isin("kept", "duplicate", "quarantined")
    counted = rows.groupBy("block", "source", "day").agg(
        F.sum(inside.cast("int")).alias("rows_in"),
        count("kept").alias("kept"),
        count("duplicate").alias("duplicates"),
        count("quarantined").alias("quarantined"),
        count("late").alias("late"),
        count("not_due").alias("not_due"),
        count("other_day").alias("other_day"),
    )
    found = [row.asDict() for row in counted.collect()]
    return sorted(({**row, "day": row["day"].isoformat()} for row in found), key=lambda row: (row["block"], row["day"]))


def _close(conf: Conf, kind: str) -> Column:
    """An impression may be received until the last night that rebuilds its day; other kinds have their receipt as their day."""
    if kind != "impressions":
        return F.lit("9999-12-31").cast("timestamp")
    return F.col("day").cast("timestamp") + F.lit(timedelta(days=conf.label_days))


def _canonical(spark: SparkSession, conf: Conf, block: Block, table: Table) -> DataFrame:
    """Canonical columns, and beside them block, source, file, stated_day, file_day, raw_columns, unreadable (the line)."""
    source = block.source
    _refuse_unknown_columns(block, table)
    raw = _read(spark, source, block.files)
    if source.where:
        raw = raw.where(F.expr(source.where) | F.col(CORRUPT).isNotNull())
    own = [_column(source, field) for field in table.columns if field.name not in ("day", "source")]
    rows = raw.select(
        *own,
        F.lit(source.source).alias("source"),
        F.lit(block.name).alias("block"),
        F.col("_file").alias("file"),
        _file_day(source).alias("file_day"),
        F.expr(_day_expression(source)).cast("date").alias("stated_day"),
        F.struct(*_raw_names(raw)).alias("raw_columns"),
        F.col(CORRUPT).alias("unreadable"),
    )
    if "tower" in table.schema.names:
        rows = rows.withColumn("tower", F.coalesce(F.expr(conf.tower), F.lit("unknown")))
    return rows if source.kind == "inventory" else rows.withColumn("stated_day", F.to_date(DAY_CLOCK[source.kind]))


def _day_expression(source: Source) -> str:
    """Inventory may state the day it is for; the day of every other kind follows its clock."""
    return source.columns.get("day", "null") if source.kind == "inventory" else "null"


def _raw_names(raw: DataFrame) -> list[str]:
    return [name for name in raw.columns if name not in (CORRUPT, "_file", "_path")]


def _refuse_unknown_columns(block: Block, table: Table) -> None:
    for given in block.source.columns:
        if given not in table.schema.names:
            near = get_close_matches(given, table.schema.names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(table.schema.names)}"
            raise ConfError(f"sources.{block.name}.columns: {table.name} has no column {given}; {hint}")


def _column(source: Source, field: StructField) -> Column:
    if field.name not in source.columns:
        return F.lit(None).cast(field.dataType).alias(field.name)
    value = F.expr(source.columns[field.name])
    if isinstance(field.dataType, TimestampType) and source.time_zone != "UTC":
        value = F.to_utc_timestamp(value, source.time_zone)
    return value.cast(field.dataType).alias(field.name)


def _read(spark: SparkSession, source: Source, files: Sequence[str]) -> DataFrame:
    """Raw columns, `_corrupt` (the unreadable line, or null), `_file` and `_path`."""
    reader = spark.read.options(**source.options).format(source.format)
    if source.format == "parquet":
        frame = (
            (reader.schema(source.raw_schema) if source.raw_schema else reader)
            .load(list(files))
            .withColumn(CORRUPT, F.lit(None).cast("string"))
        )
    else:
        schema = _raw_schema(reader, source, files)
        # Without pruning a line is parsed whole, so that a fault in a column nobody asked for is seen all the same.
        reader = reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT).option("columnPruning", "false")
        frame = reader.schema(schema.add(CORRUPT, "string")).load(list(files))
    return frame.select("*", F.col("_metadata.file_name").alias("_file"), F.col("_metadata.file_path").alias("_path"))


def _raw_schema(reader: DataFrameReader, source: Source, files: Sequence[str]) -> StructType:
    """As configured; else a CSV file's own header names its columns, all strings."""
    return cast(StructType, StructType.fromDDL(source.raw_schema)) if source.raw_schema else reader.load(files[0]).schema


def _file_day(source: Source) -> Column:
    """The {day} of the file's path; null where one file holds all days."""
    if not source.daily:
        return F.lit(None).cast("date")
    before = re.split(r"[*?\[\]{}/]", source.files.split("{day}")[0])[-1]
    return F.regexp_extract("_path", f".*[/]{re.escape(before)}(\\d{{4}}-\\d{{2}}-\\d{{2}})", 1).try_cast("date")


def _with_reasons(rows: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Add `reasons`, the names of the broken rules (an unreadable line has that one reason), and `raw` for the rows that have any."""
    broken = F.array_compact(F.array(*(F.when(~F.coalesce(F.expr(rule.holds), F.lit(False)), F.lit(rule.name)) for rule in rules)))
    reasons = F.when(F.col("unreadable").isNotNull(), F.array(F.lit("unreadable"))).otherwise(broken)
    raw = F.when(F.size("reasons") > 0, F.coalesce(F.col("unreadable"), F.to_json("raw_columns")))
    return rows.withColumn("reasons", reasons).withColumn("raw", raw).drop("raw_columns")


def _with_day(rows: DataFrame, first: date, last: date) -> DataFrame:
    """Add `day`. A broken row whose own day is unreadable or outside the range is accounted on its file's day, else on the last one."""
    inside = F.coalesce(F.col("stated_day").between(F.lit(first), F.lit(last)), F.lit(False))
    broken = F.size("reasons") > 0
    file_day = F.coalesce(F.col("file_day"), F.lit(last))
    day = F.when(broken & ~inside, file_day).otherwise(F.coalesce(F.col("stated_day"), file_day))
    return rows.withColumn("day", day).drop("stated_day", "file_day", "unreadable")
