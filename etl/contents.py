"""Content hashes of what a night reads and writes, by name: `examples/2026-05-14` is a table's day, `models/<id>/bundle.json` a file.

"The same tables" means these hashes. A table's days are hashed once a version, in one pass over the days asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.schemas import all_tables
from etl.session import side_by_side
from etl.splits import days_between
from etl.tables import content_hashes, pin, read_days

EMPTY = "0:"
#: Name of a table's day: table, model, day.
TABLE_DAY = re.compile(r"^([a-z_]+)(?:@([0-9a-z]+))?/(\d{4}-\d{2}-\d{2})$")


class Contents:
    """Looks hashes up by name. `table@model/day` is a table's day narrowed to one model's rows."""

    def __init__(self, spark: SparkSession, conf: Conf) -> None:
        self._spark, self._conf, self._tables = spark, conf, all_tables(conf)
        self._seen: dict[tuple[str, int], str] = {}
        self._removed: Mapping[str, str] = {}

    @contextmanager
    def as_before_removal(self, removed: Mapping[str, str]) -> Iterator[None]:
        """Inside, what retention removed has the hash that it had, unless something is there again: so an old night's inputs look as they did."""
        self._removed = removed
        try:
            yield
        finally:
            self._removed = {}

    def of_days(self, table: str, first: date, last: date, model: str | None = None) -> dict[str, str]:
        """Hashes of a table's days that hold rows."""
        prefix = f"{table}@{model}" if model else table
        names = [f"{prefix}/{day}" for day in days_between(first, last)]
        return {name: value for name, value in self._of_table(table, model, names).items() if value != EMPTY}

    def of_file(self, relative: str) -> dict[str, str]:
        """sha256 of a file below the working folder; nothing if it is not there."""
        path = Path(self._conf.workdir) / relative
        if path.is_file():
            return {relative: hashlib.sha256(path.read_bytes()).hexdigest()}
        return {relative: self._removed[relative]} if relative in self._removed else {}

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Current hash of each name; EMPTY where a day has no rows or a file is gone."""
        found: dict[str, str] = {}
        by_table: dict[tuple[str, str | None], list[str]] = {}
        for name in names:
            match = TABLE_DAY.match(name)
            if match:
                by_table.setdefault((match[1], match[2]), []).append(name)
            else:
                found[name] = self.of_file(name).get(name, EMPTY)
        for hashes in side_by_side(lambda asked: self._of_table(*asked[0], asked[1]), by_table.items()):
            found |= hashes
        return found

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Each table whose days are named -> its id and newest version, which the hashes are of."""
        tables = sorted({found[1] for name in names if (found := TABLE_DAY.match(name))})
        pins = [pin(self._spark, self._conf.workdir, self._tables[table]) for table in tables]
        return {table: f"{of.table_id}@v{of.version}" for table, of in zip(tables, pins, strict=True)}

    def _of_table(self, table: str, model: str | None, names: Sequence[str]) -> dict[str, str]:
        """Hashes by name; what this version was not asked for yet is read in one pass."""
        if not names:
            return {}
        spec = self._tables[table]
        version = pin(self._spark, self._conf.workdir, spec).version
        unseen = [name for name in names if (name, version) not in self._seen]
        if unseen:
            days = [date.fromisoformat(name.split("/")[1]) for name in unseen]
            frame = read_days(self._spark, self._conf.workdir, spec, min(days), max(days), version)
            if model is not None:
                frame = frame.where(frame["model"] == model)
            hashes = content_hashes(frame, spec)
            prefix = f"{table}@{model}" if model else table
            for day in days_between(min(days), max(days)):
                self._seen[(f"{prefix}/{day}", version)] = hashes.get(day.isoformat(), EMPTY)
        found = {name: self._seen[(name, version)] for name in names}
        return {name: self._removed.get(name, EMPTY) if value == EMPTY else value for name, value in found.items()}
