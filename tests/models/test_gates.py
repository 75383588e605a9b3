"""Gates of what a tower has of its own: they open where sources differ, close where they do not, and rest after the first epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import bundle
from models.engagement import EngagementModel
from models.gates import START, SUFFIX
from models.manifest import read_manifest
from models.metrics import sigmoid
from models.towers import PerTower
from models.trainer import Batch, Fit, TrainRequest, train
from models.warm_start import warm
from tests.models.small_model import META, features, small_model
from tests.models.snapshots import HEADS, SMALL, TOWERS, TRAINING, example_columns, write_snapshot

ROWS = 20_000


def gates_of(model: EngagementModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.endswith(SUFFIX)}


def trained(folder: Path, columns: dict[str, np.ndarray], epochs: int = 1) -> EngagementModel:
    snapshot = write_snapshot(folder / "snapshot", columns, row_group_rows=1000)
    request = TrainRequest(str(snapshot), str(folder / "model"), "model", SMALL, TRAINING, epochs=epochs, seed=1)
    return bundle.load(train(request).bundle_dir)[0]


def liked_ads(rows: int, turned: float) -> dict[str, np.ndarray]:
    """Ten ads; a click tells which, by tower: `turned` 1 for the same ads in all towers, -1 for the others in tower 1."""
    columns, draw = example_columns(rows), np.random.default_rng(7)
    columns["ad_id"] = (columns["ad_id"] % 10 + 1).astype(np.int32)
    sign = np.where(columns["ad_id"] % 2 == 0, 1, -1) * np.where(columns["tower"] == 1, turned, 1)
    columns["label_click"] = (draw.random(rows) < sigmoid(1.5 * sign - 1)).astype(np.int8)
    columns["label_good_click"] = (columns["label_click"] * columns["label_good_click"]).astype(np.int8)
    return columns


def test_a_row_counts_its_own_towers_module_as_far_as_its_gate_is_open():
    own = PerTower(2, lambda: torch.nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for module in own.of_tower:
            module.weight.fill_(1.0)
        assert own.gate is not None
        own.gate.of_tower[1].gate_over_pace.fill_(0.0)
    found = own(torch.tensor([[2.0], [2.0], [2.0]]), torch.tensor([0, 1, -1]), 1)
    assert found.flatten().tolist() == pytest.approx([2 * START, 0, 0])
    assert PerTower(2, lambda: torch.nn.Linear(1, 1), whole=True).gate is None


def test_ids_of_a_tower_count_where_towers_differ_and_less_where_they_do_not(tmp_path: Path):
    opened = {}
    for name, turned in (("differ", -1.0), ("alike", 1.0)):
        model = trained(tmp_path / name, liked_ads(ROWS, turned))
        opened[name] = [gate().item() for gate in model.linear.gate.of_tower]
    assert min(opened["differ"]) > START
    assert all(alike < differ for alike, differ in zip(opened["alike"], opened["differ"], strict=True))


def test_later_epochs_leave_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    step, after = Fit.step, list[dict[str, Tensor]]()

    def watched(fit: Fit, batch: Batch) -> None:
        step(fit, batch)
        after.append({name: tensor.clone() for name, tensor in gates_of(fit.model).items()})

    monkeypatch.setattr(Fit, "step", watched)
    trained(tmp_path, liked_ads(2000, -1.0), epochs=2)
    begun, first, last = after[0], after[len(after) // 2 - 1], after[-1]
    assert all(not torch.equal(begun[name], first[name]) for name in begun)
    assert all(torch.equal(first[name], last[name]) for name in begun)


def test_a_bundle_from_before_them_is_read_with_all_of_them_open(tmp_path: Path):
    model = small_model()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    older = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(SUFFIX)}
    bundle.write_folder(tmp_path / "older", bundle.WEIGHTS, older, bundle.META, META)
    read, _ = bundle.load(tmp_path / "older")
    for name, tensor in gates_of(read).items():
        model.state_dict()[name].copy_(tensor)
    assert torch.equal(read(features()), model.eval()(features()))
    assert all(gate().item() == pytest.approx(1) for gate in read.linear.gate.of_tower)


def test_a_warm_start_keeps_a_towers_gates_by_its_name_and_starts_a_new_ones_low(tmp_path: Path):
    columns = example_columns(800)
    parent = trained(tmp_path, columns)
    later = write_snapshot(tmp_path / "child", columns, towers=["feed", *reversed(TOWERS)])
    start = warm(read_manifest(later), SMALL, torch.ones(len(HEADS)), str(tmp_path / "model"))
    for before, after in ((parent.linear.gate, start.model.linear.gate), (parent.heads.residual.gate, start.model.heads.residual.gate)):
        assert before is not None and after is not None
        assert [gate().item() for gate in after.of_tower] == pytest.approx([START, *(gate().item() for gate in reversed(before.of_tower))])
