"""Updates, held to hand arithmetic."""

from __future__ import annotations

import pytest
import torch

from conf.training import Training
from models.gates import SUFFIX
from models.optimizers import FlatGradient, adagrad_, adamw, pace
from tests.models.small_model import small_model


def test_adagrad_with_one_square_a_row_by_hand():
    weights, squares = torch.zeros(1, 2), torch.zeros(1, 1)
    gradient = torch.tensor([[3.0, 4.0]])  # mean square 12.5
    adagrad_(weights, squares, gradient, learning_rate=0.1)
    assert squares.item() == pytest.approx(12.5)
    assert weights[0].tolist() == pytest.approx([-0.3 / 12.5**0.5, -0.4 / 12.5**0.5])
    adagrad_(weights, squares, gradient, learning_rate=0.1)
    assert squares.item() == pytest.approx(25)
    assert weights[0].tolist() == pytest.approx([-0.3 / 12.5**0.5 - 0.3 / 5, -0.4 / 12.5**0.5 - 0.4 / 5])


def test_adagrad_with_one_square_a_weight_takes_steps_of_one_size_at_first():
    weights, squares = torch.zeros(1, 2), torch.zeros(1, 2)
    adagrad_(weights, squares, torch.tensor([[3.0, -0.04]]), learning_rate=0.1)
    assert squares[0].tolist() == pytest.approx([9, 0.0016])
    assert weights[0].tolist() == pytest.approx([-0.1, 0.1])


def test_the_gradient_of_all_dense_parameters_is_one_buffer():
    model = small_model()
    flat = FlatGradient(model, extra=2)
    dense = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.stack([parameter.sum() for parameter in dense]).sum().backward()
    assert flat.gradient.tolist() == [1.0] * sum(parameter.numel() for parameter in dense)
    assert flat.extra.tolist() == [0, 0]
    assert model.representation.embedding.table.grad is None


def test_a_gradient_is_clipped_to_the_largest_norm_and_a_short_one_is_left_alone():
    flat = FlatGradient(small_model(), extra=1)
    flat.gradient[:2] = torch.tensor([3.0, 4.0])
    flat.extra[0] = 7
    assert flat.clip_(1.0) == pytest.approx(5)
    assert flat.gradient[:2].tolist() == pytest.approx([0.6, 0.8])
    assert flat.extra.item() == 7
    assert flat.clip_(10.0) == pytest.approx(1)
    assert flat.gradient[:2].tolist() == pytest.approx([0.6, 0.8])


def test_what_a_tower_has_of_its_own_decays_by_residual_decay():
    model = small_model()
    optimizer = adamw(model, Training(weight_decay=0.1, residual_decay=0.2))
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: decay[id(parameter)] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found["bottom.layers.0.weight"] == 0.1
    assert found["bottom.layers.0.bias"] == 0
    assert found["towers.shared.0.weight"] == 0.1
    assert found["towers.residual.of_tower.0.0.weight"] == 0.2
    assert found["heads.residual.of_tower.1.bias"] == 0.2
    assert {found[name] for name in found if name.endswith(SUFFIX)} == {0}
    of_gates = {id(parameter): group["gates"] for group in optimizer.param_groups for parameter in group["params"]}
    assert all(of_gates[id(parameter)] == name.endswith(SUFFIX) for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_learning_rates_rise_over_the_warm_up_and_fall_to_zero():
    assert [pace(step, 6, 1 / 3) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])
    assert pace(0, 1, 0.05) == 1  # one step is a whole one
