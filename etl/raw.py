"""A source block's files -> raw rows by column name, each file's own columns looked at first.

Grain: one row a line or record. Beside the raw columns stand `_corrupt` (the line that could not be parsed, else null), `_file` (base name)
and `_path`. A file that cannot be read, or that lacks a column of raw_schema, is found here where its header or footer shows it, and by
etl/faults.py where only its rows do.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, cast

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from conf.load import ConfError
from conf.source import Source
from etl.expressions import first_line, nearest
from etl.landing import InputUnreadable

CORRUPT = "_corrupt"
#: What a file may hold where raw_schema says the second: Spark reads it without loss.
WIDENS = {
    ("tinyint", "int"),
    ("smallint", "int"),
    ("int", "bigint"),
    ("float", "double"),
    ("int", "double"),
    ("timestamp_ntz", "timestamp"),
    ("binary", "string"),
}


@dataclass(frozen=True)
class Block:
    """A source block with its name and the files found for it; `unreadable` (path -> why) are set aside, and no longer among the files."""

    name: str
    source: Source
    files: tuple[str, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def without(self, path: str, why: str) -> Block:
        """Set a file aside, or raise InputUnreadable where the block says that it stops the night."""
        if self.source.damaged_files == "stop":
            raise InputUnreadable(
                f"sources.{self.name}: {path} cannot be read: {why}. Have it delivered again, or set `damaged_files: quarantine` in that block "
                "to go on without it"
            )
        return replace(self, files=tuple(file for file in self.files if file != path), unreadable={**self.unreadable, path: why})


@dataclass(frozen=True)
class Raw:
    """A block that can be read: its raw columns, and of a CSV file with a header the names it has, by file."""

    block: Block
    schema: StructType
    headers: Mapping[str, tuple[str, ...]]


def look_at(spark: SparkSession, block: Block) -> Raw:
    """The raw columns as configured, else as the first file has them; a file whose own columns do not fit is set aside or stops the night."""
    wanted, headers = _configured(block), {}
    for path in block.files:
        try:
            found = _columns_of(spark, block.source, path, wanted is None)
        except (PySparkException, Py4JError, UnicodeError, csv.Error) as error:
            block = block.without(path, first_line(error))
            continue
        if found is None:  # the lines carry their names themselves, or none; or the file is empty
            continue
        wanted = wanted or found
        lacks = _lacks(found, wanted, typed=block.source.format != "csv") if named(block.source) else ""
        if lacks:
            block = block.without(path, lacks)
        else:
            headers[path] = tuple(found.names)
    return Raw(block, wanted or StructType(), headers)


def read(spark: SparkSession, raw: Raw) -> DataFrame:
    """Raw columns in the order of the schema, `_corrupt`, `_file`, `_path`."""
    source = raw.block.source
    names = [F.col("`" + name.replace("`", "``") + "`") for name in raw.schema.names]
    frames = [
        frame.select(*names, CORRUPT, F.col("_metadata.file_name").alias("_file"), F.col("_metadata.file_path").alias("_path"))
        for frame in _frames(spark.read.options(**source.options).format(source.format), raw)
    ]
    nothing = StructType([*raw.schema.fields, *(StructField(name, StringType()) for name in (CORRUPT, "_file", "_path"))])
    return reduce(DataFrame.union, frames) if frames else spark.createDataFrame([], nothing)


def _frames(reader: DataFrameReader, raw: Raw) -> Iterator[DataFrame]:
    source, files = raw.block.source, raw.block.files
    if source.format in ("parquet", "avro"):
        # Parquet pages carry a checksum that its reader ignores unless told.
        reader = reader.option("parquet.page.verify-checksum.enabled", "true").schema(raw.schema)
        yield from (reader.load(list(files)).withColumn(CORRUPT, F.lit(None).cast("string")) for _ in files[:1])
    elif source.format == "delta":
        for path, version in (file.rsplit("@v", 1) for file in files):
            yield reader.option("versionAsOf", version).load(path).withColumn(CORRUPT, F.lit(None).cast("string"))
    else:
        # Without pruning a line is parsed whole, so that a fault in a column nobody asked for is seen all the same.
        reader = reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT).option("columnPruning", "false")
        for names, group in _by_header(raw):
            yield reader.schema(_in_order(raw.schema, names).add(CORRUPT, "string")).load(group)


def _by_header(raw: Raw) -> Iterator[tuple[Sequence[str], list[str]]]:
    """Files that can be read together: those with the same columns in the same order."""
    if not named(raw.block.source):
        yield from ((raw.schema.names, list(raw.block.files)) for _ in raw.block.files[:1])
        return
    for names in dict.fromkeys(raw.headers.values()):
        yield names, [path for path, header in raw.headers.items() if header == names]


def _in_order(schema: StructType, names: Sequence[str]) -> StructType:
    """The schema in a file's order; a column that the schema does not know is read as text, and left out later."""
    known = {column.name.lower(): column for column in schema.fields}
    return StructType([known.get(name.lower(), StructField(name, StringType())) for name in names])


