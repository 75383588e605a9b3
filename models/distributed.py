"""Ranks and what they exchange, behind one seam; the only file that imports Horovod.

A rank is one process of a training. `launch` runs the same function on every rank; it talks to the others through a `Collective`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor

from conf.schema import Training
from models.errors import SlotsMissing, TrainingFailed
from models.rank_voices import SILENT_SECONDS, Ears, Failure, Heard, Relay, Voice

STALL_WARNING_SECONDS = 60
LAST_SECONDS = 5.0  # of the ranks that are left, once one has failed


class Collective(Protocol):
    """What ranks do together. Every rank must make the same calls in the same order."""

    rank: int
    size: int
    device: torch.device

    def sum_(self, flat: Tensor) -> None:
        """Replace `flat` on every rank by its sum over ranks."""

    def gather_rows(self, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(ids [U], rows [U, E]) of all ranks, one rank after the other; U may differ between ranks."""

    def broadcast_(self, tensor: Tensor) -> None:
        """Replace `tensor` on every rank by rank 0's."""

    def barrier(self) -> None:
        """Wait until every rank is here."""


class SingleProcess:
    """One rank, nothing to exchange."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def sum_(self, flat: Tensor) -> None:
        pass

    def gather_rows(self, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return ids, rows

    def broadcast_(self, tensor: Tensor) -> None:
        pass

    def barrier(self) -> None:
        pass


class HorovodCollective:
    """Horovod's ranks, over gloo between CPUs, over NCCL between GPUs where Horovod was built with it."""

    def __init__(self, hvd: Any) -> None:
        self.hvd, self.rank, self.size = hvd, hvd.rank(), hvd.size()
        on_gpu = torch.cuda.is_available() and hvd.nccl_built()
        self.device = torch.device("cuda", hvd.local_rank()) if on_gpu else torch.device("cpu")

    def sum_(self, flat: Tensor) -> None:
        self.hvd.allreduce_(flat, op=self.hvd.Sum, name="dense")

    def gather_rows(self, ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        handles = self.hvd.allgather_async(ids.contiguous(), name="ids"), self.hvd.allgather_async(rows.contiguous(), name="rows")
        return self.hvd.synchronize(handles[0]), self.hvd.synchronize(handles[1])

    def broadcast_(self, tensor: Tensor) -> None:
        self.hvd.broadcast_(tensor, root_rank=0, name="start")

    def barrier(self) -> None:
        self.hvd.barrier()


def launch(training: Training, work: Callable[..., Any], *args: Any) -> Any:
    """Run `work(collective, *args)` on every rank; returns rank 0's result. An error on any rank becomes TrainingFailed.

    backend single: one rank, in this process (`training.ranks` counts Horovod's). backend horovod_spark: `training.ranks` Spark tasks at
    once, each with a process of its own; needs a running SparkContext with that many slots. `work` must be importable in that process.
    A rank that no longer answers ends all of them after `training.stall_shutdown_seconds`.
    """
    if training.backend == "single":
        try:
            return work(SingleProcess(), *args)
        except Exception as error:
            raise _failed(_failure(0, error), 1) from error
    _require_slots(training)
    return _on_spark(training, work, args)


def _failure(rank: int, error: Exception) -> Failure:
    knock_on = type(error).__name__ == "HorovodInternalError"
    return Failure(rank, f"{type(error).__name__}: {error}", traceback.format_exc(), knock_on)


def _failed(failure: Failure, ranks: int) -> TrainingFailed:
    return TrainingFailed(f"training failed on rank {failure.rank} of {ranks}: {failure.error}", failure.trace)


def _on_rank(work: Callable[..., Any], args: tuple[Any, ...], address: tuple[str, int], key: bytes) -> Any:
    """In a rank's own process."""
    import horovod.torch as hvd

    rank = int(os.environ["HOROVOD_RANK"])
    sys.stderr = voice = Voice(rank, address, key)
    try:
        hvd.init()
        result = work(HorovodCollective(hvd), *args)
    except Exception as error:
        # Said here, as Horovod hands on results alone. And out at once: leaving in good order would wait for ranks that may never answer.
        voice.failed(_failure(rank, error))
        os._exit(1)
    voice.done()
    hvd.shutdown()
    return result


def _on_spark(training: Training, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    from horovod.spark import run

    context, heard = _spark_context(), Heard()
    local = context.master.startswith("local")
    ears = Ears("127.0.0.1" if local else "0.0.0.0", heard)  # executors must reach it, and need the key
    host = "127.0.0.1" if local else context.getConf().get("spark.driver.host")
    try:
        with _signal_handlers_kept(), _ended_together(context, heard, training.stall_shutdown_seconds):
            of_ranks = run(
                _on_rank,
                args=(work, args, (host, ears.port), ears.key),
                num_proc=training.ranks,
                start_timeout=training.start_timeout_seconds,
                use_gloo=True,
                env=_environment(training),
                stdout=Relay(),
                stderr=Relay(),
                verbose=0,
                # On one machine the ranks talk over loopback alone; on a cluster Horovod looks for an interface they share.
                nics=_loopback() if local else None,
                executable=os.environ.get("PYSPARK_PYTHON") or sys.executable,
            )
    except Exception as error:
        raise _why(heard, training, error) from error
    finally:
        ears.close()
    return of_ranks[0]


@contextmanager
def _ended_together(context: Any, heard: Heard, patience_seconds: float) -> Iterator[None]:
    """Once a rank has failed, died or been silent for too long, the others have some seconds to end; Horovod would wait without end for
    one that is stopped."""
    from horovod.spark.driver import job_id

    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            silent = heard.silent(patience_seconds)
            if heard.failures or heard.lost or silent:
                heard.stopped = silent or heard.silent(SILENT_SECONDS)
                if not over.wait(LAST_SECONDS):
                    # The name that horovod.spark.run gives the Spark job of its ranks; with their tasks go their processes.
                    context.cancelJobGroup(f"horovod.spark.run.{job_id.JOB_ID}")
                return

    threading.Thread(target=watch, name="watch ranks", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _why(heard: Heard, training: Training, error: Exception) -> TrainingFailed:
    """What ended the ranks: the words of the one that failed, else who fell silent or was lost, else what Horovod says."""
    cause, ranks = heard.cause(), training.ranks
    if cause:
        return _failed(cause, ranks)
    if heard.stopped:
        named = " and ".join(f"rank {rank} on {heard.hosts.get(rank, '?')} for {seconds:.0f} s" for rank, seconds in heard.stopped.items())
        return TrainingFailed(
            f"of {ranks} ranks one no longer answered, so all were ended: nothing was heard from {named}; its process was stopped, or "
            f"starved of CPU or memory. If it was only slow, raise training.stall_shutdown_seconds (now {training.stall_shutdown_seconds})"
        )
    if heard.lost:
        named = f"rank {heard.lost[0]} on {heard.hosts.get(heard.lost[0], '?')}"
        return TrainingFailed(
            f"of {ranks} ranks one ended before its work was done, without a word: {named} was killed; if it was for memory, lower "
            f"training.batch_size"
        )
    return TrainingFailed(
        f"a training process ended before its work was done ({type(error).__name__}: {' '.join(str(error).split())}); if it did not start "
        f"in time, raise training.start_timeout_seconds"
    )


def _environment(training: Training) -> dict[str, str]:
    """Of a rank's process, on top of its Spark task's."""
    threads = max(1, min(_slots(), os.cpu_count() or 1) // training.ranks)
    root = str(Path(__file__).resolve().parents[1])
    return {
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait for each other sleep instead of spinning: on busy cores spinning costs nine tenths of the speed and more.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(STALL_WARNING_SECONDS),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(training.stall_shutdown_seconds),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(training.stall_shutdown_seconds),
        # From a checkout, not installed: the rank finds models/ where the driver does.
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _spark_context() -> Any:
    # Horovod's own reference, the one it will use; models/ itself does not depend on pyspark.
    from horovod.spark import runner

    context = runner.pyspark.SparkContext._active_spark_context
    if context is None:
        raise TrainingFailed(
            "training.backend is horovod_spark and no SparkContext is running; start Spark first, or set training.backend to single"
        )
    return context


def _slots() -> int:
    """How many tasks Spark runs at once."""
    context = _spark_context()
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?|local-cluster\[(\d+),(\d+),\d+\]", context.master.replace(" ", ""))
    if local is None:
        cores = context.defaultParallelism
    elif local[2]:
        cores = int(local[2]) * int(local[3])
    else:
        cores = (os.cpu_count() or 1) if local[1] == "*" else int(local[1] or 1)
    return cores // int(context.getConf().get("spark.task.cpus", "1"))


def _require_slots(training: Training) -> None:
    slots = _slots()
    if slots < training.ranks:
        raise SlotsMissing(
            f"training.ranks is {training.ranks}, and spark.master {_spark_context().master} runs {slots} tasks at once; "
            f"set training.ranks to {slots} or fewer, or give spark.master {training.ranks} slots (local[{training.ranks}])"
        )


def _loopback() -> set[str]:
    return {name for name, addresses in psutil.net_if_addrs().items() if any(address.address == "127.0.0.1" for address in addresses)}


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Horovod's launcher replaces the handlers of SIGINT and SIGTERM and leaves its own behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
