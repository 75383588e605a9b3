"""Raw rows of one block -> the canonical columns of its table, by the block's expressions.

Grain: one row a line or record, as read; plus one a file that was set aside. Lines that could not be parsed have null columns, pass `where`,
and are in no window. Expressions are checked (etl/expressions.py) before a row is read. A value that does not convert to its column's type
is null, and a fault of its row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import PurePosixPath

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, NullType, StringType, StructField, StructType, TimestampType, VariantType

from conf.load import ConfError
from conf.schema import Conf
from conf.source import Source
from etl.expressions import Expression, check
from etl.privacy import WITHHELD, columns_that_name_users, user_key, with_hashed
from etl.raw import CORRUPT, Block, Raw, look_at, read
from etl.schemas import Table

DAY_CLOCK = {"impressions": "shown_at", "engagements": "received_at", "users": "received_at", "ads": "received_at"}
#: Longest text of one canonical column, bytes; more is a broken line that happens to parse.
LONGEST_TEXT = 65_536
REPLACEMENT = "\ufffd"
UNREADABLE = "unreadable"  # the reason of a line that cannot be parsed


@dataclass(frozen=True)
class Checked:
    """A block whose expressions are allowed, with the types they have. `windowed`: some of them look at other rows.

    `key`: of user ids, None where they are kept as they come; `withheld`: raw columns that then are not kept of a broken row.
    """

    raw: Raw
    table: Table
    types: StructType
    windowed: bool
    key: bytes | None = None
    withheld: frozenset[str] = frozenset()

    @property
    def source(self) -> Source:
        return self.raw.block.source


def canonical(spark: SparkSession, conf: Conf, block: Block, table: Table) -> DataFrame:
    """Canonical columns, and beside them block, source, file, path, stated_day, raw_columns, faults (reasons that are no row rule,
    by commas), unreadable (the line, or the file set aside) and unreadable_as (the reason for it)."""
    checked = _checked(spark, conf, block, table)
    lines = read(spark, checked.raw)
    broken = F.col(CORRUPT).isNotNull()
    # A line that could not be parsed would stand in a window as a row of nulls.
    parts = [_rows(checked, lines.where(~broken)), _blank(checked, lines.where(broken))] if checked.windowed else [_rows(checked, lines)]
    if checked.raw.block.unreadable:
        parts.append(_blank(checked, _set_aside(spark, checked.raw), "unreadable_file"))
    rows = reduce(DataFrame.unionByName, parts)
    if checked.key:
        rows = with_hashed(rows, checked.key, "user_id")
    if "tower" in table.schema.names:
        rows = rows.withColumn("tower", F.coalesce(F.expr(conf.tower), F.lit("unknown")))
    kind = block.source.kind
    return rows if kind == "inventory" else rows.withColumn("stated_day", F.to_date(DAY_CLOCK[kind]))


def _checked(spark: SparkSession, conf: Conf, block: Block, table: Table) -> Checked:
    _refuse_unknown_columns(block, table)
    raw, source = look_at(spark, block), block.source
    types, windowed = expression_types(spark, raw)
    _refuse_lists_for_values(block, table, types)
    own = StructType([field for field in table.columns if field.name not in ("day", "tower")])
    if "tower" in table.schema.names:
        check(spark, [Expression("tower", conf.tower, windows=False)], own)
    if source.kind == "impressions":
        check(
            spark,
            [Expression(f"heads.{name}.applies_to", head.applies_to, windows=False) for name, head in conf.heads.items()],
            table.schema,
        )
    key = user_key(conf) if "user_id" in table.schema.names else None
    withheld = columns_that_name_users(spark, source, raw.schema.names) if key else ()
    return Checked(raw, table, types, windowed, key, frozenset(withheld))


def expression_types(spark: SparkSession, raw: Raw) -> tuple[StructType, bool]:
    """The types of a block's `columns`, and whether some of its expressions look at other rows; ConfError for one that is not allowed."""
    at, source = f"sources.{raw.block.name}", raw.block.source
    files = [StructField(name, StringType()) for name in ("_file", "_path")]
    lines = StructType([*raw.schema.fields, *files])
    _refuse_hidden_columns(raw.block, raw.schema)
    known, windowed = lines, False
    for name, text in source.derive.items():  # each may use those before it
        derived, over_rows = check(spark, [Expression(f"{at}.derive.{name}", text)], known)
        known, windowed = StructType([*known.fields, StructField(name, derived[0])]), windowed or over_rows
    if source.where:
        check(spark, [Expression(f"{at}.where", source.where, windows=False)], known)
    kinds, more = check(spark, [Expression(f"{at}.columns.{name}", text) for name, text in source.columns.items()], known)
    return StructType([StructField(name, kind) for name, kind in zip(source.columns, kinds, strict=True)]), windowed or more


def _refuse_unknown_columns(block: Block, table: Table) -> None:
    for given in block.source.columns:
        if given not in table.schema.names:
            near = get_close_matches(given, table.schema.names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(table.schema.names)}"
            raise ConfError(
                f"sources.{block.name}.columns: {table.name} has no column {given}; {hint}. A new one is named in the feature template, which "
                "`jobs/profile_features.py --draft` does"
            )


def _refuse_lists_for_values(block: Block, table: Table, types: StructType) -> None:
    """A list does not become one value, nor one value a list, without the expression saying how."""
    for given in types:
        needed = table.schema[given.name].dataType
        known = not isinstance(given.dataType, NullType | VariantType)  # these become whatever is needed
        if known and isinstance(given.dataType, ArrayType) != isinstance(needed, ArrayType):
            raise ConfError(
                f"sources.{block.name}.columns.{given.name}: {block.source.columns[given.name]!r} is {given.dataType.simpleString()}, "
                f"{table.name}.{given.name} is {needed.simpleString()}; make a list by split(...) or array(...), or read one with a `length`"
            )


