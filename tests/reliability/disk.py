"""A working folder on a disk of its own whose size is set while a night runs: a tmpfs, which only root can mount."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOMY = 2_000_000_000


def may_mount() -> bool:
    """Whether this user can have a disk of its own."""
    with TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@contextmanager
def disk_of_its_own(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(folder: Path, free: int | None) -> None:
    """So many bytes more can be written there; None: plenty."""
    size = ROOMY if free is None else shutil.disk_usage(folder).used + free
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
