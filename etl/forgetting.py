"""People's rows out of every table, out of what was written of them in words, and out of the files beneath.

Each step finds what is left to do, so that a removal that was cut off is finished by another. What can still tell of a person afterwards: the
landing files and any copies of them, which are the platform's, and a model's weights until one is trained from nothing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.expressions import Expression, references
from etl.schemas import FORGOTTEN, QUARANTINE, RUNS, Table, all_tables
from etl.session import side_by_side
from etl.tables import read, table_path
from etl.vacuum import vacuum

#: Folders of the workdir that hold rows, or numbers made row by row, and that can be made again.
FOLDERS = ("snapshots", "checkpoints", "backtest", "compare", "search")
TOLD = "(forgotten)"
PEOPLE_A_PATTERN = 500
WRITINGS = (".html", ".json", ".jsonl", ".md", ".txt")


@dataclass
class Removed:
    """`days`: table -> day -> rows removed, or of which something was blotted out. `files`: reports and summaries that named someone."""

    days: dict[str, dict[date, int]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    files: int = 0

    @property
    def rows(self) -> dict[str, int]:
        return {table: sum(days.values()) for table, days in self.days.items()}


def remove(spark: SparkSession, conf: Conf, people: Sequence[str], named: Sequence[str], dry_run: bool = False) -> Removed:
    """Remove the rows of `people`, ids as the tables have them; `named`: as the platform has them, for what was written before or beside.

    With `dry_run` only count. Tables keep their older versions until `purge`.
    """
    ids = spark.createDataFrame([(one,) for one in people], "user_id STRING").distinct().persist()
    removed, tables = Removed(), all_tables(conf)
    try:
        for wave in _rows_of(spark, conf, tables, ids):
            side_by_side(lambda one: _delete(spark, conf, *one, removed, dry_run), wave)
        words = list(_patterns({*people, *named}))
        for table, column, blotted in ((QUARANTINE, "raw", None), (RUNS, "counts", TOLD), (RUNS, "message", TOLD)):
            _blot(spark, conf, table, column, words, blotted, removed, dry_run)
    finally:
        ids.unpersist()
    workdir = Path(conf.workdir)
    for name in FOLDERS:
        if (workdir / name).is_dir():
            removed.folders.append(name)
            if not dry_run:
                shutil.rmtree(workdir / name)
    removed.files = sum(_blot_file(path, words, dry_run) for path in sorted((workdir / "runs").rglob("*")) if path.suffix in WRITINGS)
    return removed


def purge(spark: SparkSession, conf: Conf) -> None:
    """Delete the files of all older versions of the tables that hold people's rows: those versions can be read no more."""
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    before = str(spark.conf.get(check, "true"))
    spark.conf.set(check, "false")
    try:
        side_by_side(lambda name: vacuum(spark, conf.workdir, name, hours=0, dry_run=False), person_tables(conf))
    finally:
        spark.conf.set(check, before)


def person_tables(conf: Conf) -> list[str]:
    """Tables with rows of a person's own, or words that may name one."""
    by_user = [name for name, table in all_tables(conf).items() if "user_id" in table.schema.names and table != FORGOTTEN]
    return [*by_user, "scores", "challenger_scores", "history", QUARANTINE.name, RUNS.name]


def _rows_of(spark: SparkSession, conf: Conf, tables: Mapping[str, Table], ids: DataFrame) -> Iterator[list[tuple[Table, DataFrame]]]:
    """Tables with the keys of their rows to go: first those that are found by way of another table, then those that name the user."""
    inventory = read(spark, conf.workdir, tables["inventory"]).join(ids, "user_id").select("inventory_id").distinct()
    # An engagement may name its impression alone.
    shown = read(spark, conf.workdir, tables["impressions"]).join(ids, "user_id").select("impression_id").distinct()
    by_key = {"scores": inventory, "challenger_scores": inventory, "engagements": shown, "history": _history_keys(spark, conf, ids)}
    yield [(tables[name], keys) for name, keys in by_key.items()]
    yield [(tables[name], ids) for name in person_tables(conf) if "user_id" in tables[name].schema.names]


def _history_keys(spark: SparkSession, conf: Conf, ids: DataFrame) -> DataFrame:
    """(kind, key) of the counts by user, and by user with something else."""
    examples = read(spark, conf.workdir, schemas.examples(conf))
    theirs = examples.join(ids, "user_id")
    nobody = spark.createDataFrame([], "kind STRING, key STRING")
    found = [
        theirs.select(F.lit(kind).alias("kind"), F.expr(text).cast("string").alias("key")).distinct()
        for kind, text in conf.history.keys.items()
        if "user_id" in references(spark, Expression(f"history.keys.{kind}", text), examples.columns)
    ]
    return reduce(DataFrame.unionByName, found, nobody)


def _delete(spark: SparkSession, conf: Conf, table: Table, keys: DataFrame, removed: Removed, dry_run: bool) -> None:
    days = read(spark, conf.workdir, table).join(keys, keys.columns, "left_semi").groupBy("day").count().collect()
    _note(removed, table, {row["day"]: row["count"] for row in days})
    if days and not dry_run:
        same = reduce(Column.__and__, (F.col(f"rows.{name}") == F.col(f"gone.{name}") for name in keys.columns))
        rows = DeltaTable.forPath(spark, table_path(conf.workdir, table.name)).alias("rows")
        rows.merge(keys.alias("gone"), same).whenMatchedDelete().execute()


def _blot(
    spark: SparkSession, conf: Conf, table: Table, column: str, words: Iterable[str], instead: str | None, removed: Removed, dry_run: bool
) -> None:
    """Where a text names someone, put `instead` for the name; None: of the text nothing stays."""
    for pattern in words:
        named = F.coalesce(F.regexp_like(F.col(column), F.lit(pattern)), F.lit(False))
        days = read(spark, conf.workdir, table).where(named).groupBy("day").count().collect()
        _note(removed, table, {row["day"]: row["count"] for row in days})
        if days and not dry_run:
            text = F.regexp_replace(F.col(column), F.lit(pattern), F.lit(instead)) if instead else F.lit(None).cast("string")
            DeltaTable.forPath(spark, table_path(conf.workdir, table.name)).update(named, {column: text})


def _blot_file(path: Path, words: Iterable[str], dry_run: bool) -> bool:
    text = told = path.read_text(encoding="utf-8")
    for pattern in words:
        told = re.sub(pattern, TOLD, told)
    if told != text and not dry_run:
        path.write_text(told, encoding="utf-8")
    return told != text


def _patterns(names: Iterable[str]) -> Iterator[str]:
    """Whole words that are one of the names, as they stand in a text and in JSON, some hundred a pattern; for Python and for Java alike."""
    forms = sorted({form for name in names for form in (name, json.dumps(name)[1:-1]) if form})
    for begin in range(0, len(forms), PEOPLE_A_PATTERN):
        quoted = "|".join(map(re.escape, forms[begin : begin + PEOPLE_A_PATTERN]))
        yield rf"(?<![\w-])(?:{quoted})(?![\w-])"


def _note(removed: Removed, table: Table, days: Mapping[date, int]) -> None:
    if days:
        known = removed.days.setdefault(table.name, {})
        for day, count in days.items():
            known[day] = known.get(day, 0) + count
