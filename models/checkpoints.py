"""Checkpoints of a running training, so that one killed anywhere goes on instead of starting again. No pickle.

<directory>/<steps done>/state.safetensors   all that the next step depends on
<directory>/<steps done>/checkpoint.json     its sha256, the epoch and step, and what the training is made from
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.bundle import write_folder
from models.manifest import Manifest, sha256

STATE, META = "state.safetensors", "checkpoint.json"
STEPS = "position.steps"  # int64 []: steps done over all epochs
KEPT = 2  # the newest, and the one before it should the newest turn out damaged


class Checkpoints:
    """Those of one training; rank 0 alone writes and reads them, every rank holding the same state after a step.

    `of` is JSON, what the training is made from: one made from something else is never gone on from. `seconds` is the shortest time
    between two, 0 for one after every step.
    """

    def __init__(self, directory: str | Path, of: Mapping[str, Any], seconds: float) -> None:
        self.directory, self.of, self.seconds = Path(directory), dict(of), seconds
        self.written = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.written >= self.seconds

    def save(self, state: Mapping[str, Tensor], epoch: int) -> None:
        """Write `state`, STEPS among it, whole or not at all; then forget all but the KEPT newest."""
        step = int(state[STEPS])
        write_folder(self.directory / str(step), STATE, state, META, {"of": self.of, "epoch": epoch, "step": step})
        for folder in self._newest_first()[KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)
        self.written = time.monotonic()

    def restore(self, state: Mapping[str, Tensor]) -> Path | None:
        """Copy the newest good checkpoint into the tensors of `state`; its folder, or None without one: `state` is then as it was.

        One that is damaged, of another training or of other tensors is refused, named on stderr, and removed, lest it be taken for one of
        the newest.
        """
        folders = self._newest_first()
        for folder, before in zip(folders, (*folders[1:], None), strict=False):
            try:
                found = self._read(folder, state)
            except (OSError, ValueError, SafetensorError) as error:
                instead = f"the previous one, of step {before.name}, is used" if before else "training starts from the beginning"
                print(f"train: checkpoint {folder} is refused: {error}; {instead}", file=sys.stderr, flush=True)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with torch.no_grad():
                for name, tensor in state.items():
                    tensor.copy_(found[name])
            return folder
        return None

    def clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        found = [folder for folder in self.directory.glob("*") if folder.name.isdecimal()]
        return sorted(found, key=lambda folder: int(folder.name), reverse=True)

    def _read(self, folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint; ValueError, OSError or SafetensorError says why it cannot be gone on from."""
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        of = meta.get("of") if isinstance(meta, dict) else None
        if not isinstance(of, dict) or sha256(folder / STATE) != meta.get("sha256"):
            raise ValueError(f"it is damaged, the sha256 of {STATE} is not the one in {META}")
        other = sorted(part for part in self.of.keys() | of.keys() if self.of.get(part) != of.get(part))
        if other:
            raise ValueError(f"it is of a training with another {' and '.join(other)}")
        found = load_file(folder / STATE)
        if _shapes(found) != _shapes(like):
            raise ValueError("its tensors are not those of this training")
        return found


def rows_of(manifest: Manifest) -> str:
    """sha256 of what a snapshot's manifest says of its rows: the same for the same rows written again.

    Not the manifest's id, which is of the files' bytes too: a job that was killed goes on in another JVM, which writes the same rows with
    another footer (Parquet lists encodings in no order). Nor sums of weights, whose last bit follows the order of Spark's tasks.
    """
    told = json.loads((manifest.directory / "manifest.json").read_text(encoding="utf-8"))
    kept = told.keys() - {"id", "shards", "examples_version", "table_id", "weight", "labelled"}
    return hashlib.sha256(json.dumps({part: told[part] for part in kept}, sort_keys=True).encode()).hexdigest()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
