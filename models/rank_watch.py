"""What the process that started ranks does for them: what they need to know, an end for all once one has failed, and words for why."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from conf.training import Training
from models import logs
from models.errors import RanksLost, TrainingFailed
from models.rank_voices import ON_TERMINAL, SILENT_SECONDS, Failure, Heard

STALL_WARNING_SECONDS = 60
LAST_SECONDS = 5.0  # of the ranks that are left, once one has failed


def threads_here(slots: int, ranks: int) -> int:
    """Of each rank, where all of them share this machine."""
    return max(1, min(slots, os.cpu_count() or 1) // ranks)


def rank_environment(training: Training, threads: int) -> dict[str, str]:
    """Of a rank's process, on top of what it finds."""
    root = str(Path(__file__).resolve().parents[1])
    return {
        ON_TERMINAL: "1" if sys.stderr.isatty() else "0",
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait for each other sleep instead of spinning: on busy cores spinning costs nine tenths of the speed and more.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(STALL_WARNING_SECONDS),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(training.stall_shutdown_seconds),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(training.stall_shutdown_seconds),
        # From a checkout, not installed: the rank finds models/ where the driver does.
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        **logs.for_ranks(),
    }


def loopback() -> list[str]:
    """The interfaces that ranks of one machine talk over."""
    return [name for name, addresses in psutil.net_if_addrs().items() if any(address.address == "127.0.0.1" for address in addresses)]


@contextmanager
def ended_together(heard: Heard, patience_seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Once a rank has failed, died or been silent for too long, the others have some seconds to end themselves, then `end` does; for one
    that is stopped they would wait without end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            silent = heard.silent(patience_seconds)
            if heard.failures or heard.lost or silent:
                heard.stopped = silent or heard.silent(SILENT_SECONDS)
                if not over.wait(LAST_SECONDS):
                    heard.given_up = True
                    end()
                return

    threading.Thread(target=watch, name="watch ranks", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def failed_rank(failure: Failure, ranks: int) -> TrainingFailed:
    return TrainingFailed(f"training failed on rank {failure.rank} of {ranks}: {failure.error}", failure.trace)


def why(heard: Heard, training: Training, error: BaseException) -> TrainingFailed:
    """What ended the ranks: the words of the one that failed, else who fell silent, was lost or came late, else what the launcher says."""
    cause, ranks = heard.cause(), training.ranks
    if cause:
        return failed_rank(cause, ranks)
    if heard.stopped:
        named = " and ".join(f"{heard.name(rank)} for {seconds:.0f} s" for rank, seconds in heard.stopped.items())
        return RanksLost(
            f"of {ranks} ranks one no longer answered, so all were ended: nothing was heard from {named}; its process was stopped, or "
            f"starved of CPU or memory. If it was only slow, raise training.stall_shutdown_seconds (now {training.stall_shutdown_seconds})"
        )
    unheard = [rank for rank in range(ranks) if rank not in heard.hosts]
    if unheard and (heard.lost or heard.failures):
        gone = heard.name(heard.lost[0]) if heard.lost else f"rank {heard.failures[0].rank} ({heard.failures[0].error})"
        return RanksLost(
            f"of {ranks} ranks nothing was ever heard from {', '.join(f'rank {rank}' for rank in unheard)}, and {gone} ended before its work "
            f"was done: it waited for the other, whose process was stopped, starved of CPU or memory, or cannot reach this one, or was "
            f"itself killed. If ranks are only slow to start, raise training.stall_shutdown_seconds (now {training.stall_shutdown_seconds})"
        )
    if heard.lost:
        return RanksLost(
            f"of {ranks} ranks one ended before its work was done, without a word: {heard.name(heard.lost[0])} was killed; if it was for "
            f"memory, lower training.batch_size"
        )
    if heard.failures:
        behind = heard.behind()
        slow = f"{' and '.join(map(heard.name, behind))} did not come to the exchange that the others waited in; " if behind else ""
        return RanksLost(
            f"the {ranks} ranks lost each other: {slow}rank {heard.failures[0].rank} says {heard.failures[0].error}. If one was only slow, "
            f"raise training.stall_shutdown_seconds (now {training.stall_shutdown_seconds})",
            heard.failures[0].trace,
        )
    return TrainingFailed(
        f"a training process ended before its work was done ({type(error).__name__}: {_words(error)}); if it did not start in time, raise "
        f"training.start_timeout_seconds"
    )


def _words(error: BaseException) -> str:
    """In one line; of an error in Java what it says, without its calls."""
    of_java = [line.removeprefix(": ") for line in str(error).splitlines() if line.startswith(": ")]
    return of_java[0] if of_java else " ".join(str(error).split())
