"""One run a night: a lock file that the operating system releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path


class LockHeld(RuntimeError):
    """Another run of the same night is under way."""


@contextmanager
def night_lock(workdir: str | Path, day: date, run_id: str) -> Iterator[None]:
    """Hold `<workdir>/locks/<day>.lock`; raise LockHeld, naming the holder, if another process does.

    The lock is the kernel's (flock), so a holder that was killed holds nothing and there is no stale lock to judge; the text in the file
    only tells people who holds it. So the working folder must lie on a file system that all drivers of an environment share.
    """
    path = Path(workdir) / "locks" / f"{day.isoformat()}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise LockHeld(f"the night of {day} is being run by {file.read().strip() or 'another process'}; lock {path}") from error
        owner = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def require_no_night(workdir: str | Path) -> None:
    """Raise LockHeld, naming the holder, while any night is being run. Takes no lock itself: a night may begin right after."""
    for path in sorted((Path(workdir) / "locks").glob("*.lock")):
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LockHeld(
                    f"the night of {path.stem} is being run by {file.read().strip() or 'another process'}; run this once it has ended"
                ) from error
