"""A bundle comes back as it was saved, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models import bundle
from models.errors import BundleDamaged
from tests.models.small_model import META, features, small_model


def saved(directory: Path, shift: float = 0.0) -> Path:
    model = small_model()
    model.heads.shared.bias.data += shift
    bundle.save(directory, model, {name: torch.zeros_like(table) for name, table in model.tables.items()}, META)
    return directory


def test_a_bundle_comes_back_as_the_same_model(tmp_path: Path):
    model, meta = bundle.load(saved(tmp_path / "m1"))
    assert torch.equal(model(features()), small_model()(features()))
    assert not model.training
    assert {key: meta[key] for key in META} == META
    assert sorted(path.name for path in (tmp_path / "m1").iterdir()) == ["bundle.json", "model.safetensors"]


def test_a_flipped_byte_is_refused(tmp_path: Path):
    path = saved(tmp_path / "m1") / bundle.WEIGHTS
    whole = path.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BundleDamaged, match=r"model.safetensors is not the file that was saved: its sha256 differs"):
            bundle.load(tmp_path / "m1")


def test_a_bundle_cut_short_or_without_a_file_is_refused(tmp_path: Path):
    for name in (bundle.WEIGHTS, bundle.META):
        directory = saved(tmp_path / name)
        path = directory / name
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(BundleDamaged, match=name):
            bundle.load(directory)
        path.unlink()
        with pytest.raises(BundleDamaged, match=name):
            bundle.load(directory)


def test_weights_of_another_shape_than_described_are_refused(tmp_path: Path):
    path = saved(tmp_path / "m1") / bundle.META
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"towers": ["shopping"]}))
    with pytest.raises(BundleDamaged, match="do not belong together"):
        bundle.load(tmp_path / "m1")


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(tmp_path: Path):
    saved(tmp_path / "m1")
    (tmp_path / "m1" / "calibrator.json").write_text("{}")
    (tmp_path / ".m1.new").mkdir()  # what a killed run left
    model, _ = bundle.load(saved(tmp_path / "m1", shift=1.0))
    assert torch.allclose(model(features()), small_model()(features()) + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["m1"]
    assert not (tmp_path / "m1" / "calibrator.json").exists()  # it was fitted to another model's scores