def _refuse_hidden_columns(block: Block, schema: StructType) -> None:
    raw = {name.lower() for name in schema.names}
    hidden = [name for name in block.source.derive if name in raw]
    if hidden:
        raise ConfError(f"sources.{block.name}.derive: {', '.join(hidden)} would hide the raw column of that name; choose another name")


def _rows(checked: Checked, lines: DataFrame) -> DataFrame:
    """The rows that are the block's, with their canonical values."""
    source = checked.source
    rows = reduce(lambda rows, given: rows.withColumn(given[0], F.expr(given[1])), source.derive.items(), lines)
    if source.where:
        rows = rows.where(F.expr(source.where) | F.col(CORRUPT).isNotNull())
    values = {field.name: _value(checked, field) for field in _own(checked.table)}
    misfits = [F.when(misfit, F.lit(f"{name}_of_type")) for name, (_, misfit) in values.items() if misfit is not None]
    texts = [_text(values[field.name][0], field) for field in _own(checked.table) if _is_text(field)]
    long = reduce(Column.__or__, (F.octet_length(text) > LONGEST_TEXT for text in texts))
    faults = F.concat_ws(",", F.when(_not_utf8(checked.raw), "invalid_utf8"), F.when(long, "oversized"), *misfits)
    return _select(checked, rows, [value.alias(name) for name, (value, _) in values.items()], _stated_day(source), faults, UNREADABLE)


def _blank(checked: Checked, lines: DataFrame, reason: str = UNREADABLE) -> DataFrame:
    """Lines that have no values to compute with."""
    nothing = [F.lit(None).cast(field.dataType).alias(field.name) for field in _own(checked.table)]
    return _select(checked, lines, nothing, F.lit(None).cast("date"), F.lit(""), reason)


def _select(checked: Checked, rows: DataFrame, values: Sequence[Column], day: Column, faults: Column, reason: str) -> DataFrame:
    block, source = checked.raw.block, checked.source
    kept = {name: F.lit(WITHHELD) if name in checked.withheld else F.col(_quoted(name)) for name in checked.raw.schema.names}
    # Whom a line names that cannot be parsed is not known.
    line = F.when(F.col(CORRUPT).isNotNull(), WITHHELD) if checked.key and reason == UNREADABLE else F.col(CORRUPT)
    return rows.select(
        *values,
        F.lit(source.source).alias("source"),
        F.lit(block.name).alias("block"),
        F.col("_file").alias("file"),
        F.col("_path").alias("path"),
        day.alias("stated_day"),
        F.struct(*(value.alias(name) for name, value in kept.items())).alias("raw_columns"),
        faults.alias("faults"),
        line.alias("unreadable"),
        F.lit(reason).alias("unreadable_as"),
    )


def _own(table: Table) -> list[StructField]:
    return [field for field in table.columns if field.name not in ("day", "source")]


def _stated_day(source: Source) -> Column:
    """Inventory may state the day it is for; the day of every other kind follows its clock."""
    return F.expr(source.columns.get("day", "null") if source.kind == "inventory" else "null").try_cast("date")


def _value(checked: Checked, field: StructField) -> tuple[Column, Column | None]:
    """The column's value, and where it needs a conversion the predicate that a value is there and does not convert."""
    source = checked.source
    if field.name not in source.columns:
        return F.lit(None).cast(field.dataType), None
    value = F.expr(source.columns[field.name])
    given = checked.types[field.name].dataType
    if isinstance(field.dataType, TimestampType) and source.time_zone != "UTC":
        value, given = F.to_utc_timestamp(value.try_cast("timestamp"), source.time_zone), field.dataType
    if given == field.dataType:
        return value, None
    return value.try_cast(field.dataType), value.isNotNull() & value.try_cast(field.dataType).isNull()


def _is_text(field: StructField) -> bool:
    return field.dataType in (StringType(), ArrayType(StringType(), True))


def _text(value: Column, field: StructField) -> Column:
    return F.concat_ws(",", value) if isinstance(field.dataType, ArrayType) else value


def _not_utf8(raw: Raw) -> Column:
    """Whether a text of the raw row is no UTF-8.

    A JSON line that is none cannot be parsed. The CSV reader, and JSON's in another encoding, put U+FFFD for what they cannot read.
    """
    source = raw.block.source
    if source.format == "json" and "encoding" not in {option.lower() for option in source.options}:
        return F.lit(False)
    texts = [F.col(_quoted(column.name)) for column in raw.schema.fields if isinstance(column.dataType, StringType)]
    if source.format not in ("json", "csv"):
        return reduce(Column.__or__, (~F.is_valid_utf8(text) for text in texts), F.lit(False))
    nested = [
        F.to_json(F.struct(_quoted(column.name)))
        for column in raw.schema.fields
        if isinstance(column.dataType, ArrayType | MapType | StructType | VariantType)
    ]
    return reduce(Column.__or__, (F.contains(text, F.lit(REPLACEMENT)) for text in [*texts, *nested]), F.lit(False))


def _set_aside(spark: SparkSession, raw: Raw) -> DataFrame:
    """One row a file that could not be read: its path and why, where the text of an unparseable line would stand."""
    files = StructType([StructField(name, StringType()) for name in (CORRUPT, "_file", "_path")])
    told = [(json.dumps({"path": path, "why": why}), PurePosixPath(path).name, path) for path, why in raw.block.unreadable.items()]
    rows = spark.createDataFrame(told, files)
    return rows.select(*(F.lit(None).cast(column.dataType).alias(column.name) for column in raw.schema.fields), "*")


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
