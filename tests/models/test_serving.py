"""What is known only once an ad is served: learned beside the network, and no part of any score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from conf.schema import Head
from conf.template import Template
from conf.training import ModelConf
from models.batches import read_served
from models.columns import Columns
from models.manifest import Manifest, read_manifest
from models.metrics import sigmoid
from models.predictor import Predictor
from models.representation import Features
from models.serving import ServingTerm
from models.trainer import TrainRequest, train
from models.warm_start import warm
from tests.models.placed import ADDITIVE, PLACED, placed_columns
from tests.models.snapshots import SMALL, TEMPLATE, TRAINING, write_snapshot

DEPTH = {"depth": {"low": -10.0, "high": 10.0, "mean": 2.0, "std": 2.0}}
EXAMPLES = placed_columns(600) | {"weight": np.linspace(0.5, 1.5, 600).astype(np.float32)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_snapshot(tmp_path_factory.mktemp("snapshots") / "placed", EXAMPLES, PLACED))


@pytest.fixture(scope="module")
def trained(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("models") / "placed"
    return train(TrainRequest(str(manifest.directory), str(directory), "placed", ADDITIVE, TRAINING, epochs=2, seed=1)).bundle_dir


def served(columns: dict[str, np.ndarray]) -> Features:
    return Features.of(Columns(PLACED, 3, serving=True).arrays(columns))


def test_a_term_by_hand():
    """One head, two towers. Inputs: depth squashed, its flag, then slot's four ids: missing, unseen, first, second."""
    term = ServingTerm(PLACED, heads=1, towers=2, statistics=DEPTH)
    with torch.no_grad():
        term.weight[0, :, 0] = torch.tensor([10.0, 3.0, 0.0, 0.0, 0.5, 0.25])  # of all towers
        term.weight[2, :, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 7.0, 0.0])  # of tower 1 alone
        term.mean_TX[:2] = torch.tensor([[0.0] * 6, [0.5, 0.0, 0.0, 0.0, 1.0, 0.0]])
    rows = {
        "depth": np.array([4, 4, 0], np.float32),  # squashed: 1, 1, missing
        "depth__missing": np.array([0, 0, 1], np.int8),
        "slot": np.array([2, 3, 2], np.int32),
        "tower": np.array([0, 1, -1], np.int32),
    }
    expected = [10 + 0.5, 11 * 1 + 0.25 - (11 * 0.5 + 7.5), 3 + 0.5]
    assert term(Features.of(Columns(PLACED, 2, serving=True).arrays(rows))).flatten().tolist() == pytest.approx(expected)


def test_over_the_training_rows_of_each_tower_the_term_has_the_mean_of_a_score(manifest: Manifest):
    torch.manual_seed(2)
    term = ServingTerm(PLACED, heads=3, towers=3, statistics=manifest.statistics)
    torch.nn.init.normal_(term.weight)
    halves = [term.sums(read_served(manifest, shards)) for shards in (range(4), range(4, 8))]  # as two ranks would
    assert torch.allclose(halves[0] + halves[1], term.sums(read_served(manifest, range(8))), rtol=1e-12)
    term.centre_(halves[0] + halves[1])
    weighted_BH = term(served(EXAMPLES)) * torch.from_numpy(EXAMPLES["weight"])[:, None]
    for tower in range(3):
        assert weighted_BH[EXAMPLES["tower"] == tower].mean(0).abs().max() < 1e-5
    assert weighted_BH.abs().mean() > 0.5


def test_a_score_is_the_same_whatever_the_serving_columns_hold(trained: str):
    predictor = Predictor(trained)
    assert predictor.model.serving is not None
    assert predictor.model.serving.weight.abs().max() > 0.01  # it was learned
    scores = predictor.log_odds(EXAMPLES)
    wild: dict[str, np.ndarray] = {
        "slot": np.full(600, 99, np.int32),
        "depth": np.full(600, np.nan, np.float32),
        "depth__missing": np.ones(600, np.int8),
    }
    absent = {name: values for name, values in EXAMPLES.items() if name not in wild}
    assert np.array_equal(predictor.log_odds(EXAMPLES | wild), scores)
    assert np.array_equal(predictor.log_odds(absent), scores)


