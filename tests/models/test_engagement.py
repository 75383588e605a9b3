"""The model's layers: what each computes, and for which rows."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from conf.template import Template
from conf.training import ModelConf
from models.columns import Columns
from models.engagement import EngagementModel
from models.representation import Features, Representation
from tests.models.small_model import BASE, STATISTICS, features, small_model
from tests.models.snapshots import HEADS, TEMPLATE, TOWERS


def shake_residuals(model: EngagementModel, tower: int) -> None:
    for module in model.residual_modules():
        for parameter in module.of_tower[tower].parameters():
            parameter.data.normal_()


def represented(transform: str, raw: list[float], missing: list[float], statistics: dict) -> list[float]:
    template = Template.model_validate({"features": [{"column": "x", "family": "user", "type": "continuous", "transform": transform}]})
    layer = Representation(Columns(template, 1), 4, statistics)
    row = Features(
        torch.tensor(raw)[:, None],
        torch.tensor(missing)[:, None],
        torch.zeros(len(raw), 0),
        torch.zeros(len(raw), 0).long(),
        torch.zeros(1),
    )
    output: Tensor = layer.numbers(row)
    assert output.shape == (len(raw), 2)
    assert output[:, 1].tolist() == missing
    return output[:, 0].tolist()


def test_numbers_are_clipped_and_standardised_and_a_missing_one_stands_at_the_mean():
    fitted = {"x": {"low": -1.0, "high": 4.0, "mean": 2.0, "std": 0.5}}
    assert represented("squash", [3.0, 100.0, -100.0, 0.0], [0, 0, 0, 1], fitted) == [2.0, 4.0, -6.0, 0.0]


def test_log_is_taken_with_the_sign_before_the_squash():
    fitted = {"x": {"low": -10.0, "high": 10.0, "mean": 1.0, "std": 2.0}}
    assert represented("log", [0.0, 9.0, -9.0], [0, 0, 0], fitted) == pytest.approx([-0.5, (log(10) - 1) / 2, (-log(10) - 1) / 2])


def test_a_raw_number_passes_and_a_wild_one_is_cut():
    assert represented("none", [0.25, 3e38, -3e38], [0, 0, 0], {}) == [0.25, 1e6, -1e6]


def test_a_number_never_seen_in_training_or_constant_there_tells_nothing():
    constant = {"x": {"low": 5.0, "high": 5.0, "mean": 5.0, "std": 0.0}}
    assert represented("squash", [4.0, 1e9], [0, 0], constant) == [0.0, 0.0]
    assert represented("squash", [4.0, 1e9], [0, 0], {}) == [0.0, 0.0]


def test_before_training_every_tower_is_the_shared_tower_at_its_own_base_rate():
    model = small_model()
    outputs = [model(features(tower=tower)) - BASE[tower] for tower in (0, 1, 2, -1)]
    for output in outputs[1:]:
        assert torch.allclose(output, outputs[0], atol=1e-6)


def test_a_row_depends_on_its_own_tower_only():
    model, rows = small_model(), features()
    before = model(rows)
    shake_residuals(model, tower=1)
    changed = (model(rows) != before).any(dim=1)
    assert changed.any()
    assert torch.equal(changed, rows.tower_B == 1)


def test_a_tower_computes_its_own_rows_only_and_nothing_where_it_has_none():
    model, rows = small_model(), features()
    computed = dict[int, int]()
    for tower, module in enumerate(model.towers.residual.of_tower):
        module.register_forward_hook(lambda _, inputs, __, tower=tower: computed.update({tower: len(inputs[0])}))
    model(rows._replace(tower_B=rows.tower_B.where(rows.tower_B != 2, -1)))
    assert computed == {tower: int((rows.tower_B == tower).sum()) for tower in (0, 1)}


def test_a_rows_gradient_reaches_the_shared_parts_and_its_own_tower():
    model = small_model()
    for tower in range(3):
        shake_residuals(model, tower)
    model(features(tower=1)).sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert "bottom.layers.0.weight" in touched
    assert "towers.residual.of_tower.1.0.weight" in touched
    assert not {name for name in touched if ".of_tower.0." in name or ".of_tower.2." in name}


def test_a_row_gets_the_same_bits_whatever_rows_stand_beside_it():
    # The same inventory scored twice must give the same table, however Spark cut it into batches.
    for heads in (HEADS, {"click": HEADS["click"]}):
        torch.manual_seed(1)
        model = EngagementModel(TEMPLATE, heads, TOWERS, ModelConf(), STATISTICS, BASE[:, : len(heads)]).eval()
        shake_residuals(model, tower=0)
        rows = features(400)
        with torch.inference_mode():
            together = model(rows)
            for first, last in ((0, 1), (1, 3), (3, 10), (10, 43), (43, 400)):
                assert torch.equal(model(Features(*(tensor[first:last] for tensor in rows))), together[first:last]), (first, last)
