"""What ranks run in tests; in a module of its own, since a rank's process imports it by name."""

from __future__ import annotations

import atexit
import os
import signal
import time
from dataclasses import dataclass

import torch

from models.batches import read_batches, shards_of
from models.collectives import Collective
from models.manifest import read_manifest
from models.trainer import TrainRequest, TrainResult, train_on_rank


@dataclass(frozen=True)
class Seen:
    batches: list[list[int]]
    sums: list[float]
    first: int
    trained: TrainResult


def seen_then_trained(collective: Collective, request: TrainRequest) -> Seen:
    """The `row` ids of every global batch of an epoch, in the order of shards, padding left out; what is summed and broadcast; then a
    training."""
    manifest = read_manifest(request.snapshot)
    shards = shards_of(collective.rank, collective.size, len(manifest.shards))
    batches = []
    for batch in read_batches(manifest, request.training.batch_size, shards, epoch=0, seed=request.seed):
        ids, weight = collective.gather(batch.features.ids_BF[:, -1])(), collective.gather(batch.weight_B)()
        batches.append(ids[weight > 0].tolist())
    sums = torch.tensor([float(collective.rank), 1.0])
    collective.sum_(sums)
    first = torch.tensor(collective.rank + 7)
    collective.broadcast_(first)
    return Seen(batches, sums.tolist(), int(first), train_on_rank(collective, request))


def how_many(collective: Collective) -> int:
    """The ranks, counted by each other."""
    ones = torch.ones(1)
    collective.sum_(ones)
    return int(ones)


def abort_if_taken_down(collective: Collective) -> int:
    """The ranks, of which every process aborts once its interpreter is taken down."""
    atexit.register(os.abort)
    return how_many(collective)


def fail_on_rank_1(collective: Collective) -> None:
    """Rank 1 breaks; rank 0 waits for it."""
    if collective.rank == 1:
        raise ValueError("a bad file")
    collective.sum_(torch.zeros(1))


def stop_rank_1(collective: Collective) -> None:
    """Rank 1 is stopped, as by a debugger or a machine that swaps; rank 0 waits for it."""
    if collective.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collective.sum_(torch.zeros(1))


def kill_rank_1(collective: Collective) -> None:
    """Rank 1 is killed, as for memory; rank 0 waits for it."""
    if collective.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    collective.sum_(torch.zeros(1))


def hold_up_rank_1(collective: Collective) -> None:
    """Rank 1 lives and does something else; rank 0 waits for it."""
    collective.sum_(torch.zeros(1))
    if collective.rank == 1:
        time.sleep(600)
    collective.sum_(torch.zeros(1))


def sleep_long(collective: Collective) -> None:
    """As long as no test waits."""
    time.sleep(600)
