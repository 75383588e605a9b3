"""How much of the trainer's speed does reading cost? The same steps fed by Petastorm from a snapshot, and from memory.

python -m tests.benchmarks.loader [--rows 400000] [--rounds 3]

`ours` and `peer` are rows a second of an epoch, the best round of each, in turns; one process, its cores for both. Before the clock starts
an epoch has been read and trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from models.batches import Batch, read_batches, steps_an_epoch
from models.collectives import SingleProcess
from models.head_weighting import HeadWeighting
from models.losses import share_of_weight
from models.manifest import Manifest, read_manifest
from models.optimizers import linear_prior
from models.trainer import Fit
from models.warm_start import cold
from tests.benchmarks.training_data import BATCH, MODEL, made_snapshot, settings

ROOT = Path(__file__).parents[2]


def read(manifest: Manifest) -> Iterable[Batch]:
    return read_batches(manifest, BATCH, range(len(manifest.shards)), epoch=0, seed=1)


def rows_a_second(manifest: Manifest, batches: Iterable[Batch]) -> float:
    """An epoch of a new model."""
    torch.manual_seed(1)
    share_H = share_of_weight(manifest.weight, manifest.rows, BATCH)
    steps = steps_an_epoch(manifest, BATCH)
    fit = Fit(
        cold(manifest, MODEL, linear_prior(settings(), share_H)),
        share_H,
        HeadWeighting("constant", manifest),
        settings(),
        SingleProcess(),
        steps,
        epochs=1,
    )
    began = time.monotonic()
    for batch in batches:
        fit.step(batch.to(fit.collective.device))
    assert fit.steps == steps
    return manifest.rows / (time.monotonic() - began)


def measure(rows: int, rounds: int, folder: Path) -> dict[str, object]:
    manifest = read_manifest(made_snapshot(folder, rows))
    memory = list(read(manifest))
    rows_a_second(manifest, memory)
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(rows_a_second(manifest, read(manifest)))
        peer.append(rows_a_second(manifest, memory))
    ratio = round(max(ours) / max(peer), 2)
    told = {"benchmark": "loader", "rows": rows, "threads": torch.get_num_threads(), "ours": round(max(ours)), "peer": round(max(peer))}
    return told | {"ratio": ratio, "needed": 0.9}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "training")
    given = options.parse_args()
    print(json.dumps(measure(given.rows, given.rounds, given.folder)))
