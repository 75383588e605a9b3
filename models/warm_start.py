"""The model that a training starts from: new, or a parent's weights in the shape that the new snapshot needs.

Weights go by meaning, not by position: embedding rows by feature, towers and heads by name, the rest by name where the shapes agree. What
the parent lacks starts as in a new model (a new tower: as the shared tower, at its own base rate). Fitted statistics and base log-odds of
known cells stay the parent's, since its weights were learned against them: with no step taken the child equals the parent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from conf.schema import ModelConf
from models import bundle
from models.columns import Columns
from models.engagement import EngagementModel
from models.manifest import Manifest

EMBEDDING, LINEAR, BASE = "representation.embedding.table", "linear.table", "heads.base_TH"
SERVING = "serving."
# Weights of the inputs: they mean something in the inputs' order only.
OF_INPUTS = re.compile(
    r"(bottom\.(layers|experts\.\d+|levels\.0\.(shared|own\.of_head)\.\d+)\.0|bottom\.(levels\.0\.)?gates?\b.*|linear\..*)\.weight"
)
Statistics = Mapping[str, Mapping[str, float]]


@dataclass
class Start:
    """A model to train. `squares`: Adagrad's state of each of its tables. `carried`: from the parent, `fresh`: new."""

    model: EngagementModel
    statistics: Statistics
    squares: dict[str, Tensor]
    carried: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)


def cold(manifest: Manifest, conf: ModelConf, prior_H: Tensor, statistics: Statistics | None = None) -> Start:
    """A new model at the snapshot's base rates; `statistics` are the snapshot's unless given.

    `prior_H` float32 [H]: where Adagrad's squares of the linear path start. From zero, an id's first row would move its log-odds by the
    whole learning rate whatever it says, and a rare head's would be noise.
    """
    statistics = manifest.statistics if statistics is None else statistics
    base_TH = torch.from_numpy(manifest.base_log_odds())
    model = EngagementModel(manifest.template, manifest.heads, manifest.towers, conf, statistics, base_TH)
    embedding, linear = model.tables["embedding"], model.tables["linear"]
    return Start(model, statistics, {"embedding": torch.zeros(len(embedding), 1), "linear": prior_H.expand_as(linear).clone()})


def warm(manifest: Manifest, conf: ModelConf, prior_H: Tensor, parent_dir: str) -> Start:
    """A cold start overlaid with the parent's weights, wherever the same part is in both."""
    meta = bundle.read_meta(parent_dir)
    tensors, parent = bundle.read_tensors(parent_dir, meta), bundle.build(meta)
    same_inputs = _inputs(parent.columns) == _inputs(Columns(manifest.template, len(manifest.towers)))
    # The parent may lack those of a feature that only the serving term reads.
    start = cold(manifest, conf, prior_H, manifest.statistics | meta["statistics"] if same_inputs else None)
    (start.carried if same_inputs else start.fresh).append("statistics")
    with torch.no_grad():
        _carry_ids(start, tensors, parent)
        _carry_layers(start, tensors, parent, same_inputs)
        _carry_serving(start, tensors, parent, same_inputs)
    return start


def _inputs(columns: Columns) -> list[tuple[str, str, str, int]]:
    """What the numbers of the first layer's input mean, in their order."""
    return [(f.column, f.type, f.transform, f.width) for f in columns.continuous + columns.dense + columns.embedded]


def _carry_ids(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel) -> None:
    """What the parent knows of each id: its embedding, and its weights on the linear path, by tower and head."""
    old, new, tables = parent.columns, start.model.columns, start.model.tables
    heads, blocks = _pairs(parent.head_names, start.model.head_names), _blocks(parent, start.model)
    known = {feature.column: (feature, offset) for feature, offset in zip(old.embedded, old.offsets, strict=False)}
    for feature, offset in zip(new.embedded, new.offsets, strict=False):
        before, start_of_old = known.get(feature.column, (None, 0))
        # The same ids must mean the same values: as many buckets, or the same vocabulary in the same order.
        same = before is not None and (before.type, before.ids, before.vocabulary) == (feature.type, feature.ids, feature.vocabulary)
        # A bundle from before the linear path tells of no id: they are learned anew.
        if same and LINEAR in tensors and tensors[EMBEDDING].shape[1] == tables["embedding"].shape[1]:
            start.carried.append(f"ids of {feature.column}")
        else:
            start.fresh.append(f"ids of {feature.column}")
            continue
        here, there = slice(offset, offset + feature.ids), slice(start_of_old, start_of_old + feature.ids)
        for to, source in ((tables["embedding"], EMBEDDING), (start.squares["embedding"], f"{bundle.SQUARES}embedding")):
            to[here] = tensors[source][there]
        for to, source in ((tables["linear"], LINEAR), (start.squares["linear"], f"{bundle.SQUARES}linear")):
            for (old_b, new_b), (old_h, new_h) in product(blocks, heads):
                to[here, new_b, new_h] = tensors[source][there, old_b, old_h]


