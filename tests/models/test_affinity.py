"""Products of a viewer's and an ad's latent vectors: they start as nothing, and learn what fully connected layers do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.template import Template
from models import bundle
from models.affinity import PACE, Affinity
from models.columns import Columns
from models.engagement import EngagementModel
from models.manifest import read_manifest
from models.metrics import sigmoid
from models.predictor import Predictor
from models.trainer import TrainRequest, train
from models.warm_start import warm
from tests.models.small_model import BASE, STATISTICS, features, open_gates, small_model
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TOWERS, TRAINING, example_columns, write_snapshot

WITHOUT = SMALL.model_copy(update={"affinity": False})


def affinity_of(model: EngagementModel) -> Affinity:
    assert model.affinity is not None
    return model.affinity


def test_before_training_they_add_nothing():
    model = small_model()
    plain = EngagementModel(TEMPLATE, HEADS, TOWERS, WITHOUT, STATISTICS, BASE)
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("affinity.")})
    assert torch.equal(model(features()), plain(features()))


def test_a_product_by_hand():
    columns = Columns(TEMPLATE, 1)  # numbers: age, spend, their flags, that of visual, visual twice; embedded: ad_id, device, row
    affinity = Affinity(columns, 1, 2, 1)
    open_gates(affinity)
    with torch.no_grad():
        affinity.viewer.of_numbers.weight.copy_(torch.tensor([[1.0, 10.0, 0.0, 0.0]]) / PACE)  # age, spend, flags
        affinity.shown.of_numbers.weight.copy_(torch.tensor([[0.0, 1.0, 100.0]]) / PACE)  # flag, visual
        affinity.shared.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        affinity.residual.of_tower[0].weight.copy_(torch.tensor([[0.5], [0.0]]))
    numbers, embedded = torch.tensor([[2.0, 1.0, 9.0, 9.0, 9.0, 3.0, 0.1]] * 2), torch.tensor([[4.0, 5.0, 6.0]] * 2)
    # Viewer 2 + 10 + device 5 + row 6, ad 3 + 10 + ad_id 4.
    product = 23 * 17
    found = affinity(numbers, embedded, torch.tensor([-1, 0])).tolist()
    assert found == [pytest.approx([product, -product], rel=1e-5), pytest.approx([1.5 * product, -product], rel=1e-5)]


def test_a_row_gets_the_same_bits_whatever_rows_stand_beside_it():
    model, rows = small_model().eval(), features(300)
    for parameter in affinity_of(model).parameters():
        parameter.data.normal_()
    with torch.inference_mode():
        together = model(rows)
        for first, last in ((0, 1), (1, 3), (3, 40), (40, 300)):
            assert torch.equal(model(type(rows)(*(tensor[first:last] for tensor in rows))), together[first:last]), (first, last)


@pytest.mark.parametrize("families", ["user", "ad"])
def test_a_template_of_one_side_has_none(families: str):
    alone = Template.model_validate({"features": [f for f in TEMPLATE.model_dump(mode="json")["features"] if f["family"] == families]})
    assert EngagementModel(alone, HEADS, TOWERS, SMALL, STATISTICS, BASE).affinity is None


def test_it_learns_in_one_epoch_which_viewers_and_ads_go_together(tmp_path: Path):
    """A click is likely where a viewer's number and one of the ad's have the same sign; neither tells anything by itself."""
    loss = {}
    for name, conf in (("with", SMALL), ("without", WITHOUT)):
        rows = matched(example_columns(20_000), seed=1)
        snapshot = write_snapshot(tmp_path / name, rows, row_group_rows=1000)
        request = TrainRequest(str(snapshot), str(tmp_path / f"{name}-model"), name, conf, TRAINING, epochs=1, seed=1)
        fresh = matched(example_columns(4000, seed=2), seed=2)
        z = Predictor(train(request).bundle_dir).log_odds(fresh)[:, 0]
        for what, log_odds in ((name, z), ("truth", 2 * fresh["age"] * fresh["visual__0"])):
            loss[what] = np.logaddexp(0, np.where(fresh["label_click"] == 1, -log_odds, log_odds)).mean()
    assert loss["with"] < 0.7 * loss["without"] + 0.3 * loss["truth"], loss


def matched(rows: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    click = np.random.default_rng(seed).random(len(rows["age"])) < sigmoid(2 * rows["age"] * rows["visual__0"])
    # An id of a row was another row's in the training: as good as random.
    return rows | {"label_click": click.astype(np.int8), "label_good_click": np.where(click, rows["label_good_click"], 0).astype(np.int8)}


def test_a_parent_from_before_it_is_read_and_carried_whole(tmp_path: Path):
    snapshot = write_snapshot(tmp_path / "snapshot", example_columns(400))
    parent = train(TrainRequest(str(snapshot), str(tmp_path / "parent"), "parent", WITHOUT, TRAINING, epochs=1, seed=1)).bundle_dir
    meta = Path(parent) / bundle.META
    told = json.loads(meta.read_text())
    del told["model"]["affinity"]
    meta.write_text(json.dumps(told))
    start, rows = warm(read_manifest(snapshot), SMALL, torch.ones(3), parent), features(40)
    assert start.fresh
    assert {name.split(".")[0] for name in start.fresh} == {"affinity"}
    assert torch.equal(start.model.eval()(rows), Predictor(parent).model(rows))


def test_it_goes_by_the_names_of_head_and_tower(tmp_path: Path):
    columns = example_columns(400)
    parent = train(
        TrainRequest(
            str(write_snapshot(tmp_path / "snapshot", columns)), str(tmp_path / "parent"), "parent", SMALL, TRAINING, epochs=1, seed=1
        )
    ).bundle_dir
    heads, towers = {"save": HEADS["save"], "click": HEADS["click"]}, ["audio", *TOWERS]
    moved = read_manifest(write_snapshot(tmp_path / "moved", columns | {"tower": columns["tower"] + 1}, heads=heads, towers=towers))
    start = warm(moved, SMALL, torch.ones(2), parent)
    assert {name for name in start.fresh if name.startswith("affinity.")} == {
        f"affinity.residual.{part}" for part in ("of_tower.0.weight", "of_tower.0.bias", "gate.of_tower.0.gate_over_pace")
    }
    before, after = (affinity_of(model).state_dict() for model in (Predictor(parent).model, start.model))
    assert before["shared.weight"].abs().max() > 0.001  # it learned
    assert torch.equal(after["shared.weight"], before["shared.weight"][[2, 0]])
    assert torch.equal(after["residual.of_tower.1.weight"], before["residual.of_tower.0.weight"][[2, 0]])
