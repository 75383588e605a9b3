"""Processes of this machine, which may end while they are looked at."""

from __future__ import annotations

import psutil


def command_of(process: psutil.Process) -> str:
    """Its command line; "" for one that has ended, a zombie too, which has none left."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.Error:
        return ""