def named(source: Source) -> bool:
    """Whether each file names its columns once for all its rows (a JSON line names its own, a CSV file without header none)."""
    return source.format in ("parquet", "avro", "delta") or (source.format == "csv" and source.options.get("header", "").lower() == "true")


def _configured(block: Block) -> StructType | None:
    if not block.source.raw_schema:
        return None
    try:
        return cast(StructType, StructType.fromDDL(block.source.raw_schema))
    except PySparkException as error:
        raise ConfError(
            f"sources.{block.name}.raw_schema: {block.source.raw_schema!r} is no list of columns: {first_line(error)}"
        ) from None


def _columns_of(spark: SparkSession, source: Source, path: str, unknown: bool) -> StructType | None:
    """The columns that the file itself names; None where it names none. `unknown`: no raw_schema, and this is the first file."""
    reader = spark.read.options(**source.options).format(source.format)
    if source.format == "delta":
        folder, version = path.rsplit("@v", 1)
        return reader.option("versionAsOf", version).load(folder).schema
    if source.format == "parquet":
        return _of_footer(spark, path)
    if source.format == "csv" and named(source):
        return _of_header(spark, source, path)
    return reader.load(path).schema if source.format == "avro" or unknown else None


def _of_footer(spark: SparkSession, path: str) -> StructType:
    jvm = spark._jvm
    assert jvm is not None
    parquet = jvm.org.apache.parquet.hadoop
    conf = spark._jsparkSession.sessionState().newHadoopConf()
    file = parquet.ParquetFileReader.open(parquet.util.HadoopInputFile.fromPath(jvm.org.apache.hadoop.fs.Path(path), conf))
    try:
        message = file.getFooter().getFileMetaData().getSchema()
    finally:
        file.close()
    converter = jvm.org.apache.spark.sql.execution.datasources.parquet.ParquetToSparkSchemaConverter(
        spark._jsparkSession.sessionState().conf()
    )
    return StructType.fromJson(json.loads(converter.convert(message).json()))


def _of_header(spark: SparkSession, source: Source, path: str) -> StructType | None:
    """As Spark names them: a column without a name after its place, one of a name that comes twice with its place."""
    line = _first_written_line(spark, source, path)
    if line is None:
        return None
    options = {key.lower(): value for key, value in source.options.items()}
    dialect: dict[str, Any] = {"delimiter": options.get("sep", options.get("delimiter", ",")).replace("\\t", "\t")}
    dialect |= {"quotechar": options.get("quote", '"') or None, "escapechar": options.get("escape", "\\") or None}
    if dialect["quotechar"] is None:
        dialect["quoting"] = csv.QUOTE_NONE
    found = next(csv.reader([line.lstrip("\ufeff")], **dialect), [])
    if options.get("ignoreleadingwhitespace", "false") == "true":
        found = [name.strip() for name in found]
    folded = [name.lower() for name in found]
    names = [
        f"_c{place}" if not name else f"{name}{place}" if folded.count(folded[place]) > 1 else name for place, name in enumerate(found)
    ]
    return StructType([StructField(name, StringType()) for name in names])


def _first_written_line(spark: SparkSession, source: Source, path: str) -> str | None:
    jvm = spark._jvm
    assert jvm is not None
    place, conf = jvm.org.apache.hadoop.fs.Path(path), spark._jsparkSession.sessionState().newHadoopConf()
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(conf).getCodec(place)
    stream = place.getFileSystem(conf).open(place)
    try:
        plain = codec.createInputStream(stream) if codec else stream
        lines = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(plain, source.options.get("encoding", "UTF-8")))
        comment = source.options.get("comment")
        while True:
            line: str | None = lines.readLine()
            if line is None or (line.strip() and not (comment and line.startswith(comment))):
                return line
    finally:
        stream.close()


def _lacks(found: StructType, wanted: StructType, typed: bool) -> str:
    """What keeps a file from being read as wanted: a column that it lacks, or holds as another type; empty where nothing does."""
    has = {column.name.lower(): column for column in found.fields}
    for column in wanted.fields:
        own = has.get(column.name.lower())
        if own is None:
            return f"it has no column `{column.name}`, which raw_schema names; {nearest(column.name, found.names)}"
        held, asked = own.dataType.simpleString(), column.dataType.simpleString()
        plain = typed and not any(kind in held + asked for kind in ("<", "decimal"))
        if plain and held != asked and (held, asked) not in WIDENS:
            return f"it holds `{column.name}` as {held}, and raw_schema says {asked}"
    return ""
