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
from collections.abc import Iterator, Mapping, Sequence
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
from models.unknown_user import UnknownUser

AHEAD = 4  # batches prepared while one is trained on


@dataclass(frozen=True)
class Batch:
    """B rows of a rank's shards, in the order of the shards. Padding rows have weight 0 and known 0."""

    features: Features
    labels_BH: Tensor  # float32, 1 or 0; 0 where not known
    known_BH: Tensor  # float32, 1 where the head's loss counts the row
    weight_B: Tensor  # float32
    served: Features | None = None  # features of family serving, for a model that has a term of them

    def to(self, device: torch.device) -> Batch:
        labels_BH, known_BH, weight_B = (tensor.to(device, non_blocking=True) for tensor in (self.labels_BH, self.known_BH, self.weight_B))
        served = None if self.served is None else self.served.to(device)
        return Batch(self.features.to(device), labels_BH, known_BH, weight_B, served)


class Rows(NamedTuple):
    """Some rows of one shard, in each of the layouts that are read."""

    layouts: tuple[Arrays, ...]  # of the features, and of those of family serving where the model reads them
    labels: np.ndarray  # int8 [N, H]: 1, 0, -1 = masked
    weight: np.ndarray  # float32 [N]

    def taken(self, index: np.ndarray | slice) -> Rows:
        layouts = tuple(Arrays(*(array[index] for array in arrays)) for arrays in self.layouts)
        return Rows(layouts, self.labels[index], self.weight[index])

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        layouts = tuple(
            Arrays(*(np.concatenate(pieces) for pieces in zip(*same, strict=True)))
            for same in zip(*(part.layouts for part in parts), strict=True)
        )
        return Rows(layouts, np.concatenate([part.labels for part in parts]), np.concatenate([part.weight for part in parts]))


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


def read_batches(
    manifest: Manifest,
    batch_size: int,
    shards: range,
    epoch: int,
    seed: int,
    skip_steps: int = 0,
    serving: bool = False,
    unknown_user_share: float = 0.0,
) -> Iterator[Batch]:
    """The local part of every global batch of one epoch, from step `skip_steps` on, prepared in a background thread.

    `serving`: with `Batch.served`. `unknown_user_share`: of the rows, those without their user (models/unknown_user.py).
    Raises SnapshotUnreadable where a shard gives more or fewer rows than the manifest says: Petastorm can end early without an error.
    """
    layouts = [Columns(manifest.template, len(manifest.towers), serving=which) for which in ((False, True) if serving else (False,))]
    count, steps, heads = rows_a_shard(manifest, batch_size), steps_an_epoch(manifest, batch_size), list(manifest.heads)
    names = {name for columns in layouts for name in columns.names} | {f"label_{head}" for head in heads} | {"weight"}
    padding = _padding(layouts, len(heads), count)

    def slices(number: int) -> Iterator[Rows]:
        shard, order = manifest.shards[number], np.random.default_rng((seed, epoch, number))
        unknown_user = UnknownUser(manifest.template, heads, unknown_user_share, seed, epoch, number)
        groups = (_rows(unknown_user(found), layouts, heads) for found in _row_groups(shard, sorted(names)))
        return _slices(shard, groups, padding, count, steps, order)

    steps_of_rows = islice(zip(*map(slices, shards), strict=True), skip_steps, None)
    return _ahead(_batch(Rows.joined(list(parts)), manifest.parents) for parts in steps_of_rows)


def read_served(manifest: Manifest, shards: range) -> Iterator[tuple[Arrays, np.ndarray]]:
    """(features of family serving, weight [N]) of every row of these shards, a row group at a time."""
    columns = Columns(manifest.template, len(manifest.towers), serving=True)
    for shard in (manifest.shards[number] for number in shards):
        seen = 0
        for found in _row_groups(shard, [*columns.names, "weight"]):
            seen += len(found["weight"])
            yield columns.arrays(found), found["weight"].astype(np.float32)
        _require_all_rows(shard, seen)


def _batch(rows: Rows, parents: list[int]) -> Batch:
    labels_BH, known_BH = conditional(torch.from_numpy(rows.labels), parents)
    features, *served = (Features.of(arrays) for arrays in rows.layouts)
    return Batch(features, labels_BH, known_BH, torch.from_numpy(rows.weight), *served)


def _slices(shard: Shard, groups: Iterator[Rows], padding: Rows, count: int, steps: int, order: np.random.Generator) -> Iterator[Rows]:
    """`steps` times `count` rows of one shard, padded with rows of weight 0 once the shard is used up."""
    seen = 0
    held: list[Rows] = []
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


def _padding(layouts: Sequence[Columns], heads: int, rows: int) -> Rows:
    zeros = {name: np.zeros(rows, np.int32) for columns in layouts for name in columns.names} | {"tower": np.full(rows, -1, np.int32)}
    padding = tuple(columns.arrays(zeros) for columns in layouts)
    return Rows(padding, np.full((rows, heads), -1, np.int8), np.zeros(rows, np.float32))


def _rows(found: Mapping[str, np.ndarray], layouts: Sequence[Columns], heads: Sequence[str]) -> Rows:
    labels = np.stack([found[f"label_{head}"].astype(np.int8) for head in heads], axis=1)
    return Rows(tuple(columns.arrays(found) for columns in layouts), labels, found["weight"].astype(np.float32))


def _row_groups(shard: Shard, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """The columns `names` of one file, a row group at a time. The dummy pool: Petastorm 0.13.1's thread pool loses rows (see the row count
    above)."""
    if shard.path is None:
        return
    _silence_petastorm()
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
            yield found
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
