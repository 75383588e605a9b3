"""A warm start carries what is the same, by meaning, and starts the rest as new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conf.schema import Head
from conf.template import Template
from models.columns import Columns
from models.manifest import Manifest, read_manifest
from models.predictor import Predictor
from models.representation import Features
from models.trainer import TrainRequest, train
from models.warm_start import Start, warm
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TRAINING, example_columns, write_snapshot

EXAMPLES = example_columns(1500)
NEWER = example_columns(300, seed=2)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("parent")
    snapshot = write_snapshot(directory / "snapshot", EXAMPLES)
    return train(TrainRequest(str(snapshot), str(directory / "model"), "parent", SMALL, TRAINING, epochs=3, seed=1)).bundle_dir


def warmed(parent: str, snapshot: Path) -> tuple[Start, Manifest]:
    manifest = read_manifest(snapshot)
    torch.manual_seed(7)
    return warm(manifest, SMALL, torch.ones(len(manifest.heads)), parent), manifest


def log_odds(start: Start, manifest: Manifest, columns: dict[str, np.ndarray]) -> np.ndarray:
    rows = Features.of(Columns(manifest.template, len(manifest.towers)).arrays(columns))
    return start.model.eval()(rows).detach().numpy()


def test_with_no_step_taken_the_child_is_the_parent(parent: str, tmp_path: Path):
    start, manifest = warmed(parent, write_snapshot(tmp_path / "same", NEWER))
    assert start.fresh == []
    assert np.array_equal(log_odds(start, manifest, NEWER), Predictor(parent).log_odds(NEWER).astype(np.float32))
    assert all(squares.sum() > 0 for squares in start.squares.values())


def test_a_new_tower_starts_as_the_shared_one_and_the_known_ones_keep_theirs(parent: str, tmp_path: Path):
    towers = ["audio", "shopping", "standard", "video"]  # every known tower has another number now
    moved = NEWER | {"tower": NEWER["tower"] + 1}
    start, manifest = warmed(parent, write_snapshot(tmp_path / "towers", moved, towers=towers))
    before = Predictor(parent).log_odds(NEWER)
    assert np.allclose(log_odds(start, manifest, moved), before, atol=1e-6)
    new = log_odds(start, manifest, NEWER | {"tower": np.zeros(300, np.int32)}) - manifest.base_log_odds()[0]
    unknown = Predictor(parent).log_odds(NEWER | {"tower": np.full(300, -1, np.int32)}) - Predictor(parent).model.heads.base_TH[-1].numpy()
    assert np.allclose(new, unknown, atol=1e-5)
    assert {name for name in start.fresh if ".of_tower.0." in name} == set(start.fresh)


def test_a_new_head_is_new_and_the_others_stay(parent: str, tmp_path: Path):
    heads = {"share": Head(action="share"), **HEADS}
    start, manifest = warmed(parent, write_snapshot(tmp_path / "heads", NEWER | {"label_share": NEWER["label_click"]}, heads=heads))
    assert np.allclose(log_odds(start, manifest, NEWER)[:, 1:], Predictor(parent).log_odds(NEWER), atol=1e-6)


def test_a_feature_with_other_ids_is_learned_anew_and_the_first_layer_with_another_input(parent: str, tmp_path: Path):
    features = TEMPLATE.model_dump()["features"]
    more_buckets = [feature | ({"buckets": 900} if feature["column"] == "ad_id" else {}) for feature in features]
    start, _ = warmed(parent, write_snapshot(tmp_path / "buckets", NEWER, template=Template.model_validate({"features": more_buckets})))
    assert start.fresh == ["ids of ad_id"]
    fewer = [feature for feature in features if feature["column"] != "device"]
    start, _ = warmed(parent, write_snapshot(tmp_path / "fewer", NEWER, template=Template.model_validate({"features": fewer})))
    own = [f"linear.residual.of_tower.{tower}.weight" for tower in range(3)]
    sides = [f"affinity.{side}.of_numbers.weight" for side in ("viewer", "shown")]
    assert start.fresh == ["statistics", "bottom.layers.0.weight", "linear.shared.weight", *own, *sides]
    assert "ids of ad_id" in start.carried


def template_with(**over: dict) -> Template:
    """The template of the snapshots, with other knobs for some columns."""
    return Template.model_validate({"features": [{**f.model_dump(), **over.get(f.column, {})} for f in TEMPLATE.features]})


def test_a_longer_vocabulary_keeps_what_is_known_by_value_and_a_new_value_starts_as_the_unseen_one(parent: str, tmp_path: Path):
    for order in (["phone", "desktop", "tv", "tablet"], ["tv", "desktop", "tablet", "phone"]):  # appended, and moved about
        longer = template_with(device={"vocabulary": order})
        ids = np.array([0, 1, *(order.index(value) + 2 for value in ("phone", "desktop"))], np.int32)
        moved = NEWER | {"device": ids[NEWER["device"]]}
        start, manifest = warmed(parent, write_snapshot(tmp_path / order[0], moved, template=longer))
        assert start.fresh == ["2 values of device"]
        assert "ids of device" in start.carried
        assert np.allclose(log_odds(start, manifest, moved), Predictor(parent).log_odds(NEWER), atol=1e-6)
        unseen = Predictor(parent).log_odds(NEWER | {"device": np.ones(300, np.int32)})
        tv = NEWER | {"device": np.full(300, order.index("tv") + 2, np.int32)}
        assert np.allclose(log_odds(start, manifest, tv), unseen, atol=1e-6)
        first = Columns(manifest.template, 3).offsets[1]
        known, new = (start.squares["embedding"][first + ids[-2:]], start.squares["embedding"][first + order.index("tv") + 2])
        assert known.all() and not new.any()  # a new value learns at the pace of one


def test_a_group_that_gains_a_feature_keeps_its_common_embedding(tmp_path: Path):
    both = template_with(ad_id={"group": "g"}, row={"group": "g"})
    snapshot = write_snapshot(tmp_path / "snapshot", EXAMPLES, template=both)
    before = train(TrainRequest(str(snapshot), str(tmp_path / "model"), "parent", SMALL, TRAINING, epochs=1, seed=1)).bundle_dir
    more = {"column": "more", "family": "ad", "type": "hashed", "buckets": 9, "group": "g"}
    wider = Template.model_validate({"features": [more, *both.model_dump()["features"]]})
    rows = NEWER | {"more": (np.arange(300) % 10).astype(np.int32)}
    start, manifest = warmed(before, write_snapshot(tmp_path / "wider", rows, template=wider))
    assert start.fresh == ["ids of more", "more in the summarization of g"]
    assert {"statistics", "summarization of g", "bottom.layers.0.weight"} <= set(start.carried)
    assert np.allclose(log_odds(start, manifest, rows), Predictor(before).log_odds(NEWER), atol=1e-6)
    other = Template.model_validate({"features": [{**f.model_dump(), "group": f.group and "h"} for f in wider.features]})
    start, _ = warmed(before, write_snapshot(tmp_path / "other", rows, template=other))
    assert "summarization of h" in start.fresh


def test_the_statistics_that_the_weights_were_learned_with_stay(parent: str, tmp_path: Path):
    older = NEWER | {"age": NEWER["age"] + 10}
    start, _ = warmed(parent, write_snapshot(tmp_path / "older", older))
    assert start.statistics == Predictor(parent).meta["statistics"]


def test_a_warm_training_reports_what_it_carried_and_learns_on(parent: str, tmp_path: Path):
    snapshot = write_snapshot(tmp_path / "snapshot", NEWER)
    result = train(TrainRequest(str(snapshot), str(tmp_path / "child"), "child", SMALL, TRAINING, epochs=1, seed=1, parent=parent))
    cold = train(TrainRequest(str(snapshot), str(tmp_path / "cold"), "cold", SMALL, TRAINING, epochs=1, seed=1))
    assert "ids of ad_id" in result.carried
    assert result.fresh == cold.carried == []
    assert result.loss["click"] is not None
    assert cold.loss["click"] is not None
    assert result.loss["click"] < cold.loss["click"]
    assert (Predictor(result.bundle_dir).log_odds(NEWER) != Predictor(parent).log_odds(NEWER)).all()
