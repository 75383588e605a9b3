"""DeepCTR-Torch's MMoE or PLE on the rows of a comparison, in a process of its own.

python -m tests.benchmarks.deskdrop_peer mmoe FOLDER OUTPUT.npy --seeds 5     (var/benchmarks/peers on PYTHONPATH)

FOLDER is that of jobs/compare.py. Learning rate and epochs are chosen on its validation rows with seed 1, then it learns from these rows too, as
our arms do. It knows no masked label: it is given a loss that leaves them out. Writes log-odds float32 [seeds, rows, heads].
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import MMOE, PLE
from torch import Tensor

from models.columns import Arrays, Columns
from models.contest import Judged, mean_ne
from models.manifest import read_manifest
from models.representation import Features, Representation
from tests.benchmarks.encoded_rows import read_encoded
from tests.benchmarks.train_peer import INIT_STD

BATCH, WIDTH = 512, 8
RATES, EPOCHS = (1e-3, 3e-3, 1e-2), (2, 4, 8, 16)


def masked(predicted: Tensor, label: Tensor, reduction: str = "sum") -> Tensor:
    known = (label >= 0).to(predicted.dtype)
    loss = torch.nn.functional.binary_cross_entropy(predicted, label.clamp(min=0), reduction="none") * known
    return loss.sum() if reduction == "sum" else loss.mean()


class Peer:
    """One of the models on one snapshot's template."""

    def __init__(self, name: str, folder: Path, which: str) -> None:
        self.name, self.manifest = name, read_manifest(folder / "views" / "own" / which)
        self.columns = Columns(self.manifest.template, len(self.manifest.towers))
        self.representation = Representation(self.columns, 1, self.manifest.statistics)
        files = [shard.path for shard in self.manifest.shards if shard.path]
        arrays, found = read_encoded(files, self.manifest)
        self.heads = list(self.manifest.heads)
        self.inputs, self.labels = self.numbers(arrays), np.stack([found[f"label_{head}"] for head in self.heads], 1).astype(np.float32)

    def numbers(self, arrays: Arrays) -> dict[str, np.ndarray]:
        numbers = self.representation.numbers(Features.of(arrays)).numpy()
        ids = arrays.ids - np.array(self.columns.offsets[:-1])
        return {"numbers": numbers} | {f.column: ids[:, i] for i, f in enumerate(self.columns.embedded)} | {"tower": arrays.tower}

    def answers(self, asked: Path, rate: float, epochs: int, seed: int) -> np.ndarray:
        features = [SparseFeat(f.column, f.ids, WIDTH) for f in self.columns.embedded]
        features += [SparseFeat("tower", len(self.manifest.towers), WIDTH), DenseFeat("numbers", self.inputs["numbers"].shape[1])]
        kind = MMOE if self.name == "mmoe" else PLE
        widths = {"expert_dnn_hidden_units": (128, 64), "tower_dnn_hidden_units": (64, 32)}
        tasks = {"task_types": ["binary"] * len(self.heads), "task_names": self.heads}
        model = kind(features, seed=seed, init_std=INIT_STD, **widths, **tasks)
        model.compile(torch.optim.Adam(model.parameters(), lr=rate), loss=["binary_crossentropy"] * len(self.heads))
        model.loss_func = [masked] * len(self.heads)  # `compile` takes names alone
        model.fit(self.inputs, self.labels, batch_size=BATCH, epochs=epochs, verbose=0)
        probability = np.clip(model.predict(self.numbers(read_encoded(asked, self.manifest)[0]), 4096), 1e-7, 1 - 1e-7)
        return (np.log(probability) - np.log1p(-probability)).astype(np.float32)


def main(name: str, folder: Path, output: Path, seeds: int) -> None:
    learn, both = (Peer(name, folder, which) for which in ("learn", "both"))
    judged = Judged.of(pd.read_parquet(folder / "rows" / "validate.parquet"), dict.fromkeys(learn.heads))
    losses = {}
    for rate, epochs in product(RATES, EPOCHS):
        losses[rate, epochs] = mean_ne(judged, learn.answers(folder / "views" / "own" / "validate.parquet", rate, epochs, 1))
        print(f"{name}: rate {rate:g}, {epochs} epochs: {losses[rate, epochs]:.4f}", file=sys.stderr, flush=True)
    best = min(losses, key=lambda setting: losses[setting])
    found = [both.answers(folder / "views" / "own" / "test.parquet", *best, seed) for seed in range(1, seeds + 1)]
    np.save(output, np.stack(found))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("peer", choices=("mmoe", "ple"))
    options.add_argument("folder", type=Path)
    options.add_argument("output", type=Path)
    options.add_argument("--seeds", type=int, default=5)
    given = options.parse_args()
    main(given.peer, given.folder, given.output, given.seeds)
