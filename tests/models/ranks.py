"""What ranks run in tests; in a module of its own, since a rank's process imports it by name."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from models.batches import read_batches, shards_of
from models.distributed import Collective
from models.manifest import read_manifest
from models.trainer import TrainRequest, train_on_rank


def seen_then_trained(collective: Collective, request: TrainRequest) -> dict[str, Any]:
    """The `row` ids of every global batch of an epoch, in the order of shards, padding left out; then a training."""
    manifest = read_manifest(request.snapshot)
    shards = shards_of(collective.rank, collective.size, len(manifest.shards))
    batches = []
    for batch in read_batches(manifest, request.training.batch_size, shards, epoch=0, seed=request.seed):
        ids, weight = collective.gather_rows(batch.features.ids_BF[:, -1], batch.weight_B[:, None])
        batches.append(ids[weight[:, 0] > 0].tolist())
    sums = torch.tensor([float(collective.rank), 1.0])
    collective.sum_(sums)
    return {"batches": batches, "sums": sums.tolist(), "trained": train_on_rank(collective, request)}


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
