"""What the ranks of a training do together, whoever started them: one seam, and what stands behind it.

Shapes: U rows of a rank, which may differ between ranks; E their width.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """Every rank must make the same calls in the same order."""

    rank: int
    size: int
    device: torch.device

    def sum_(self, flat: Tensor) -> None:
        """Replace `flat` on every rank by its sum over ranks."""

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        """Begin to gather `rows` [U, ...]; what it returns waits for those of all ranks, one rank after the other. U may differ."""

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

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        return lambda: rows

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

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        return partial(self.hvd.synchronize, self.hvd.allgather_async(rows.contiguous(), name="rows"))

    def broadcast_(self, tensor: Tensor) -> None:
        self.hvd.broadcast_(tensor, root_rank=0, name="start")

    def barrier(self) -> None:
        self.hvd.barrier()

    def leave(self) -> None:
        self.hvd.shutdown()


class TorchCollective:
    """torch.distributed's ranks on one machine, which meet in a file: over NCCL between GPUs where each rank has its own, else over gloo.

    What lies on the CPU is exchanged over gloo in any case. An exchange that waits for longer than `patience` is an error.
    """

    def __init__(self, rank: int, size: int, meeting: Path, patience: timedelta) -> None:
        self.rank, self.size = rank, size
        on_gpu = torch.cuda.device_count() >= size
        self.device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(self.device)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=size, timeout=patience)

    def sum_(self, flat: Tensor) -> None:
        dist.all_reduce(flat)

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        lengths = [int(count) for count in counts]
        # Only equal shapes can be gathered: each rank's rows are filled up to the longest rank's, and cut again.
        filled = rows.new_zeros(max(lengths), *rows.shape[1:])
        filled[: len(rows)] = rows
        of_all = [torch.empty_like(filled) for _ in lengths]
        under_way = dist.all_gather(of_all, filled, async_op=True)

        def gathered() -> Tensor:
            under_way.wait()
            return torch.cat([part[:length] for part, length in zip(of_all, lengths, strict=True)])

        return gathered

    def broadcast_(self, tensor: Tensor) -> None:
        dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        dist.all_reduce(torch.zeros(1))  # dist.barrier would have to guess the device

    def leave(self) -> None:
        dist.destroy_process_group()


def summed(collective: Collective, flat: Tensor, ids_U: Tensor, ids_of_all: Tensor, rows_UE: Tensor) -> tuple[Tensor, Tensor]:
    """Replace `flat` by its sum over ranks, and give the ids of all ranks, ascending and each once, with the sums of their rows.

    One exchange: a small one costs what a large one does. `ids_U` and `rows_UE` are this rank's, `ids_of_all` what ranks gathered of theirs.
    """
    if collective.size == 1:
        return ids_U, rows_UE
    every_id = torch.unique(ids_of_all)
    sums = flat.new_zeros(len(flat) + len(every_id) * rows_UE.shape[1])
    sums[: len(flat)] = flat
    rows = sums[len(flat) :].view(len(every_id), rows_UE.shape[1])
    rows[torch.searchsorted(every_id, ids_U)] = rows_UE
    collective.sum_(sums)
    flat.copy_(sums[: len(flat)])
    return every_id, rows
