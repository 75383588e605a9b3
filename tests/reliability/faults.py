"""What can happen to a day's delivery of simulated logs, and how an operator or the platform mends it."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jobs.common import DONE, INPUT, VALIDATION


@dataclass(frozen=True)
class Fault:
    """`spoil` a day's files in the landing folder before the night, which must end with `exit_code`; unless that is 0, it is run again once
    it is mended.

    Mending is always the same: what the platform meant to deliver stands in the landing folder, and nothing else.
    """

    name: str
    exit_code: int
    spoil: Callable[[Path, date], None]


def deliver(clean: Path, landing: Path, day: date) -> None:
    """The day's files of every log, exactly as they were made; what else lies there under that day goes."""
    for folder in sorted(clean.rglob(day.isoformat())):
        target = landing / folder.relative_to(clean)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)  # keeps the times of change


def parts(landing: Path, log: str, day: date) -> list[Path]:
    found = sorted((landing / log / day.isoformat()).glob("part-*"))
    assert found, f"no files of {log} on {day}"
    return found


def late(landing: Path, day: date) -> None:
    """A required log has not come."""
    shutil.rmtree(landing / "standard" / "impressions" / day.isoformat())


def missing_optional(landing: Path, day: date) -> None:
    """An optional source has delivered neither impressions nor engagements."""
    for log in ("impressions", "engagements"):
        shutil.rmtree(landing / "video" / log / day.isoformat())


def delivered_twice(landing: Path, day: date) -> None:
    """Every file of the Parquet logs lies there a second time under another name, and so do those of the day before."""
    for log in ("shopping/impressions", "shopping/engagements"):
        folder = landing / log / day.isoformat()
        before = folder.parent / date.fromordinal(day.toordinal() - 1).isoformat()
        for path in (*parts(landing, log, day), *sorted(before.glob("part-*"))):
            shutil.copy2(path, folder / f"part-again-{path.parent.name}-{path.name}")


def cut_off(landing: Path, day: date) -> None:
    """A gzip file ends in the middle."""
    path = parts(landing, "standard/engagements", day)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Path(path.parent / f".{path.name}.crc").unlink(missing_ok=True)


def redelivered(landing: Path, day: date) -> None:
    """A log comes anew with its rows in another order and under another name."""
    rewrite(landing, day, lambda lines: lines[::-1])


def ten_times(landing: Path, day: date) -> None:
    """Every impression of a source comes nine times more, each under an id of its own."""

    def under(number: int, line: bytes) -> bytes:
        return re.sub(rb'("request_id":")', rb"\g<1>again-%d-" % number, line)

    rewrite(landing, day, lambda lines: lines + [under(number, line) for number in range(9) for line in lines])


def a_tenth(landing: Path, day: date) -> None:
    """Nine impressions in ten of a source are lost, and every file is whole."""
    rewrite(landing, day, lambda lines: lines[::10])


def rewrite(landing: Path, day: date, changed: Callable[[list[bytes]], list[bytes]]) -> None:
    """The lines of the gzipped impressions, changed, in files of other names."""
    for path in parts(landing, "standard/impressions", day):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.with_name(f"part-anew-{path.name}").write_bytes(gzip.compress(b"".join(changed(lines))))
        os.remove(path)


FAULTS = (
    Fault("late file", INPUT, late),
    Fault("missing optional source", DONE, missing_optional),
    Fault("duplicates", DONE, delivered_twice),
    Fault("corrupt file", INPUT, cut_off),
    Fault("ten times the rows", VALIDATION, ten_times),
    Fault("a tenth of the rows", VALIDATION, a_tenth),
    Fault("re-delivery", DONE, redelivered),
)
