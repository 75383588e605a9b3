"""Two hundred epochs of random sizes, each read by the ranks of a training: is every row in each of them once, in the same batches?

python -m tests.reliability.one_epoch_reads [--reads 200] [--seed 1]

Each read has a snapshot of its own, written to disk and read back by Petastorm: 1, 2, 4 or 8 virtual shards, and 1, 2 or 4 ranks that divide
them. A rank reads its own shards and asks no other rank, so the ranks are read here in one process, one after the other or all at once in
step (tests/models/test_distributed.py has real Horovod ranks do it). Ranks that do not divide the shards must be refused within 5 s, with the
knob named, by the configuration and by a rank that meets such a snapshot all the same.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from conf.training import Training
from models.batches import Batch, read_batches, shards_of
from models.columns import Columns
from models.errors import SnapshotUnreadable
from models.manifest import Manifest, read_manifest
from tests.models.snapshots import TEMPLATE, TOWERS, example_columns, write_snapshot

SHARDS, RANKS = (1, 2, 4, 8), (1, 2, 4)
DIVIDING = [(shards, ranks) for shards in SHARDS for ranks in RANKS if shards % ranks == 0]
OTHERS = [(shards, ranks) for shards in SHARDS for ranks in RANKS if shards % ranks]
REFUSED_WITHIN_SECONDS = 5
MOST_ROWS = 4000
FIRST_ROW_ID = Columns(TEMPLATE, len(TOWERS)).offsets[2]


@dataclass(frozen=True)
class Read:
    """One epoch by `ranks` ranks; `in_step`: all ranks' batches in turns, as in a training, else one rank after the other."""

    shards: int
    ranks: int
    rows: int
    batch_size: int
    row_group_rows: int
    seed: int
    epoch: int
    in_step: bool


def drawn(draw: random.Random, shards: int, ranks: int) -> Read:
    """Sizes at which something ends: fewer rows than shards, whole batches, one row more or less, one row group or many."""
    batch_size = shards * draw.choice((1, 2, 3, 8, 25, 64))
    whole = batch_size * draw.randint(1, max(1, min(40, MOST_ROWS // batch_size)))
    rows = draw.choice((draw.randint(1, shards), whole - 1, whole, whole + 1, draw.randint(1, MOST_ROWS)))
    return Read(
        shards,
        ranks,
        rows=max(rows, 1),
        batch_size=batch_size,
        row_group_rows=max(draw.choice((1, batch_size // shards, 200, MOST_ROWS)), rows // shards // 20),  # at most 20 a shard
        seed=draw.randint(1, 1_000_000),
        epoch=draw.randint(0, 5),
        in_step=draw.random() < 0.5,
    )


def faults(read: Read, folder: Path) -> list[str]:
    """Write the snapshot, read the epoch; in words what is wrong with it."""
    columns = example_columns(read.rows, read.seed)
    manifest = read_manifest(write_snapshot(folder, columns, virtual_shards=read.shards, row_group_rows=read.row_group_rows))
    steps = of_ranks(manifest, read, read.ranks)
    if isinstance(steps, str):
        return [steps]
    found = []
    seen = Counter(chain.from_iterable(steps))
    if short := set(range(1, read.rows + 1)) - seen.keys():
        found.append(f"{len(short)} rows short, such as {min(short)}")
    if twice := [row for row, times in seen.items() if times > 1]:
        found.append(f"{len(twice)} rows twice, such as {min(twice)}")
    if seen.keys() - set(range(1, read.rows + 1)):
        found.append("rows that were never written")
    if steps != of_ranks(manifest, read, ranks=1):
        found.append("other batches than one rank sees")
    # write_snapshot deals row i + 1 to shard i % V: a batch takes as many rows of each shard, until the shard is used up.
    each = read.batch_size // read.shards
    of_shard = [len(range(shard, read.rows, read.shards)) for shard in range(read.shards)]
    wanted = [[min(each, max(0, rows - step * each)) for rows in of_shard] for step in range(-(-max(of_shard) // each))]
    if wanted != [np.bincount([(row - 1) % read.shards for row in step], minlength=read.shards).tolist() for step in steps]:
        found.append("batches that do not take the same number of rows of each shard")
    return found


def of_ranks(manifest: Manifest, read: Read, ranks: int) -> list[list[int]] | str:
    """The row ids of every global batch, the ranks' parts joined in the order of ranks; in words why there are none."""
    parts = [of_rank(manifest, read, shards_of(rank, ranks, read.shards)) for rank in range(ranks)]
    try:
        if not read.in_step:
            parts = [iter(list(part)) for part in parts]
        return [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]
    except (SnapshotUnreadable, ValueError) as error:  # ValueError: of zip, one rank has more steps than another
        return f"{ranks} ranks: {type(error).__name__}: {error}"


def of_rank(manifest: Manifest, read: Read, shards: range) -> Iterator[list[int]]:
    """The row ids of a rank's part of every global batch, padding left out."""
    for batch in read_batches(manifest, read.batch_size, shards, read.epoch, read.seed):
        yield row_ids(batch)


def row_ids(batch: Batch) -> list[int]:
    return (batch.features.ids_BF[:, -1] - FIRST_ROW_ID)[batch.weight_B > 0].tolist()


def refusal(shards: int, ranks: int) -> tuple[float, list[str]]:
    """Seconds until such ranks were refused, and what is wrong with how."""
    asked: list[Callable[[], object]] = [
        lambda: Training(virtual_shards=shards, ranks=ranks, batch_size=shards),
        *(lambda rank=rank: shards_of(rank, ranks, shards) for rank in range(ranks)),
    ]
    began, found = time.monotonic(), []
    for ask in asked:
        try:
            ask()
            found.append(f"{ranks} ranks were let read {shards} shards")
        except (SnapshotUnreadable, ValueError) as error:
            if "training.ranks" not in str(error) or "divi" not in str(error):
                found.append(f"a refusal that does not name what to do: {error}")
    seconds = time.monotonic() - began
    return seconds, found if seconds <= REFUSED_WITHIN_SECONDS else [*found, f"refused after {seconds:.1f} s only"]


def run(reads: int, seed: int) -> dict[str, object]:
    draw, wrong, combinations, rows = random.Random(seed), [], Counter[str](), 0
    slowest = 0.0
    for shards, ranks in OTHERS:
        seconds, found = refusal(shards, ranks)
        slowest = max(slowest, seconds)
        wrong += [f"{shards} shards, {ranks} ranks: {fault}" for fault in found]
    for number in range(reads):
        read = drawn(draw, *DIVIDING[number % len(DIVIDING)])
        with tempfile.TemporaryDirectory() as scratch:
            found = faults(read, Path(scratch) / "snapshot")
        wrong += [f"{read}: {fault}" for fault in found]
        combinations[f"{read.shards} shards, {read.ranks} ranks"] += 1
        rows += read.rows
        print(f"read {number + 1}/{reads}: {'; '.join(found) or 'every row once'}, {read}", file=sys.stderr, flush=True)
    told = {"reliability": "one_epoch_reads", "reads": reads, "seed": seed, "rows": rows, "combinations": dict(combinations)}
    refused = [f"{shards} shards, {ranks} ranks" for shards, ranks in OTHERS]
    return told | {"refused": refused, "slowest_refusal_s": round(slowest, 4), "wrong": wrong}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--reads", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    found = run(given.reads, given.seed)
    print(json.dumps(found))
    sys.exit(bool(found["wrong"]))
