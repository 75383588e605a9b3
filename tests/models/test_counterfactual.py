"""What a model would say with another calibrator, or without a feature."""

from __future__ import annotations

import numpy as np
import pytest

from conf.segments import code_column
from models.calibration import Calibrator, Cell
from models.counterfactual import all_values, under_calibrators, without, without_each
from models.predictor import predict, predict_probabilities
from tests.models.snapshots import HEADS, TEMPLATE, example_columns
from tests.models.test_bundle import saved

FEATURE = {feature.column: feature for feature in TEMPLATE.features}


def calibrator(**weights: float) -> str:
    w = {key.replace("_", "="): weight for key, weight in weights.items()}
    return Calibrator(tuple(HEADS), {head: {"shopping": Cell("featured", 0.5, -0.1, w)} for head in HEADS}).to_json()


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(tmp_path_factory.mktemp("models") / "m1"))


def test_under_each_calibrator_a_row_has_what_that_calibrator_alone_would_give_it(bundle_dir: str) -> None:
    first, second = calibrator(country_US=0.7), calibrator(country_BR=-1.0, country_US=0.2, device_tv=0.3)
    values = all_values([first, second])
    assert values == {"country": ["BR", "US"], "device": ["tv"]}
    columns = example_columns(6) | {"tower": np.array([0, 0, 0, 0, 1, -1], np.int32)}
    country, device = np.array([0, 1, -1, 1, 1, 1]), np.array([0, -1, 0, 0, -1, 0])
    found = under_calibrators(
        bundle_dir, [first, second], values, columns | {code_column("country"): country, code_column("device"): device}
    )
    own = [{"country": np.where(country == 1, 0, -1)}, {"country": country, "device": device}]
    for text, codes, part in zip((first, second), own, np.hsplit(found, 2), strict=True):
        alone = predict_probabilities(bundle_dir, text, columns | {code_column(name): of for name, of in codes.items()})[1]
        assert np.array_equal(part, alone)


def test_a_feature_left_out_is_encoded_as_a_missing_one() -> None:
    columns = example_columns(3)
    for name, blank in {"age": ("age",), "ad_id": ("ad_id",), "visual": ("visual__0", "visual__1")}.items():
        left = without(columns, FEATURE[name])
        flags = [f"{name}__missing"] if f"{name}__missing" in columns else []
        assert all((left[column] == 0).all() for column in blank) and all((left[flag] == 1).all() for flag in flags)
        assert all(np.array_equal(left[column], columns[column]) for column in set(columns) - {*blank, *flags})


def test_rows_come_as_they_are_and_without_each_feature_in_turn(bundle_dir: str) -> None:
    identity = Calibrator(tuple(HEADS), {head: {} for head in HEADS}).to_json()
    columns = example_columns(20)
    found = np.hsplit(without_each(bundle_dir, identity, {}, [FEATURE["age"], FEATURE["ad_id"]], columns), 3)
    for part, known in zip(found, (columns, without(columns, FEATURE["age"]), without(columns, FEATURE["ad_id"])), strict=True):
        assert np.allclose(part[:, 0], 1 / (1 + np.exp(-predict(bundle_dir, known)[:, 0])))
    assert np.abs(found[0] - found[1]).max() > 1e-4 and np.abs(found[0] - found[2]).max() > 1e-6
