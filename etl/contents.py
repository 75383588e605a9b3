"""Content hashes of what a night reads and writes, by name: `examples/2026-05-14` is a table's day, `models/<id>/bundle.json` a file.

"The same tables" means these hashes. A table's days are hashed once a version, in one pass over the days asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.schemas import all_tables
from etl.tables import content_hashes, pin, read_days

EMPTY = "0:"
_TABLE_DAY = re.compile(r"^([a-z_]+)(?:@([0-9a-z]+))?/(\d{4}-\d{2}-\d{2})$")


class Contents:
    """Looks hashes up by name. `table@model/day` is a table's day narrowed to one model's rows."""

    def __init__(self, spark: SparkSession, conf: Conf) -> None:
        self._spark, self._conf, self._tables = spark, conf, all_tables(conf)
        self._seen: dict[tuple[str, int], str] = {}

    def of_days(self, table: str, first: date, last: date, model: str | None = None) -> dict[str, str]:
        """Hashes of a table's days that hold rows."""
        if first > last:
            return {}
        spec = self._tables[table]
        frame = read_days(self._spark, self._conf.workdir, spec, first, last)
        if model is not None:
            frame = frame.where(frame["model"] == model)
        prefix = f"{table}@{model}" if model else table
        found = {f"{prefix}/{day}": value for day, value in content_hashes(frame, spec).items()}
        version = pin(self._spark, self._conf.workdir, spec).version
        self._seen.update({(name, version): value for name, value in found.items()})
        return dict(sorted(found.items()))

    def of_file(self, relative: str) -> dict[str, str]:
        """sha256 of a file below the working folder; nothing if it is not there."""
        path = Path(self._conf.workdir) / relative
        return {relative: hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Current hash of each name; EMPTY where a day has no rows or a file is gone."""
        found: dict[str, str] = {}
        for name in names:
            match = _TABLE_DAY.match(name)
            found[name] = self._of_day(name, *match.groups()) if match else self.of_file(name).get(name, EMPTY)
        return found

    def _of_day(self, name: str, table: str, model: str | None, day: str) -> str:
        version = pin(self._spark, self._conf.workdir, self._tables[table]).version
        if (name, version) not in self._seen:
            when = date.fromisoformat(day)
            self._seen[(name, version)] = self.of_days(table, when, when, model).get(name, EMPTY)
        return self._seen[(name, version)]
