"""Processes of this machine, which may end while they are looked at, and those of one trial, wherever they were started from."""

from __future__ import annotations

import psutil

MARK = "ADTOWER_TRIAL"  # in the environment of a trial's processes: how those that outlive it are found


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of one that has ended, even if it is a zombie still."""
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []


def is_horovod_rank(process: psutil.Process) -> bool:
    """A rank of Horovod on Spark, not the shell that started it, whose last word holds the same text."""
    return "horovod.spark.task.gloo_exec_fn" in words_of(process)


def marked(mark: str) -> list[psutil.Process]:
    """The living processes whose environment has MARK=`mark`."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == mark and bool(words_of(process))
        except psutil.Error:  # another user's, or it has ended meanwhile
            return False

    return [process for process in psutil.process_iter() if lives(process)]
