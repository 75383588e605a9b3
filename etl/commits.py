"""What was committed to the tables while something ran: read from Delta's log files themselves, without a Spark job.

A log is one JSON file a version, `_delta_log/<version>.json`, an action a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Committed:
    """Commits to one table: the newest version, and the files of data that were added. Bytes are those of files."""

    version: int
    files_added: int = 0
    bytes_added: int = 0


def newest_versions(workdir: str | Path) -> dict[str, int]:
    """Table -> its newest version; a folder without commits is left out."""
    tables = Path(workdir).resolve() / "tables"
    names = sorted(os.listdir(tables)) if tables.is_dir() else []
    found = {name: max(_versions(tables / name), default=-1) for name in names}
    return {name: version for name, version in found.items() if version >= 0}


def committed_since(workdir: str | Path, before: Mapping[str, int]) -> dict[str, Committed]:
    """Table -> what was committed after the versions `before`, whoever did it; tables without a commit are left out."""
    found = {}
    for name, newest in newest_versions(workdir).items():
        folder = Path(workdir).resolve() / "tables" / name
        versions = [version for version in _versions(folder) if version > before.get(name, -1)]
        if versions:
            added = [action["add"] for version in versions for action in _actions(folder, version) if "add" in action]
            found[name] = Committed(newest, len(added), sum(int(file["size"]) for file in added))
    return found


def committed_at(workdir: str | Path, table: str, version: int) -> datetime:
    """When a version was committed; of one whose log file is gone, when the oldest that is there was."""
    folder = Path(workdir).resolve() / "tables" / table
    versions = sorted(_versions(folder))
    found = version if version in versions else versions[0]
    info = next(action["commitInfo"] for action in _actions(folder, found) if "commitInfo" in action)
    return datetime.fromtimestamp(info["timestamp"] / 1000, UTC)


def folder_bytes(folder: Path) -> int:
    """Of all files below it; one that goes away meanwhile counts as nothing."""
    return sum(size for path, _, names in os.walk(folder) for name in names if (size := _size(Path(path, name))))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _versions(table: Path) -> Iterator[int]:
    log = table / "_delta_log"
    names = os.listdir(log) if log.is_dir() else []
    return (int(name.removesuffix(".json")) for name in names if name.endswith(".json") and name.removesuffix(".json").isdigit())


def _actions(table: Path, version: int) -> Iterator[dict[str, Any]]:
    with (table / "_delta_log" / f"{version:020}.json").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
