"""The predictor is the model, for any number of rows and any numbers in them."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models import bundle
from models.calibration import Calibrator, Cell
from models.columns import Columns
from models.errors import ColumnsWrong
from models.metrics import sigmoid
from models.predictor import Predictor, RowFacts, load_predictor, predict, predict_probabilities
from models.representation import Features
from tests.models.small_model import small_model
from tests.models.snapshots import TEMPLATE, example_columns
from tests.models.test_bundle import saved


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(tmp_path_factory.mktemp("models") / "m1"))


def test_the_predictor_gives_the_models_log_odds_in_batches_of_any_size(bundle_dir: str):
    for rows in (0, 1, 4096, 4097, 9000):
        columns = example_columns(rows)
        found = Predictor(bundle_dir).log_odds(columns)
        expected = small_model()(Features.of(Columns(TEMPLATE, 3).arrays(columns))).detach().numpy()
        assert found.shape == (rows, 3)
        assert found.dtype == np.float64
        assert np.allclose(found, expected, atol=1e-6)


def test_it_says_what_its_columns_are(bundle_dir: str):
    predictor = load_predictor(bundle_dir)
    assert (predictor.heads, predictor.towers) == (["click", "good_click", "save"], ["shopping", "standard", "video"])
    assert predictor.parents == [-1, 0, -1]
    assert predictor.model_id == "m1"


def test_hostile_numbers_give_finite_log_odds(bundle_dir: str):
    columns = example_columns(6)
    wild = np.array([3.4e38, -3.4e38, 1e-45, -0.0, 1e30, -1e30], np.float32)
    floats = {name: wild for name in ("age", "spend", "visual__0", "visual__1")}
    assert np.isfinite(Predictor(bundle_dir).log_odds(columns | floats)).all()


def test_an_id_out_of_range_is_refused(bundle_dir: str):
    with pytest.raises(ColumnsWrong, match="ad_id holds ids 501 to 501; the model knows 0 to 500"):
        predict(bundle_dir, example_columns(1) | {"ad_id": np.array([501], np.int32)})


def test_a_process_loads_a_bundle_once(bundle_dir: str):
    assert load_predictor(bundle_dir, threads=1) is load_predictor(bundle_dir, threads=1)


def test_what_spark_ships_is_small_and_picklable(bundle_dir: str):
    shipped = pickle.dumps(partial(predict, bundle_dir))
    assert len(shipped) < 1000
    columns = example_columns(3)
    assert np.array_equal(pickle.loads(shipped)(columns), Predictor(bundle_dir).log_odds(columns))


def test_probabilities_come_before_and_after_calibration_with_products_formed(bundle_dir: str):
    columns = example_columns(50) | {"tower": np.resize([0, -1], 50).astype(np.int32)}
    z = Predictor(bundle_dir).log_odds(columns)
    identity = {"shopping": Cell("identity")}
    cells = {"click": {"shopping": Cell("platt", 1.0, 0.5)}, "good_click": identity, "save": identity}
    raw, calibrated, _ = predict_probabilities(bundle_dir, Calibrator(("click", "good_click", "save"), cells).to_json(), columns)
    assert np.allclose(raw, np.stack([sigmoid(z[:, 0]), sigmoid(z[:, 0]) * sigmoid(z[:, 1]), sigmoid(z[:, 2])], axis=1))
    assert np.allclose(calibrated[::2, 0], sigmoid(1.5 * z[::2, 0] + 1))
    assert np.allclose(calibrated[::2, 1], sigmoid(1.5 * z[::2, 0] + 1) * sigmoid(z[::2, 1]))
    assert np.allclose(calibrated[1::2], raw[1::2])  # an unknown tower is left alone


def test_a_row_says_what_its_score_rests_on_less_than_others():
    model = small_model()
    squares = torch.zeros(len(model.tables["embedding"]), 1)
    squares[[first + id for first, id in zip(model.columns.offsets, (7, 2, 3), strict=False)]] = 0.5  # met: ad 7, phones, row 3
    columns = example_columns(4) | {
        "ad_id": np.array([7, 8, 0, 7], np.int32),
        "device": np.array([2, 2, 2, 3], np.int32),
        "row": np.array([3, 3, 3, 4], np.int32),
        "age": np.array([0, 2.5, 0, 2], np.float32),  # clipped to -2 and 2
        "age__missing": np.array([0, 0, 1, 0], np.int8),
        "spend": np.array([1, 21, -1e9, 19], np.float32),  # to where its log1p is 0 and 3: 0 and 19.1
        "visual__missing": np.array([0, 0, 1, 0], np.int8),
    }
    assert RowFacts(model, squares)(model.columns.arrays(columns)).tolist() == [
        [0, 0, 0],
        [1 / 3, 0, 2],
        [0, 2, 1],  # a missing ad is none that training never met
        [pytest.approx(2 / 3), 0, 0],
    ]


def test_processes_of_one_machine_share_the_weights_that_they_map(bundle_dir: str):
    table = Predictor(bundle_dir).model.representation.embedding.table
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(bundle.WEIGHTS)]
    spans = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in maps]
    assert any(first <= table.data_ptr() < last for first, last in spans)


def test_a_prediction_needs_no_gradient_and_leaves_none(bundle_dir: str):
    predictor = Predictor(bundle_dir)
    predictor.log_odds(example_columns(5))
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    assert torch.is_grad_enabled()


def test_weights_load_by_safetensors_alone(bundle_dir: str):
    assert (Path(bundle_dir) / bundle.WEIGHTS).read_bytes()[8:9] == b"{"  # safetensors: a length, then a JSON header
