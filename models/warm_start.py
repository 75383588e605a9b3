"""The model that a training starts from: new, or a parent's weights in the shape that the new snapshot needs.

Weights go by meaning, not by position: embedding rows by feature and value, summarization by group and feature, towers and heads by name, the
rest by name where the shapes agree. What the parent lacks starts as in a new model (a new tower: as the shared tower, at its own base rate; a
value new to a vocabulary: as the unseen value that it was; a feature new to a group: without a say in it). Fitted statistics and base log-odds
of known cells stay the parent's, since its weights were learned against them: with no step taken the child equals the parent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from conf.template import Feature
from conf.training import ModelConf
from models import bundle
from models.columns import Columns
from models.engagement import EngagementModel
from models.gates import SUFFIX, opened
from models.manifest import Manifest
from models.summarization import groups_of

EMBEDDING, LINEAR, BASE = "representation.embedding.table", "linear.table", "heads.base_TH"
SERVING = "serving."
OF_IDS = (EMBEDDING, LINEAR, f"{bundle.SQUARES}embedding", f"{bundle.SQUARES}linear")
# Weights of the inputs: they mean something in the inputs' order only.
OF_INPUTS = re.compile(
    r"(bottom\.(layers|experts\.\d+|levels\.0\.(shared|own\.of_head)\.\d+)\.0|bottom\.(levels\.0\.)?gates?\b.*|linear\..*|affinity\.\w+\.of_numbers)\.weight"
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
    parent = bundle.build(meta)
    tensors = opened(bundle.read_tensors(parent_dir, meta), parent.state_dict())
    same_inputs = _inputs(parent.columns) == _inputs(Columns(manifest.template, len(manifest.towers)))
    # The parent may lack those of a feature that only the serving term reads.
    start = cold(manifest, conf, prior_H, manifest.statistics | meta["statistics"] if same_inputs else None)
    (start.carried if same_inputs else start.fresh).append("statistics")
    with torch.no_grad():
        _carry_ids(start, tensors, parent)
        _carry_groups(start, tensors, parent)
        _carry_layers(start, tensors, parent, same_inputs)
        _carry_serving(start, tensors, parent, same_inputs)
    return start


def _inputs(columns: Columns) -> list[tuple[str, str, str, int]]:
    """What the numbers of the first layer's input mean, in their order: numbers, embeddings of features, embeddings of groups."""
    numbers = [(f.column, f.type, f.transform, f.width) for f in columns.continuous + columns.dense]
    alone = [(f.column, "embedded", "", 0) for f in columns.embedded if f.group is None]
    return [*numbers, *alone, *((group, "group", "", 0) for group in groups_of(columns))]


def _carry_ids(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel) -> None:
    """What the parent knows of each id: its embedding, and its weights on the linear path, by tower and head."""
    old, new = parent.columns, start.model.columns
    # A bundle from before the linear path tells of no id: they are learned anew.
    readable = LINEAR in tensors and tensors[EMBEDDING].shape[1] == start.model.tables["embedding"].shape[1]
    known = {feature.column: (feature, offset) for feature, offset in zip(old.embedded, old.offsets, strict=False)}
    for feature, offset in zip(new.embedded, new.offsets, strict=False):
        before, first = known.get(feature.column, (None, 0))
        there = _ids_in(before, feature) if before is not None and readable else None
        if before is None or there is None:
            start.fresh.append(f"ids of {feature.column}")
            continue
        start.carried.append(f"ids of {feature.column}")
        values = set(before.vocabulary)
        anew = [id_ for id_, value in enumerate(feature.vocabulary, 2) if value not in values]
        if anew:
            start.fresh.append(f"{len(anew)} values of {feature.column}")
        here, of_parent = slice(offset, offset + feature.ids), slice(first, first + before.ids)
        _carry_rows(start, {name: tensor[of_parent][there] for name, tensor in tensors.items() if name in OF_IDS}, parent, here, anew)


def _ids_in(before: Feature, feature: Feature) -> Tensor | slice | None:
    """Which of the parent's ids means the same as each of the feature's; None where none does.

    Hashes mean the same in as many buckets. A value goes by itself, and one that the parent's vocabulary lacks is its unseen value.
    """
    if before.vocabulary and feature.vocabulary:
        ids = {value: id_ for id_, value in enumerate(before.vocabulary, 2)}
        return torch.tensor([0, 1, *(ids.get(value, 1) for value in feature.vocabulary)])
    return slice(None) if (before.type, before.ids) == (feature.type, feature.ids) else None


def _carry_rows(start: Start, learned: Mapping[str, Tensor], parent: EngagementModel, here: slice, anew: list[int]) -> None:
    """What the parent `learned` of a feature's ids, into its rows `here`; the ids `anew` learn as fast as new ones do."""
    heads, blocks = _pairs(parent.head_names, start.model.head_names), _blocks(parent, start.model)
    tables, squares, new = start.model.tables, start.squares, torch.tensor(anew, dtype=torch.int64)
    started = {name: squares[name][here][new] for name in tables}
    for to, source in ((tables["embedding"], EMBEDDING), (squares["embedding"], f"{bundle.SQUARES}embedding")):
        to[here] = learned[source]
    for to, source in ((tables["linear"], LINEAR), (squares["linear"], f"{bundle.SQUARES}linear")):
        for (old_b, new_b), (old_h, new_h) in product(blocks, heads):
            to[here, new_b, new_h] = learned[source][:, old_b, old_h]
    for name in tables:
        squares[name][here][new] = started[name]


def _carry_groups(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel) -> None:
    """Each group's map, feature by feature; a feature new to a group starts without a say in it, so that the common embedding stays."""
    own, width = start.model.state_dict(), start.model.summarization.embedding_width
    old, new = _members(parent), _members(start.model)
    for number, (group, features) in enumerate(new.items()):
        known = old.get(group, [])
        if width != parent.summarization.embedding_width or not set(known) & set(features):
            start.fresh.append(f"summarization of {group}")
            continue
        start.carried.append(f"summarization of {group}")
        start.fresh += [f"{column} in the summarization of {group}" for column in features if column not in known]
        source, to = (f"summarization.of_group.{place}" for place in (list(old).index(group), number))
        own[f"{to}.bias"].copy_(tensors[f"{source}.bias"])
        learned = dict(zip(known, tensors[f"{source}.weight"].split(width, 1), strict=True))
        for column, block in zip(features, own[f"{to}.weight"].split(width, 1), strict=True):
            block.copy_(learned.get(column, torch.zeros_like(block)))


def _members(model: EngagementModel) -> dict[str, list[str]]:
    """Group -> its features, in its order."""
    return {group: [model.columns.embedded[place].column for place in places] for group, places in groups_of(model.columns).items()}


def _carry_layers(start: Start, tensors: Mapping[str, Tensor], parent: EngagementModel, same_inputs: bool) -> None:
    own, model = start.model.state_dict(), start.model
    heads, towers = _pairs(parent.head_names, model.head_names), _towers(parent, model)
    for old_t, new_t in [*towers, (len(parent.tower_names), len(model.tower_names))]:
        for old_h, new_h in heads:
            own[BASE][new_t, new_h] = tensors[BASE][old_t, old_h]
    for name, tensor in own.items():
        if name.startswith(("representation.", "summarization.", SERVING)) or name in (BASE, LINEAR):
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
    of_heads = name.startswith(("heads.", "linear.", "affinity.shared.", "affinity.residual.")) and not name.endswith(SUFFIX)
    if of_heads and source.shape[1:] == to.shape[1:]:
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
