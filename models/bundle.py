"""A trained model as a folder: model.safetensors (weights), bundle.json (all else). No pickle, and refused when a byte differs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from conf.schema import Head
from conf.template import Template
from conf.training import ModelConf
from models.engagement import EngagementModel
from models.errors import BundleDamaged
from models.gates import opened
from models.manifest import sha256

WEIGHTS, META = "model.safetensors", "bundle.json"
# Adagrad's state travels with the weights, so that a warm start does not learn known ids as if they were new.
SQUARES = "optimizer.squares."


def save(directory: str | Path, model: EngagementModel, squares: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write the folder whole or not at all; an older folder of that name is replaced.

    `meta` is JSON: model_id, template, heads, towers, model (conf), statistics, trained. `squares`: table -> Adagrad's state.
    """
    write_folder(Path(directory), WEIGHTS, tensors_of(model, squares), META, meta)


def tensors_of(model: EngagementModel, squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learned, by name: the tensors in use, not copies."""
    return model.state_dict() | {f"{SQUARES}{name}": state for name, state in squares.items()}


def write_folder(target: Path, weights: str, tensors: Mapping[str, Tensor], meta_name: str, meta: Mapping[str, Any]) -> None:
    """Write `weights` and the JSON file `meta_name`, which then holds its sha256: a folder whole or not at all, in place of an older one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f".{target.name}.{what}") for what in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / weights)
    (fresh / meta_name).write_text(json.dumps({**meta, "sha256": sha256(fresh / weights)}, indent=1), encoding="utf-8")
    for path in (fresh / weights, fresh / meta_name, fresh):
        _fsync(path)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    _fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def load(directory: str | Path) -> tuple[EngagementModel, dict[str, Any]]:
    """The model, in eval mode on the CPU, and its bundle.json."""
    meta = read_meta(directory)
    return model_of(directory, meta, read_tensors(directory, meta)), meta


def model_of(directory: str | Path, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], mapped: bool = False) -> EngagementModel:
    """The model of a bundle's parts, in eval mode. `mapped`: on the tensors as they were read, which processes of one machine then share in
    memory, and which are not to be trained."""
    learned = {name: tensor for name, tensor in tensors.items() if not name.startswith(SQUARES)}
    try:
        model = build(meta)
        model.load_state_dict(opened(learned, model.state_dict()), assign=mapped)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BundleDamaged(f"{directory}: {META} and {WEIGHTS} do not belong together ({error}); train the model again") from error
    return model.eval()


def read_meta(directory: str | Path) -> dict[str, Any]:
    path = Path(directory) / META
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleDamaged(f"{path} is not readable ({error}); train the model again, or name the folder of another bundle") from error


def read_tensors(directory: str | Path, meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, once their sha256 is bundle.json's."""
    path = Path(directory) / WEIGHTS
    try:
        if sha256(path) != meta.get("sha256"):
            raise BundleDamaged(f"{path} is not the file that was saved: its sha256 differs from {META}'s; train the model again")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleDamaged(f"{path} is not readable ({error}); train the model again") from error


def build(meta: Mapping[str, Any]) -> EngagementModel:
    """A model of the shape that bundle.json describes, its weights still random."""
    heads = {name: Head.model_validate(head) for name, head in meta["heads"].items()}
    base_TH = torch.zeros(len(meta["towers"]) + 1, len(heads))
    # A bundle from before models/affinity.py does not name it.
    template, conf = Template.model_validate(meta["template"]), ModelConf.model_validate({"affinity": False} | meta["model"])
    return EngagementModel(template, heads, meta["towers"], conf, meta["statistics"], base_TH)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
