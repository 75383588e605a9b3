"""What an error says of the disk: full, or not to be written; with the places that a night writes to, and what is free there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from py4j.protocol import Py4JJavaError

FULL = ("No space left on device", "Disk quota exceeded")
CLOSED = ("Read-only file system", "Permission denied")


@dataclass(frozen=True)
class DiskTrouble:
    """`full`: time or a person mends it; else the place is closed to us, which is a matter of configuration."""

    message: str
    full: bool


def disk_trouble(error: BaseException, places: Mapping[str, str | Path]) -> DiskTrouble | None:
    """None where the error is of something else. `places`: what each is called -> folder."""
    told = "\n".join(_texts(error))
    if any(sign in told for sign in FULL):
        free = "; ".join(f"{name} {path} has {_megabytes(path)} free" for name, path in places.items())
        return DiskTrouble(
            f"no space left on a disk: {free}. Nothing is half done: free some space, and run the same command again", full=True
        )
    sign = next((sign for sign in CLOSED if sign in told), None)
    if sign is None:
        return None
    line = next(line.strip() for line in told.splitlines() if sign in line)
    closed = [f"{name} {path}" for name, path in places.items() if not os.access(path, os.W_OK)]
    return DiskTrouble(
        f"{' and '.join(closed) or 'a file'} cannot be written ({line}); give the user that runs the night the right to", full=False
    )


def _texts(error: BaseException | None) -> Iterator[str]:
    """What an error and those beneath it say, Java's among them."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        if isinstance(error, Py4JJavaError):
            yield from _java(error.java_exception)
        elif (origin := getattr(error, "_origin", None)) is not None:
            yield from _java(origin)
        error = error.__cause__ or error.__context__


def _java(thrown: object) -> Iterator[str]:
    for _ in range(20):
        if thrown is None:
            return
        yield str(thrown.toString())  # type: ignore[attr-defined]
        thrown = thrown.getCause()  # type: ignore[attr-defined]


def _megabytes(path: str | Path) -> str:
    here = Path(path)
    while not here.exists():
        here = here.parent
    return f"{shutil.disk_usage(here).free / 1e6:,.1f} MB"
