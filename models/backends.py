"""How the ranks of a training are started: one function, four backends, the same weights within rounding.

A rank is one process of a training; it talks to the others through a `Collective` (models/collectives.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conf.training import Training
from models.collectives import SingleProcess
from models.distributed import run_on_spark
from models.processes import run_here
from models.rank import failure_of
from models.rank_watch import failed_rank


def launch(training: Training, work: Callable[..., Any], *args: Any) -> Any:
    """Run `work(collective, *args)` on every rank; returns rank 0's result. An error on any rank becomes TrainingFailed.

    backend single: one rank, in this process (`training.ranks` counts the others'). horovod_spark: a Spark task a rank. horovodrun, torch: a
    process of this machine a rank. `work` must be importable in a rank's process. More ranks than there are slots is SlotsMissing, at once.
    A rank that no longer answers ends all of them after `training.stall_shutdown_seconds`.
    """
    if training.backend == "single":
        try:
            return work(SingleProcess(), *args)
        except Exception as error:
            raise failed_rank(failure_of(0, error), 1) from error
    return (run_on_spark if training.backend == "horovod_spark" else run_here)(training, work, args)
