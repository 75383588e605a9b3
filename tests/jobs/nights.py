"""Nights on simulated logs in working folders of their own, run as an operator runs them: one command, one process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from conf.load import load
from conf.schema import Conf
from etl.commits import newest_versions
from etl.schemas import Table, all_tables
from etl.session import side_by_side
from etl.tables import content_hashes, read

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """A configuration file whose tables lie in a folder of its own."""

    conf_file: Path

    @property
    def conf(self) -> Conf:
        return load(self.conf_file)

    @property
    def workdir(self) -> Path:
        return Path(self.conf.workdir)

    def run(self, job: str, *options: str, kill_at: str | None = None, launcher: str = sys.executable) -> tuple[int, str]:
        """Exit code and stderr of a job; with `kill_at`, kill -9 its whole process group once a line of stderr holds that text."""
        command = [launcher, f"jobs/{job}.py", "--conf-file", str(self.conf_file), *options]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if kill_at and kill_at in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stderr.close()
        return process.wait(), "".join(lines)

    def hashes(self, spark: SparkSession, *without: str) -> dict[str, dict[str, str]]:
        """Table -> day -> content hash, for every table but `without`."""
        tables = self.tables(*without)
        found = side_by_side(lambda table: content_hashes(read(spark, self.workdir, table), table), tables)
        return {table.name: days for table, days in zip(tables, found, strict=True)}

    def versions(self, *without: str) -> dict[str, int]:
        """Table -> its newest version, for every table but `without`: who writes nothing leaves them all as they are."""
        return {name: version for name, version in newest_versions(self.workdir).items() if name not in without}

    def tables(self, *without: str) -> list[Table]:
        return [table for table in all_tables(self.conf).values() if table.name not in without]


def place(folder: Path, base: str, landing: Path | None = None, **over: Any) -> Place:
    """`base` (such as tiny) with its tables, and unless given its landing folder, below `folder`; with some knobs set otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {"extends": str(ROOT / "conf" / f"{base}.yaml"), "workdir": str(folder), "landing": str(landing or folder / "landing")}
    file = folder / "conf.yaml"
    file.write_text(yaml.safe_dump(text | over), encoding="utf-8")
    return Place(file)


def copied(of: Place, folder: Path, **over: Any) -> Place:
    """The tables of `of`, and its logs, for a place in a folder of its own, with some knobs set otherwise."""
    shutil.copytree(of.workdir, folder, ignore=shutil.ignore_patterns("landing", "conf.yaml"))
    return place(folder, "tiny", landing=Path(of.conf.landing), **over)


def day(number: int) -> str:
    """Day of the simulated logs, counted from 1."""
    return date(2026, 5, number).isoformat()
