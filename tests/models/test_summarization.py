"""Summarization groups: what each gives, held to hand arithmetic, and that the whole model reads it."""

from __future__ import annotations

import pytest
import torch

from conf.template import Template
from conf.training import ModelConf
from models.columns import Columns
from models.engagement import EngagementModel
from models.summarization import Summarization, groups_of
from tests.models.small_model import BASE, STATISTICS, features, tables_of
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TOWERS


def grouped(**groups: str) -> Template:
    """The template of the snapshots, its features in these groups."""
    return Template.model_validate({"features": [{**f.model_dump(), "group": groups.get(f.column)} for f in TEMPLATE.features]})


def test_features_alone_pass_and_a_group_is_one_linear_map_of_its_features():
    layer = Summarization(Columns(grouped(ad_id="who", row="who"), 3), 2)
    (of_group,) = layer.of_group
    with torch.no_grad():
        of_group.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0], [0.0, 0.0, 0.0, 1.0]]))
        of_group.bias.copy_(torch.tensor([0.5, 0.25]))
    found = layer(torch.tensor([[1.0, 2.0, 7.0, 8.0, 3.0, 4.0]]))  # ad_id, device, row
    assert found.tolist() == [[7, 8, 4321.5, 4.25]]
    assert layer.width == 4


def test_groups_stand_in_the_order_in_which_the_template_names_them():
    columns = Columns(grouped(ad_id="b", device="a", row="b"), 3)
    assert groups_of(columns) == {"b": [0, 2], "a": [1]}
    assert Summarization(columns, 4).width == 8


def test_without_groups_the_layer_has_no_weights_and_hands_on_the_very_tensor():
    layer, embedded = Summarization(Columns(TEMPLATE, 3), 2), torch.randn(5, 6)
    assert layer(embedded) is embedded
    assert (layer.state_dict(), layer.width) == ({}, 6)


def model_of(template: Template, conf: ModelConf = SMALL) -> EngagementModel:
    torch.manual_seed(1)
    return EngagementModel(template, HEADS, TOWERS, conf, STATISTICS, BASE)


def test_the_layers_above_get_narrower_by_what_a_group_takes_together():
    widths = [model_of(template).bottom.layers[0].in_features for template in (TEMPLATE, grouped(ad_id="g", device="g", row="g"))]
    assert widths[0] - widths[1] == 2 * SMALL.embedding_width


@pytest.mark.parametrize("groups", [{"ad_id": "g", "row": "g"}, {"ad_id": "g", "device": "g", "row": "h"}], ids=str)
def test_a_row_gets_the_same_bits_whatever_rows_stand_beside_it(groups: dict[str, str]):
    model, rows = model_of(grouped(**groups), ModelConf()).eval(), features(400)
    with torch.inference_mode():
        together = model(rows)
        for first, last in ((0, 1), (1, 3), (3, 10), (10, 43), (43, 400)):
            assert torch.equal(model(type(rows)(*(tensor[first:last] for tensor in rows))), together[first:last]), (first, last)


def test_a_groups_weights_learn_and_so_do_the_rows_of_its_features():
    model, rows = model_of(grouped(ad_id="g", row="g"), ModelConf()), features(64)
    lookup = tables_of(model)[0].lookup(rows.ids_BF)
    model(rows, lookup).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.summarization.parameters())
    assert lookup.embedding.grad is not None
    assert lookup.embedding.grad.any(dim=1).all()
