"""Bottoms, held to hand arithmetic: how experts are mixed, and what each head can read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conf.training import ModelConf
from models.engagement import EngagementModel
from models.experts import Linear, MixtureOfExperts, ProgressiveExtraction, SharedBottom, mixed
from tests.models.small_model import BASE, STATISTICS, features
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TOWERS

X = torch.tensor([[1.0, 2.0]])


def constant(module, value):
    """Make a layer, or the last one of several, give `value` whatever it reads."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(value)


def test_a_layer_gives_a_row_the_same_bits_wherever_it_lies_in_memory():
    torch.manual_seed(1)
    x = torch.randn(60, 27)
    for out in (1, 3, 5, 12, 64):
        layer = Linear(27, out)
        assert torch.equal(layer(x[7:10]), layer(x)[7:10]), out


def test_a_mixture_is_the_sum_of_experts_by_their_shares():
    experts = torch.tensor([[[1.0, 10.0], [3.0, 30.0]]])
    assert mixed(torch.tensor([[0.25, 0.75]]), experts).tolist() == [[2.5, 25.0]]


def test_a_shared_bottom_gives_all_heads_the_same():
    assert SharedBottom(2, (4, 3), 0.0)(X).shape == (1, 1, 3)


def test_each_head_mixes_the_experts_by_its_own_gate():
    bottom = MixtureOfExperts(2, (3,), 0.0, experts=2, heads=2)
    for number, expert in enumerate(bottom.experts):
        constant(expert, 10.0 * (number + 1))
    first, second = bottom.gates.of_head
    constant(first, 0.0)
    constant(second, 0.0)
    second.bias.data[1] = 100.0
    assert bottom(X).tolist() == [[[15.0] * 3, [20.0] * 3]]


def test_an_expert_of_a_heads_own_reaches_no_other_head():
    bottom = ProgressiveExtraction(2, (3,), 0.0, experts=1, heads=2)
    (level,) = bottom.levels
    constant(level.shared[0], 2.0)
    for number, own in enumerate(level.own.of_head):
        constant(own, 10.0 * (number + 1))
    for gate in level.gates.of_head:
        constant(gate, 0.0)
    assert bottom(X).tolist() == [[[6.0] * 3, [11.0] * 3]]  # halfway between the shared expert and the own one
    constant(level.own.of_head[1], 1000.0)
    assert bottom(X)[0, 0].tolist() == [6.0] * 3


def test_the_shared_input_of_the_next_level_mixes_every_expert():
    bottom = ProgressiveExtraction(2, (3, 2), 0.0, experts=1, heads=2)
    first = bottom.levels[0]
    constant(first.shared[0], 3.0)
    for number, own in enumerate(first.own.of_head):
        constant(own, 6.0 * (number + 1))
    constant(first.gate, 0.0)
    _, shared = first(X.unsqueeze(1).expand(-1, 2, -1), X)
    assert torch.allclose(shared, torch.full((1, 3), 7.0))  # (3 + 6 + 12) / 3


CHOICES = [
    {"bottom": "mmoe", "experts": 2},
    {"bottom": "ple", "experts": 2},
    {"cross": "latent", "cross_order": 3},
    {"cross": "dcn_v2", "bottom": "mmoe"},
    {"towers": "plain"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_whatever_the_layers_a_row_gets_the_same_bits_alone_and_its_own_tower_only(choice: dict):
    torch.manual_seed(1)
    conf = ModelConf.model_validate(SMALL.model_dump() | choice)
    model = EngagementModel(TEMPLATE, HEADS, TOWERS, conf, STATISTICS, BASE).eval()
    rows = features(60)
    with torch.inference_mode():
        together = model(rows)
        assert torch.equal(model(type(rows)(*(tensor[7:10] for tensor in rows))), together[7:10])
        for module in model.residual_modules():
            for parameter in module.of_tower[1].parameters():
                parameter.data.normal_()
        changed = (model(rows) != together).any(dim=1)
    assert changed.any() and torch.equal(changed, rows.tower_B == 1)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_weight_learns(choice: dict):
    torch.manual_seed(1)
    conf = ModelConf.model_validate(SMALL.model_dump() | choice)
    model = EngagementModel(TEMPLATE, HEADS, TOWERS, conf, STATISTICS, BASE)
    torch.manual_seed(2)  # whatever the model drew: with some seeds all units of a narrow layer are at rest
    for module in model.residual_modules():
        for parameter in module.parameters():
            if not parameter.any():  # a residual starts at zero, and so would the gradient of what feeds it
                torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(model.linear.table)  # nor would its gate have any
    rows = features(600)
    (model(rows) * torch.randn(3)).sum().backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is not None and not parameter.grad.any()]
    assert still == []
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
