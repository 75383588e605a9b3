"""From an error that Spark raised over a block's rows to words an operator can act on: which file, which expression, which knob."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse

from pyspark.sql import SparkSession

from etl.landing import InputUnreadable
from etl.raw import Block

IN_FILE = re.compile(r"Encountered error while reading file (\S+?)\.?\s(.*)", re.DOTALL)
#: Spark's names for a value that an expression cannot take; ANSI mode raises them where older Spark gave null.
ON_VALUE = re.compile(
    r"\[(CAST_INVALID_INPUT|CAST_OVERFLOW|DIVIDE_BY_ZERO|REMAINDER_BY_ZERO|ARITHMETIC_OVERFLOW|INVALID_ARRAY_INDEX\w*|MAP_KEY_DOES_NOT_EXIST|"
    r"DATETIME_OVERFLOW|DATETIME_FIELD_OUT_OF_BOUNDS\w*|CANNOT_PARSE_TIMESTAMP|CANNOT_PARSE_\w+|CONVERSION_INVALID_INPUT|INVALID_\w+|"
    r"NUMERIC_VALUE_OUT_OF_RANGE|INTERVAL_\w+|MALFORMED_\w+|NULL_MAP_KEY|DUPLICATED_MAP_KEY|INCONSISTENT_BEHAVIOR_CROSS_VERSION)[.\w]*\] ([^\n]*)"
)
QUOTED = re.compile(r"== SQL[^\n]*==\n(.*?)\n\s*\^", re.DOTALL)


@contextmanager
def without_task_traces(spark: SparkSession) -> Iterator[None]:
    """Spark logs each try of a failed task with Java's stack; the error that reaches us says it once, and is put in words here."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    log4j, loggers = jvm.org.apache.logging.log4j, ("org.apache.spark.executor.Executor", "org.apache.spark.scheduler.TaskSetManager")
    try:
        for logger in loggers:
            log4j.core.config.Configurator.setLevel(logger, log4j.Level.OFF)
        yield
    finally:
        for logger in loggers:
            log4j.core.config.Configurator.setLevel(logger, log4j.Level.ERROR)


def without_faulty_file(blocks: Sequence[Block], error: Exception) -> list[Block]:
    """The blocks with the file at fault set aside. Raises InputUnreadable where a block says that such a file stops the night, or where an
    expression failed on a value; an error of another kind is raised as it came."""
    text = str(error)
    in_file, on_value = IN_FILE.search(text), ON_VALUE.search(text)
    if in_file and not on_value:
        path = _plain(in_file[1])
        found = [block for block in blocks if any(_holds(file, path) for file in block.files)]
        if found:
            return [_without(block, path, _cause(in_file[2])) if block in found else block for block in blocks]
    if on_value:
        quoted = QUOTED.search(text)
        places = [place for block in blocks for place in _places(block, quoted[1].strip() if quoted else "")]
        raise InputUnreadable(
            f"{' or '.join(places or [f'sources.{block.name}' for block in blocks])}: an expression failed on a row: {on_value[2]} Use the form "
            "that gives null (try_cast, try_to_timestamp, try_divide, try_element_at, …): such a row then goes into quarantine"
        ) from error
    raise error


def _without(block: Block, path: str, why: str) -> Block:
    return block.without(next(file for file in block.files if _holds(file, path)), why)


def _holds(file: str, path: str) -> bool:
    """Whether `path`, as an error names it, is this file of the block, or lies in this Delta table."""
    own = _plain(file.rsplit("@v", 1)[0])
    return path == own or (PurePosixPath(own) in PurePosixPath(path).parents and "@v" in file)


def _plain(path: str) -> str:
    return unquote(urlparse(path).path)


def _cause(rest: str) -> str:
    """The innermost cause of Java's trace, in one line."""
    causes = re.findall(r"Caused by: (?:[\w.$]+: ?)?([^\n]*)", rest)
    named = [cause.strip() for cause in causes if cause.strip()]
    return named[-1][:300] if named else "its content is damaged"


def _places(block: Block, quoted: str) -> list[str]:
    """The expressions of a block in which Spark's quotation stands."""
    source = block.source
    texts = {"where": source.where, **{f"derive.{name}": text for name, text in source.derive.items()}}
    texts |= {f"columns.{name}": text for name, text in source.columns.items()}
    return [f"sources.{block.name}.{place}" for place, text in texts.items() if quoted and quoted in text]
