"""What lies in the landing folders: which files or Delta tables a source block reads for which days, seen through Hadoop's file system."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from conf.load import cache_dir
from conf.schema import Conf
from conf.source import DAY_IN_PATH, Source
from etl.splits import days_between


class InputMissing(RuntimeError):
    """A required source has no files; the message names block, day and pattern."""


class InputUnreadable(RuntimeError):
    """A file that is there cannot be read as its block says; the message names block, file, what is wrong and the knob."""


@dataclass(frozen=True)
class LandedFile:
    """A file, or a Delta table at one version: its path then ends in @v<version>, size and time are 0, and `table` is its id."""

    path: str
    size: int
    modified_ms: int
    table: str = ""


def landing_dir(conf: Conf) -> str:
    return str(Path(conf.landing or Path(conf.workdir) / "landing").resolve())


def pattern(conf: Conf, source: Source, day: date | None = None) -> str:
    filled = source.files.replace("{landing}", landing_dir(conf)).replace("{cache}", str(cache_dir()))
    return DAY_IN_PATH.sub(lambda found: day.strftime(found[1] or "%Y-%m-%d"), filled) if day else filled


def day_of(source: Source, path: Column) -> Column:
    """The {day} that a path was found by; null where one file holds all days."""
    shapes = {"%Y": r"(\d{4})", "%m": r"(\d{2})", "%d": r"(\d{2})"}
    # Only a stretch without wildcards around the whole day is looked for: what a glob stands for is not known.
    for token in DAY_IN_PATH.finditer(source.files):
        codes = re.findall("%[Ymd]", token[1] or "%Y-%m-%d")
        if sorted(codes) == sorted(shapes):
            text = re.sub(r"%([Ymd])|(.)", lambda part: shapes[f"%{part[1]}"] if part[1] else re.escape(part[2]), token[1] or "%Y-%m-%d")
            before = source.files[: token.start()]
            known = re.split(r"[*?\[\]{}/]", before)[-1]
            found = f".*{'/' if before.removesuffix(known).endswith('/') else ''}{re.escape(known)}{text}"
            parts = [F.regexp_extract(path, found, codes.index(code) + 1) for code in ("%Y", "%m", "%d")]
            return F.concat_ws("-", *parts).try_cast("date")
    return F.lit(None).cast("date")


def find(spark: SparkSession, path_pattern: str, tables: bool = False) -> list[LandedFile]:
    """Files that match, by path; with `tables` the Delta tables, each at its newest version. An empty list where nothing does."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    path = jvm.org.apache.hadoop.fs.Path(path_pattern)
    files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    matches = files.globStatus(path) or []
    if tables:
        folders = sorted(found.getPath().toString() for found in matches if found.isDirectory())
        logs = {folder: jvm.org.apache.hadoop.fs.Path(folder, "_delta_log") for folder in folders}
        return [_at_newest_version(spark, folder) for folder, log in logs.items() if files.exists(log)]
    return sorted(
        (LandedFile(found.getPath().toString(), found.getLen(), found.getModificationTime()) for found in matches if found.isFile()),
        key=lambda file: file.path,
    )


def _at_newest_version(spark: SparkSession, folder: str) -> LandedFile:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, folder)
    snapshot = log.update(False, jvm.scala.Option.empty(), jvm.scala.Option.empty())
    return LandedFile(f"{folder}@v{int(snapshot.version())}", 0, 0, snapshot.metadata().id())


def files_by_day(spark: SparkSession, conf: Conf, source: Source, first: date, last: date) -> dict[date, list[LandedFile]]:
    """Day -> its files; a block whose files are not daily has all of them on every day."""
    if not source.daily:
        found = find(spark, pattern(conf, source), source.format == "delta")
        return {day: found for day in days_between(first, last)}
    return {day: find(spark, pattern(conf, source, day), source.format == "delta") for day in days_between(first, last)}


def first_complete_day(
    spark: SparkSession, conf: Conf, blocks: dict[str, Source], earliest: date, asked: date, last: date
) -> tuple[date, dict[str, tuple[LandedFile, ...]]]:
    """The first day of a range to ingest, and each block's files from it on.

    The days `asked`..`last` must have files of every required block. Days before `asked`, which a night rebuilds, are taken as far back as
    all required blocks still have their files: what landing no longer holds is left as it was built.
    """
    found = {name: files_by_day(spark, conf, source, earliest, last) for name, source in blocks.items()}
    required = [name for name, source in blocks.items() if source.required]
    gaps = [(name, day) for name in required for day, files in found[name].items() if not files]
    missing = [(name, day) for name, day in gaps if day >= asked]
    if missing:
        told = "; ".join(f"{name} on {day}: nothing matches {pattern(conf, blocks[name], day)}" for name, day in missing[:10])
        raise InputMissing(f"{told}. Deliver the files, or set `required: false` in that block")
    first = max((day for _, day in gaps), default=None)
    start = earliest if first is None else next(day for day in days_between(first, last) if day > first)
    files = {name: _distinct(file for day in days_between(start, last) for file in found[name][day]) for name in blocks}
    return start, files


def fingerprint(files: Iterable[LandedFile]) -> str:
    """Hash of names (with the version of a table), sizes and times of change: a file that is written anew is read anew."""
    text = "\n".join(f"{file.path}|{file.size}|{file.modified_ms}{file.table}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _distinct(files: Iterable[LandedFile]) -> tuple[LandedFile, ...]:
    return tuple(dict.fromkeys(files))
