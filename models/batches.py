"""Snapshot -> batches of tensors, by Petastorm; the only file that imports it.

V virtual shards, one Parquet file each, fix the batches: a global batch of B rows takes B/V of every shard, so any number of ranks that
divides V sees the same batches. The rows of a shard lie in seeded hash order; an epoch permutes them inside each row group by (seed, epoch,
shard), so a rank holds one row group a shard in memory, not the shard.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from petastorm import make_batch_reader
from torch import Tensor

from models.columns import Arrays, Columns
from models.errors import SnapshotUnreadable
from models.losses import conditional
from models.manifest import Manifest, Shard
from models.representation import Features

AHEAD = 4  # batches prepared while one is trained on


@dataclass(frozen=True)
class Batch:
    """B rows of a rank's shards, in the order of the shards. Padding rows have weight 0 and known 0."""

    features: Features
    labels_BH: Tensor  # float32, 1 or 0; 0 where not known
    known_BH: Tensor  # float32, 1 where the head's loss counts the row
    weight_B: Tensor  # float32

    def to(self, device: torch.device) -> Batch:
        moved = (tensor.to(device, non_blocking=True) for tensor in (self.labels_BH, self.known_BH, self.weight_B))
        return Batch(self.features.to(device), *moved)


class Rows(NamedTuple):
    """Some rows of one shard."""

    arrays: Arrays
    labels: np.ndarray  # int8 [N, H]: 1, 0, -1 = masked
    weight: np.ndarray  # float32 [N]

    def taken(self, index: np.ndarray | slice) -> Rows:
        return Rows(Arrays(*(array[index] for array in self.arrays)), self.labels[index], self.weight[index])

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        arrays = Arrays(*(np.concatenate(pieces) for pieces in zip(*(part.arrays for part in parts), strict=True)))
        return Rows(arrays, np.concatenate([part.labels for part in parts]), np.concatenate([part.weight for part in parts]))


def shards_of(rank: int, ranks: int, virtual_shards: int) -> range:
    """The virtual shards that a rank reads; joined in the order of ranks, the ranks' batches are the global batch."""
    if virtual_shards % ranks:
        raise SnapshotUnreadable(
            f"{ranks} ranks do not divide the snapshot's {virtual_shards} virtual shards; set training.ranks to a divisor"
        )
    each = virtual_shards // ranks
    return range(rank * each, (rank + 1) * each)


def steps_an_epoch(manifest: Manifest, batch_size: int) -> int:
    """The same on every rank: ceil(rows of the largest shard / rows that a batch takes of it)."""
    return -(-max(shard.rows for shard in manifest.shards) // rows_a_shard(manifest, batch_size))


def rows_a_shard(manifest: Manifest, batch_size: int) -> int:
    each, rest = divmod(batch_size, len(manifest.shards))
    if rest or not each:
        raise SnapshotUnreadable(
            f"training.batch_size is {batch_size}; the snapshot has {len(manifest.shards)} virtual shards: make it a multiple of that"
        )
    return each


def read_batches(manifest: Manifest, batch_size: int, shards: range, epoch: int, seed: int, skip_steps: int = 0) -> Iterator[Batch]:
    """The local part of every global batch of one epoch, from step `skip_steps` on, prepared in a background thread.

    Raises SnapshotUnreadable where a shard gives more or fewer rows than the manifest says: Petastorm can end early without an error.
    """
    columns, parents = Columns(manifest.template, len(manifest.towers)), manifest.parents
    count, steps = rows_a_shard(manifest, batch_size), steps_an_epoch(manifest, batch_size)
    slices = [_slices(manifest, columns, shard, count, steps, np.random.default_rng((seed, epoch, shard))) for shard in shards]
    steps_of_rows = islice(zip(*slices, strict=True), skip_steps, None)
    return _ahead(_batch(Rows.joined(list(parts)), parents) for parts in steps_of_rows)


def _batch(rows: Rows, parents: list[int]) -> Batch:
    labels_BH, known_BH = conditional(torch.from_numpy(rows.labels), parents)
    return Batch(Features.of(rows.arrays), labels_BH, known_BH, torch.from_numpy(rows.weight))


def _slices(manifest: Manifest, columns: Columns, number: int, count: int, steps: int, order: np.random.Generator) -> Iterator[Rows]:
    """`steps` times `count` rows of one shard, padded with rows of weight 0 once the shard is used up."""
    shard, seen = manifest.shards[number], 0
    padding = _padding(columns, len(manifest.heads), count)
    held: list[Rows] = []
    groups = _row_groups(shard, columns, list(manifest.heads)) if shard.path else iter(())
    for _ in range(steps):
        while sum(len(rows.weight) for rows in held) < count and (group := next(groups, None)):
            seen += len(group.weight)
            held.append(group.taken(order.permutation(len(group.weight))))
        if sum(len(rows.weight) for rows in held) < count:
            _require_all_rows(shard, seen)
            held.append(padding)
        rows = Rows.joined(held)
        held = [rows.taken(slice(count, None))]
        yield rows.taken(slice(count))
    _require_all_rows(shard, seen + sum(len(group.weight) for group in groups))


def _require_all_rows(shard: Shard, seen: int) -> None:
    if seen != shard.rows:
        raise SnapshotUnreadable(
            f"{shard.path} gave {seen} rows, the manifest says {shard.rows}; nothing may be trained on part of it. Build the snapshot again"
        )


def _padding(columns: Columns, heads: int, rows: int) -> Rows:
    zeros = {name: np.zeros(rows, np.int32) for name in columns.names} | {"tower": np.full(rows, -1, np.int32)}
    return Rows(columns.arrays(zeros), np.full((rows, heads), -1, np.int8), np.zeros(rows, np.float32))


def _row_groups(shard: Shard, columns: Columns, heads: list[str]) -> Iterator[Rows]:
    """The row groups of one file. The dummy pool: Petastorm 0.13.1's thread pool loses rows (see the row count above)."""
    _silence_petastorm()
    names = [*columns.names, *(f"label_{head}" for head in heads), "weight"]
    reader = make_batch_reader(
        [f"file://{shard.path}"],
        schema_fields=[f"^{name}$" for name in names],
        reader_pool_type="dummy",
        num_epochs=1,
        shuffle_row_groups=False,
    )
    try:
        for group in reader:
            found = group._asdict()
            absent = [name for name in names if name not in found]
            if absent:
                raise SnapshotUnreadable(
                    f"{shard.path} lacks {', '.join(absent)}; build the snapshot again with the template in its manifest"
                )
            labels = np.stack([found[f"label_{head}"].astype(np.int8) for head in heads], axis=1)
            yield Rows(columns.arrays(found), labels, found["weight"].astype(np.float32))
    finally:
        # Not `with reader`: its __exit__ prints to stdout.
        reader.stop()
        reader.join()


def _silence_petastorm() -> None:
    """Petastorm reads through the dataset API that pyarrow 14 is the last to have, and is told so at every read. Other warnings stay."""
    warnings.filterwarnings("ignore", message=r".*deprecated as of (pyarrow )?\d", category=FutureWarning, module=r"petastorm\.")


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, up to AHEAD of them made in advance by a thread; an error in it is raised here."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                _put(ready, batch, stopped)
                if stopped.is_set():
                    return
            _put(ready, None, stopped)
        except BaseException as error:
            _put(ready, error, stopped)

    thread = threading.Thread(target=fill, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _put(ready: queue.Queue, item: object, stopped: threading.Event) -> None:
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            return ready.put(item, timeout=0.1)