def _carry_layers(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel, same_inputs: bool) -> None:
    own, model = start.model.state_dict(), start.model
    heads, towers = _pairs(parent.head_names, model.head_names), _towers(parent, model)
    for old_t, new_t in [*towers, (len(parent.tower_names), len(model.tower_names))]:
        for old_h, new_h in heads:
            own[BASE][new_t, new_h] = tensors[BASE][old_t, old_h]
    for name, tensor in own.items():
        if name.startswith(("representation.", SERVING)) or name in (BASE, LINEAR):
            continue
        source = _meant_by(name, tensors, towers, heads) if same_inputs or not OF_INPUTS.fullmatch(name) else None
        done = source is not None and _copied(name, tensor, source, heads)
        (start.carried if done else start.fresh).append(name)


def _carry_serving(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel, same_inputs: bool) -> None:
    """What each place adds by tower and head, and the mean it is counted from; known as a whole or not at all."""
    new, old = start.model.serving, parent.serving
    if new is None:
        return
    if old is None or not same_inputs or _places(old.columns) != _places(new.columns):
        start.fresh.append("serving")
        return
    start.carried.append("serving")
    for (old_b, new_b), (old_h, new_h) in product(_blocks(parent, start.model), _pairs(parent.head_names, start.model.head_names)):
        new.weight[new_b, :, new_h] = tensors[f"{SERVING}weight"][old_b, :, old_h]
    for old_t, new_t in _towers(parent, start.model):
        new.mean_TX[new_t] = tensors[f"{SERVING}mean_TX"][old_t]


def _places(columns: Columns) -> tuple[object, ...]:
    """What the inputs of a serving term mean, in their order."""
    return _inputs(columns), [(feature.ids, feature.vocabulary) for feature in columns.embedded]


def _meant_by(name: str, tensors: Mapping[str, Tensor], towers: list[tuple[int, int]], heads: list[tuple[int, int]]) -> Tensor | None:
    """The parent's tensor of that name; what a tower or a head has of its own goes by their names, not their numbers."""
    old = {"tower": {new: old for old, new in towers}, "head": {new: old for old, new in heads}}
    # One that the parent does not know becomes `None`, a name of nothing.
    return tensors.get(re.sub(r"\.of_(tower|head)\.(\d+)\.", lambda of: f".of_{of[1]}.{old[of[1]].get(int(of[2]))}.", name))


def _copied(name: str, to: Tensor, source: Tensor, heads: list[tuple[int, int]]) -> bool:
    """Whether `source` went into `to`: whole, or head by head."""
    if name.startswith(("heads.", "linear.")) and source.shape[1:] == to.shape[1:]:
        for old_h, new_h in heads:
            to[new_h] = source[old_h]
        return bool(heads)
    if source.shape != to.shape:
        return False
    to.copy_(source)
    return True


def _blocks(parent: EngagementModel, model: EngagementModel) -> list[tuple[int, int]]:
    """The same of the blocks of a table: that of all towers, then each tower's."""
    return [(0, 0), *((old + 1, new + 1) for old, new in _towers(parent, model))]


def _towers(parent: EngagementModel, model: EngagementModel) -> list[tuple[int, int]]:
    return _pairs(parent.tower_names, model.tower_names)


def _pairs(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """(index in old, index in new) of every name in both."""
    return [(old.index(name), i) for i, name in enumerate(new) if name in old]