def test_the_serving_columns_reach_the_gradient_of_no_other_layer(trained: str):
    model = Predictor(trained).model
    columns = {name: values[:64] for name, values in EXAMPLES.items()}
    features = Features.of(model.columns.arrays(columns))

    def gradients(place: Features | None) -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(features, served=place).sum().backward()  # a sum: no row's gradient depends on its log-odds
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    without, with_place = gradients(None), gradients(served(columns | {"slot": np.full(64, 2, np.int32)}))
    assert with_place.keys() - without.keys() == {"serving.weight"}
    for name, gradient in without.items():
        assert torch.equal(with_place[name], gradient), name


def test_a_warm_start_carries_the_term_by_tower_and_head_or_says_that_it_is_new(trained: str, manifest: Manifest, tmp_path: Path):
    towers = ["audio", *manifest.towers]
    moved = EXAMPLES | {"tower": EXAMPLES["tower"] + 1}
    more = read_manifest(write_snapshot(tmp_path / "more", moved, PLACED, towers=towers))
    start = warm(more, ADDITIVE, torch.ones(3), trained)
    before, now = Predictor(trained).model.serving, start.model.serving
    assert before is not None and now is not None
    assert "serving" in start.carried
    assert torch.equal(now.weight[[0, 2, 3, 4]], before.weight)
    assert not now.weight[1].any()
    assert torch.equal(now.mean_TX[1:], before.mean_TX)
    now.centre_(now.sums(read_served(more, range(8))))  # of a tower without a row
    assert not now.mean_TX[0].any()
    slots = PLACED.model_dump(mode="json")["features"]
    slots[-2]["vocabulary"] = ["second", "first"]
    other = read_manifest(write_snapshot(tmp_path / "other", EXAMPLES, Template.model_validate({"features": slots})))
    assert warm(other, ADDITIVE, torch.ones(3), trained).fresh == ["serving"]


def test_off_is_a_model_without_the_features(tmp_path: Path):
    for name, template in (("without", TEMPLATE), ("off", PLACED)):
        snapshot = write_snapshot(tmp_path / name, EXAMPLES, template)
        train(TrainRequest(str(snapshot), str(tmp_path / f"{name}-model"), "m", SMALL, TRAINING, epochs=1, seed=1))
    off, without = ((tmp_path / f"{name}-model" / "model.safetensors").read_bytes() for name in ("off", "without"))
    assert off == without


def test_ads_are_ranked_nearer_to_the_truth_when_the_place_is_told_apart(tmp_path: Path):
    """30 ads of 200 impressions. An ad stands high for its bid more than for its quality, and what stands high is clicked more for that alone.

    Where quality alone decides the place, or an ad has few impressions, this need not hold: the place then tells of the quality.
    """
    draw, rows = np.random.default_rng(4), 6000
    quality, bid = draw.normal(0, 0.5, (2, 30))
    ad = draw.integers(0, 30, rows)
    place = np.clip(np.round(2.5 - (quality + 2 * bid)[ad] + draw.normal(0, 1, rows)), 0, 5)
    columns = {
        "ad": (ad + 1).astype(np.int32),
        "place": place.astype(np.float32),
        "place__missing": np.zeros(rows, np.int8),
        "tower": np.zeros(rows, np.int32),
        "label_click": (draw.random(rows) < sigmoid(quality[ad] - 0.6 * place)).astype(np.int8),
        "weight": np.ones(rows, np.float32),
    }
    features = [
        {"column": "ad", "family": "ad", "type": "hashed", "buckets": 30},
        {"column": "place", "family": "serving", "type": "continuous"},
    ]
    template, heads = Template.model_validate({"features": features}), {"click": Head(action="click")}
    snapshot = write_snapshot(tmp_path / "snapshot", columns, template, heads, ["feed"])
    one_each = {"ad": np.arange(1, 31, dtype=np.int32), "tower": np.zeros(30, np.int32)}
    nearness = {}
    for serving in ("off", "additive"):
        model: ModelConf = SMALL.model_copy(update={"serving": serving})
        train(TrainRequest(str(snapshot), str(tmp_path / serving), serving, model, TRAINING, epochs=3, seed=1))
        nearness[serving] = kendalltau(Predictor(str(tmp_path / serving)).log_odds(one_each)[:, 0], quality).statistic
    assert nearness["additive"] > nearness["off"] + 0.05
