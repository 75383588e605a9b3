"""A training snapshot's manifest, as etl/snapshot.py writes it: what was snapshotted, in which files, with which totals."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from conf.schema import Head
from conf.template import Template
from models.errors import SnapshotUnreadable

# A tower's base rate counts as if so many further positives had come at the rate of all towers.
PRIOR_POSITIVES = 10.0


@dataclass(frozen=True)
class Shard:
    """One virtual shard: a Parquet file of encoded rows. An empty shard has no file."""

    path: Path | None
    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`weight`: total weight of a head's loss rows (a child's: parent 1). `positives`, `labelled`: the same rows per head and tower."""

    directory: Path
    id: str
    template: Template
    heads: dict[str, Head]
    towers: tuple[str, ...]
    shards: tuple[Shard, ...]
    rows: int
    weight: dict[str, float]
    positives: dict[str, dict[str, float]]
    labelled: dict[str, dict[str, float]]
    statistics: dict[str, dict[str, float]]
    days: tuple[str, str]

    @cached_property
    def parents(self) -> list[int]:
        """[H] index of each head's parent, -1 without one."""
        return parents_of(self.heads)

    def base_log_odds(self) -> np.ndarray:
        """float64 [T + 1, H]: log-odds of each head's positives in each tower, smoothed towards all towers; the last row is all towers."""
        table = np.empty((len(self.towers) + 1, len(self.heads)))
        for h, head in enumerate(self.heads):
            positives = np.array([self.positives[head].get(tower, 0.0) for tower in self.towers])
            labelled = np.array([self.labelled[head].get(tower, 0.0) for tower in self.towers])
            overall = (positives.sum() + 0.5) / (labelled.sum() + 1)
            rate = (positives + PRIOR_POSITIVES) / (labelled + PRIOR_POSITIVES / overall)
            rate = np.clip(np.append(rate, overall), 1e-6, 1 - 1e-6)
            table[:, h] = np.log(rate) - np.log1p(-rate)
        return table

    def require_unchanged(self, shards: Iterable[int]) -> None:
        """The files of these shards are there and have the manifest's sha256: a flipped bit in a page of numbers reads like any number."""
        for shard in (self.shards[i] for i in shards):
            if shard.path is None:
                continue
            if not shard.path.is_file():
                raise SnapshotUnreadable(f"{shard.path} is absent; delete {self.directory} and build the snapshot again")
            if sha256(shard.path) != shard.sha256:
                raise SnapshotUnreadable(
                    f"{shard.path} is not the file that was written: its sha256 differs; delete {self.directory} and build it again"
                )


def read_manifest(directory: str | Path) -> Manifest:
    directory = Path(directory).resolve()
    path = directory / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(
            directory=directory,
            id=found["id"],
            template=Template.model_validate(found["template"]),
            heads={name: Head.model_validate(head) for name, head in found["heads"].items()},
            towers=tuple(found["towers"]),
            shards=tuple(Shard(directory / s["file"] if s["file"] else None, s["rows"], s["sha256"] or "") for s in found["shards"]),
            rows=found["rows"],
            weight=found["weight"],
            positives=found["positives"],
            labelled=found["labelled"],
            statistics=found["statistics"],
            days=tuple(found["days"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotUnreadable(
            f"{path} is not a snapshot's manifest ({type(error).__name__}: {error}); build the snapshot again"
        ) from error
    _require_sound(manifest, found)
    return manifest


def _require_sound(manifest: Manifest, found: dict) -> None:
    if len(manifest.shards) != found["virtual_shards"] or sum(shard.rows for shard in manifest.shards) != manifest.rows:
        raise SnapshotUnreadable(f"{manifest.directory}: shards and rows of the manifest do not add up; build the snapshot again")
    if manifest.rows == 0:
        raise SnapshotUnreadable(f"{manifest.directory} holds no rows; nothing can be learned. Train on more days (clock.train_days)")
    numbers = [*manifest.weight.values(), *(value for statistic in manifest.statistics.values() for value in statistic.values())]
    if not all(math.isfinite(number) for number in numbers):
        raise SnapshotUnreadable(f"{manifest.directory}: the manifest's weights or statistics are not finite; build the snapshot again")


def parents_of(heads: dict[str, Head]) -> list[int]:
    names = list(heads)
    return [-1 if head.parent is None else names.index(head.parent) for head in heads.values()]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
