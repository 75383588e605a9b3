"""What lies in the landing folders: which files a source block reads for which days, seen through Hadoop's file system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from conf.load import cache_dir
from conf.schema import Conf, Source
from etl.splits import days_between


class InputMissing(RuntimeError):
    """A required source has no files; the message names block, day and pattern."""


@dataclass(frozen=True)
class LandedFile:
    path: str
    size: int
    modified_ms: int


def landing_dir(conf: Conf) -> str:
    return str(Path(conf.landing or Path(conf.workdir) / "landing").resolve())


def pattern(conf: Conf, source: Source, day: date | None = None) -> str:
    filled = source.files.replace("{landing}", landing_dir(conf)).replace("{cache}", str(cache_dir()))
    return filled.replace("{day}", day.isoformat()) if day else filled


def find(spark: SparkSession, path_pattern: str) -> list[LandedFile]:
    """Files that match, by path; an empty list where nothing does."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    path = jvm.org.apache.hadoop.fs.Path(path_pattern)
    matches = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).globStatus(path)
    return sorted(
        (LandedFile(found.getPath().toString(), found.getLen(), found.getModificationTime()) for found in matches or [] if found.isFile()),
        key=lambda file: file.path,
    )


def files_by_day(spark: SparkSession, conf: Conf, source: Source, first: date, last: date) -> dict[date, list[LandedFile]]:
    """Day -> its files; a block whose files are not daily has all of them on every day."""
    if not source.daily:
        found = find(spark, pattern(conf, source))
        return {day: found for day in days_between(first, last)}
    return {day: find(spark, pattern(conf, source, day)) for day in days_between(first, last)}


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
    """Hash of names, sizes and times of change: a file that is written anew is read anew."""
    text = "\n".join(f"{file.path}|{file.size}|{file.modified_ms}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _distinct(files: Iterable[LandedFile]) -> tuple[LandedFile, ...]:
    return tuple(dict.fromkeys(files))
