"""The model that a training starts from: new, or a parent's weights in the shape that the new snapshot needs.

Weights go by meaning, not by position: embedding rows by feature, towers and heads by name, the rest by name where the shapes agree. What
the parent lacks starts as in a new model (a new tower: as the shared tower, at its own base rate). Fitted statistics and base log-odds of
known cells stay the parent's, since its weights were learned against them: with no step taken the child equals the parent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from conf.schema import ModelConf
from models import bundle
from models.columns import Columns
from models.engagement import EngagementModel
from models.manifest import Manifest

TABLE, BASE, FIRST = "representation.embedding.table", "heads.base_TH", "bottom.layers.0.weight"
Statistics = Mapping[str, Mapping[str, float]]


@dataclass
class Start:
    """A model to train. `squares` float32 [rows of the table]: row-wise Adagrad's state. `carried`: from the parent, `fresh`: new."""

    model: EngagementModel
    statistics: Statistics
    squares: Tensor
    carried: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)


def cold(manifest: Manifest, conf: ModelConf, statistics: Statistics | None = None) -> Start:
    """A new model at the snapshot's base rates; `statistics` are the snapshot's unless given."""
    statistics = manifest.statistics if statistics is None else statistics
    base_TH = torch.from_numpy(manifest.base_log_odds())
    model = EngagementModel(manifest.template, manifest.heads, manifest.towers, conf, statistics, base_TH)
    return Start(model, statistics, torch.zeros(len(model.representation.embedding.table)))


def warm(manifest: Manifest, conf: ModelConf, parent_dir: str) -> Start:
    """A cold start overlaid with the parent's weights, wherever the same part is in both."""
    meta = bundle.read_meta(parent_dir)
    tensors, parent = bundle.read_tensors(parent_dir, meta), bundle.build(meta)
    same_inputs = _inputs(parent.columns) == _inputs(Columns(manifest.template, len(manifest.towers)))
    start = cold(manifest, conf, meta["statistics"] if same_inputs else None)
    (start.carried if same_inputs else start.fresh).append("statistics")
    with torch.no_grad():
        _carry_embeddings(start, tensors, parent.columns)
        _carry_layers(start, tensors, parent, same_inputs)
    return start


def _inputs(columns: Columns) -> list[tuple[str, str, str, int]]:
    """What the numbers of the first layer's input mean, in their order."""
    return [(f.column, f.type, f.transform, f.width) for f in columns.continuous + columns.dense + columns.embedded]


def _carry_embeddings(start: Start, tensors: Mapping[str, Tensor], old: Columns) -> None:
    table, new = start.model.representation.embedding.table, start.model.columns
    known = {feature.column: (feature, offset) for feature, offset in zip(old.embedded, old.offsets, strict=False)}
    for feature, offset in zip(new.embedded, new.offsets, strict=False):
        before, start_of_old = known.get(feature.column, (None, 0))
        # The same ids must mean the same values: as many buckets, or the same vocabulary in the same order.
        same = before is not None and (before.type, before.ids, before.vocabulary) == (feature.type, feature.ids, feature.vocabulary)
        if same and tensors[TABLE].shape[1] == table.shape[1]:
            here, there = slice(offset, offset + feature.ids), slice(start_of_old, start_of_old + feature.ids)
            table[here], start.squares[here] = tensors[TABLE][there], tensors[bundle.SQUARES][there]
            start.carried.append(f"embedding {feature.column}")
        else:
            start.fresh.append(f"embedding {feature.column}")


def _carry_layers(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel, same_inputs: bool) -> None:
    own, model = start.model.state_dict(), start.model
    heads, towers = _pairs(parent.head_names, model.head_names), _pairs(parent.tower_names, model.tower_names)
    for old_t, new_t in [*towers, (len(parent.tower_names), len(model.tower_names))]:
        for old_h, new_h in heads:
            own[BASE][new_t, new_h] = tensors[BASE][old_t, old_h]
    for name, tensor in own.items():
        if name.startswith("representation.") or name == BASE:
            continue
        source = _meant_by(name, tensors, towers) if same_inputs or name != FIRST else None
        done = source is not None and _copied(name, tensor, source, heads)
        (start.carried if done else start.fresh).append(name)


def _meant_by(name: str, tensors: Mapping[str, Tensor], towers: list[tuple[int, int]]) -> Tensor | None:
    """The parent's tensor of that name; a tower's own goes by the tower, not by its number."""
    match = re.fullmatch(r"(.*\.of_tower\.)(\d+)(\..*)", name)
    if match is None:
        return tensors.get(name)
    old = {new: old for old, new in towers}.get(int(match[2]))
    return None if old is None else tensors.get(f"{match[1]}{old}{match[3]}")


def _copied(name: str, to: Tensor, source: Tensor, heads: list[tuple[int, int]]) -> bool:
    """Whether `source` went into `to`: whole, or head by head."""
    if name.startswith("heads.") and source.shape[1:] == to.shape[1:]:
        for old_h, new_h in heads:
            to[new_h] = source[old_h]
        return bool(heads)
    if source.shape != to.shape:
        return False
    to.copy_(source)
    return True


def _pairs(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """(index in old, index in new) of every name in both."""
    return [(old.index(name), i) for i, name in enumerate(new) if name in old]
