"""Layers of a head's own: they reach that head alone, start as nothing, and are carried by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conf.training import ModelConf
from models.engagement import EngagementModel
from models.manifest import read_manifest
from models.predictor import Predictor
from models.towers import PrivateLayers
from models.trainer import TrainRequest, train
from models.warm_start import warm
from tests.models.small_model import BASE, STATISTICS, features, open_gates, small_model
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TOWERS, TRAINING, example_columns, write_snapshot

CONF = SMALL.model_copy(update={"private_layers": {"save": (6, 5)}})


def private_model(conf: ModelConf = CONF) -> EngagementModel:
    torch.manual_seed(1)
    return EngagementModel(TEMPLATE, HEADS, TOWERS, conf, STATISTICS, BASE)


def private_of(model: EngagementModel) -> PrivateLayers:
    assert model.private is not None
    return model.private


def test_before_training_they_add_nothing_and_the_rest_is_as_without_them():
    model, plain = private_model(), small_model()
    assert torch.equal(model(features()), plain(features()))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())


def test_they_reach_their_own_head_alone_and_a_towers_read_out_its_own_rows_alone():
    model, rows = private_model(), features()
    before, save = model(rows), list(HEADS).index("save")
    (own,) = private_of(model).of_head.values()
    own.layers[2].bias.data.fill_(1.0)  # lest no unit of a row is above 0
    own.residual.of_tower[1].weight.data.normal_()
    changed_BH = model(rows) != before
    assert torch.equal(changed_BH[:, save], rows.tower_B == 1)
    own.shared.weight.data.normal_()
    changed_BH = model(rows) != before
    assert changed_BH[:, save].all()
    assert not changed_BH[:, [h for h in range(len(HEADS)) if h != save]].any()


def test_a_read_out_by_hand():
    private = PrivateLayers(width=2, heads=3, towers=1, widths={1: (2,)}, dropout=0.0)
    own = private.of_head["1"]
    open_gates(private)
    with torch.no_grad():
        own.layers[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        own.layers[0].bias.zero_()
        own.shared.weight.copy_(torch.tensor([[10.0, 1.0]]))
        own.residual.of_tower[0].weight.fill_(100.0)
    # relu(1 + 2, 1 - 2) = (3, 0): 30, and in tower 0 another 300. With an input a head, the second's is (4, 1): (5, 3): 53, 853.
    assert private(torch.tensor([[[1.0, 2.0]]] * 2), torch.tensor([-1, 0])).tolist() == [[0, 30, 0], [0, 330, 0]]
    inputs = torch.tensor([[[9.0, 9.0], [4.0, 1.0], [9.0, 9.0]]] * 2)
    assert private(inputs, torch.tensor([-1, 0])).tolist() == [[0, 53, 0], [0, 853, 0]]


def test_a_row_gets_the_same_bits_whatever_rows_stand_beside_it():
    for bottom in ("shared", "mmoe"):
        model = private_model(ModelConf.model_validate({"bottom": bottom, "private_layers": {"save": (16,), "good_click": (7, 3)}})).eval()
        for parameter in private_of(model).parameters():
            parameter.data.normal_()
        rows = features(300)
        with torch.inference_mode():
            together = model(rows)
            for first, last in ((0, 1), (1, 3), (3, 40), (40, 300)):
                alone = model(type(rows)(*(tensor[first:last] for tensor in rows)))
                assert torch.equal(alone, together[first:last]), (bottom, first, last)


def test_a_parent_without_them_is_carried_whole_and_they_are_told_as_fresh(tmp_path: Path):
    columns = example_columns(400)
    snapshot = write_snapshot(tmp_path / "snapshot", columns)
    parent = train(TrainRequest(str(snapshot), str(tmp_path / "parent"), "parent", SMALL, TRAINING, epochs=1, seed=1)).bundle_dir
    start = warm(read_manifest(snapshot), CONF, torch.ones(3), parent)
    assert {name for name in start.fresh if not name.startswith("private.of_head.2.")} == set()
    # Weight and bias of two layers, of the shared read-out and of each tower's, which has a gate too.
    assert len(start.fresh) == 2 * (2 + 1 + len(TOWERS)) + len(TOWERS)
    child = train(TrainRequest(str(snapshot), str(tmp_path / "child"), "child", CONF, TRAINING, epochs=1, seed=1, parent=parent))
    assert child.fresh == start.fresh
    read_out = Predictor(child.bundle_dir).model.get_parameter("private.of_head.2.shared.weight")
    assert read_out.abs().max() > 0.001  # it learned


def test_they_go_by_the_names_of_head_and_tower(tmp_path: Path):
    columns = example_columns(400)
    snapshot = write_snapshot(tmp_path / "snapshot", columns)
    parent = train(TrainRequest(str(snapshot), str(tmp_path / "parent"), "parent", CONF, TRAINING, epochs=1, seed=1)).bundle_dir
    heads, towers = {"save": HEADS["save"], "click": HEADS["click"]}, ["audio", *TOWERS]
    moved = columns | {"tower": columns["tower"] + 1}
    manifest = read_manifest(write_snapshot(tmp_path / "moved", moved, heads=heads, towers=towers))
    start = warm(manifest, CONF, torch.ones(2), parent)
    assert {name for name in start.fresh if name.startswith("private.")} == {
        f"private.of_head.0.residual.{part}" for part in ("of_tower.0.weight", "of_tower.0.bias", "gate.of_tower.0.gate_over_pace")
    }
    rows = features(40)
    before = Predictor(parent).model(rows)[:, 2]
    now = start.model.eval()(rows._replace(tower_B=rows.tower_B + 1))[:, 0]
    assert np.allclose(now.detach(), before.detach(), atol=1e-6)


def test_a_bundle_with_them_comes_back(tmp_path: Path):
    snapshot = write_snapshot(tmp_path / "snapshot", example_columns(400))
    result = train(TrainRequest(str(snapshot), str(tmp_path / "model"), "model", CONF, TRAINING, epochs=1, seed=1))
    assert np.isfinite(Predictor(result.bundle_dir).log_odds(example_columns(50, seed=3))).all()
    assert result.loss["save"] == pytest.approx(0.2, abs=0.2)
