"""One run a night: a lock file that the operating system releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path

UPKEEP = "upkeep"


class LockHeld(RuntimeError):
    """Another run of the same night is under way, or the tables are being tidied."""


@contextmanager
def night_lock(workdir: str | Path, day: date, run_id: str) -> Iterator[None]:
    """Hold `<workdir>/locks/<day>.lock`; raise LockHeld, naming the holder, if another process does, or while the tables are tidied.

    The lock is the kernel's (flock), so a holder that was killed holds nothing and there is no stale lock to judge; the text in the file
    only tells people who holds it. So the working folder must lie on a file system that all drivers of an environment share.
    """
    with (
        _held(workdir, day.isoformat(), fcntl.LOCK_EX, run_id, f"the night of {day} is being run by"),
        _held(workdir, UPKEEP, fcntl.LOCK_SH, None, "rows are being removed from the tables by"),
    ):
        yield


@contextmanager
def upkeep_lock(workdir: str | Path, run_id: str) -> Iterator[None]:
    """No night runs, nor begins, while rows and files are removed from under the tables; raise LockHeld while one does."""
    with _held(workdir, UPKEEP, fcntl.LOCK_EX, run_id, "a night is being run, or rows are being removed already, by"):
        yield


@contextmanager
def _held(workdir: str | Path, name: str, kind: int, owner: str | None, taken: str) -> Iterator[None]:
    path = Path(workdir) / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = file.read().strip() or "; ".join(_holders(path.parent)) or "another process"
            raise LockHeld(f"{taken} {who}; lock {path}") from error
        if owner is None:
            yield
            return
        told = {"run_id": owner, "host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        with suppress(OSError):  # the text is for people: the lock holds on a full disk too
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(told).encode())
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(file.fileno(), 0)


def _holders(locks: Path) -> Iterator[str]:
    """What stands in the locks that are held: the text of a holder that was killed stays, and is passed over."""
    for path in sorted(locks.glob("*.lock")):
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield file.read().strip()
