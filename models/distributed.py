"""Horovod: ranks as Spark tasks, and how a rank that its launcher started joins; the only file that imports Horovod."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from conf.training import Training
from models.collectives import HorovodCollective
from models.errors import SlotsMissing, TrainingFailed
from models.rank import as_rank
from models.rank_voices import Ears, Heard, Relay, Voice
from models.rank_watch import ended_together, loopback, rank_environment, threads_here, why

LOOPBACK = ("127.0.0.1", "localhost")
#: Milliseconds between two of Horovod's looks at what there is to exchange. At every look ranks talk to each other, which on a CPU takes from the
#: layers: with 1, Horovod's own, two ranks on two cores trained .87 times as fast as with 5 (six rounds in turns, .72 to 1.01).
CYCLE_MS = "5"


def join_horovod() -> HorovodCollective:
    import horovod.torch as hvd

    if not torch.cuda.is_available():
        os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_MS)
    hvd.init()
    return HorovodCollective(hvd)


def nccl_built() -> bool:
    import horovod.torch as hvd

    return bool(hvd.nccl_built())


def run_on_spark(training: Training, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """`training.ranks` Spark tasks at once, each with a rank's process of its own; needs a running SparkContext with that many slots."""
    from horovod.spark import run
    from horovod.spark.driver import job_id

    _require_slots(training)
    context, heard = _spark_context(), Heard()
    local = context.master.startswith("local")
    host = "127.0.0.1" if local else context.getConf().get("spark.driver.host")
    one_machine = host in LOOPBACK  # also of a cluster, whose executors reach the driver there
    ears = Ears(host if one_machine else "0.0.0.0", heard)  # executors must reach it, and need the key
    environment = rank_environment(training, threads_here(_slots(), training.ranks) if local else _cores_a_task())
    if not local:
        del environment["PYTHONPATH"]  # a rank finds the code, and Spark, where its executor does

    def end() -> None:
        # The name that horovod.spark.run gives the Spark job of its ranks; with their tasks go their processes.
        context.cancelJobGroup(f"horovod.spark.run.{job_id.JOB_ID}")

    try:
        with (
            _signals_heard(),
            _rendezvous_ended(),
            _spark_job_heard() as of_job,
            ended_together(heard, training.stall_shutdown_seconds, end),
        ):
            of_ranks = run(
                _on_rank,
                args=(work, args, (host, ears.port), ears.key),
                num_proc=training.ranks,
                start_timeout=training.start_timeout_seconds,
                use_gloo=True,
                env=environment,
                stdout=Relay(),
                stderr=Relay(),
                verbose=0,
                # On one machine the ranks talk over loopback alone; on a cluster Horovod looks for an interface they share.
                nics=set(loopback()) if one_machine else None,
                executable=os.environ.get("PYSPARK_PYTHON") or sys.executable,
            )
    except Exception as error:
        ended = next((of_itself for of_itself in of_job if "SPARK_JOB_CANCELLED" not in str(of_itself)), error)
        raise why(heard, training, ended) from error
    finally:
        ears.close()
    return of_ranks[0]


def _on_rank(work: Callable[..., Any], args: tuple[Any, ...], address: tuple[str, int], key: bytes) -> Any:
    """In a rank's own process."""
    return as_rank(Voice(int(os.environ["HOROVOD_RANK"]), address, key), join_horovod, work, args)


def _spark_context() -> Any:
    # Horovod's own reference, the one it will use; models/ itself does not depend on pyspark.
    from horovod.spark import runner

    context = runner.pyspark.SparkContext._active_spark_context
    if context is None:
        raise TrainingFailed(
            "training.backend is horovod_spark and no SparkContext is running; start Spark first, or set training.backend to "
            "horovodrun, torch or single"
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
    return cores // _cores_a_task()


def _cores_a_task() -> int:
    return int(_spark_context().getConf().get("spark.task.cpus", "1"))


def _require_slots(training: Training) -> None:
    slots = _slots()
    if slots < training.ranks:
        raise SlotsMissing(
            f"training.ranks is {training.ranks}, and spark.master {_spark_context().master} runs {slots} tasks at once; "
            f"set training.ranks to {slots} or fewer, or give spark.master {training.ranks} slots (local[{training.ranks}])"
        )


@contextmanager
def _signals_heard() -> Iterator[None]:
    """Horovod's launcher takes SIGINT and SIGTERM, ends its ranks, and forgets whose signal it was: it is the driver's, once they have ended."""
    from horovod.runner import gloo_run

    plain, got = gloo_run.register_shutdown_event, []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def told() -> threading.Event:
        end = threading.Event()

        def stop(number: int, frame: object) -> None:
            got.append(number)
            end.set()

        for number in before:
            signal.signal(number, stop)
        return end

    gloo_run.register_shutdown_event = told
    try:
        yield
    finally:
        gloo_run.register_shutdown_event = plain
        for number, handler in before.items():
            signal.signal(number, handler)
        if got:
            signal.raise_signal(got[0])


@contextmanager
def _spark_job_heard() -> Iterator[list[BaseException]]:
    """What ended the Spark job of the ranks. Horovod leaves it to Python, which prints it with sixty lines of Java's calls, below which the
    words for what ended the training are not found; mostly it says no more than that the job was cancelled with the other ranks."""
    plain, kept = threading.excepthook, list[BaseException]()

    def told(of: threading.ExceptHookArgs) -> None:
        if of.thread is not None and of.thread.name.endswith("(run_spark)") and of.exc_value is not None:
            kept.append(of.exc_value)
        else:
            plain(of)

    threading.excepthook = told
    try:
        yield kept
    finally:
        threading.excepthook = plain


@contextmanager
def _rendezvous_ended() -> Iterator[None]:
    """Horovod's launcher leaves the server by which ranks find each other listening, on every interface: it is closed with the training."""
    from horovod.runner import gloo_run

    plain, begun = gloo_run.RendezvousServer, []

    def remembered(*given: Any) -> Any:
        begun.append(plain(*given))
        return begun[-1]

    gloo_run.RendezvousServer = remembered
    try:
        yield
    finally:
        gloo_run.RendezvousServer = plain
        for server in begun:
            if server._httpd is not None:
                server.stop()
                server._httpd.server_close()
