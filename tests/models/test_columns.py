"""Encoded columns -> arrays in the model's order."""

from __future__ import annotations

import numpy as np
import pytest

from conf.template import Template
from models.columns import Columns
from models.errors import ColumnsWrong
from tests.models.snapshots import TEMPLATE, example_columns

ROWS = example_columns(3)


def test_each_feature_has_its_own_rows_of_the_fused_table():
    columns = Columns(TEMPLATE, towers=3)
    assert columns.offsets == (
        0,
        501,
        505,
        100_506,
    )  # ad_id: 500 buckets and missing; device: 2 values, missing, unseen; row: 100,000 and missing
    ids = columns.arrays(ROWS).ids
    assert ids[:, 0].tolist() == ROWS["ad_id"].tolist()
    assert ids[:, 1].tolist() == (ROWS["device"] + 501).tolist()
    assert ids[:, 2].tolist() == (ROWS["row"] + 505).tolist()


def test_missing_flags_follow_the_continuous_then_the_dense_features():
    flags = {"age__missing": [1, 0, 0], "spend__missing": [0, 1, 0], "visual__missing": [0, 0, 1]}
    arrays = Columns(TEMPLATE, towers=3).arrays(ROWS | {name: np.array(values, np.int8) for name, values in flags.items()})
    assert arrays.missing.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert arrays.dense.tolist() == np.stack([ROWS["visual__0"], ROWS["visual__1"]], axis=1).tolist()


def test_what_is_known_only_once_served_is_left_out():
    position = {"column": "position", "family": "serving", "type": "continuous"}
    template = Template.model_validate({"features": [*TEMPLATE.model_dump()["features"], position]})
    assert Columns(template, towers=3).names == Columns(TEMPLATE, towers=3).names


def test_an_absent_column_is_named_beside_the_present_ones():
    rows = {name: values for name, values in ROWS.items() if name != "device"}
    with pytest.raises(ColumnsWrong, match=r"lack device; there are ad_id, age, age__missing"):
        Columns(TEMPLATE, towers=3).arrays(rows)


def test_an_id_outside_its_feature_is_refused_and_not_looked_up_in_the_next_one():
    cases = [  # column, ids, what the error says
        ("device", [2, 3, 4], "device holds ids 2 to 4; the model knows 0 to 3"),
        ("device", [-1, 0, 1], "device holds ids -1 to 1; the model knows 0 to 3"),
        ("tower", [0, 1, 3], "tower holds ids 0 to 3; the model knows -1 to 2"),
        ("tower", [-2, 0, 1], "tower holds ids -2 to 1; the model knows -1 to 2"),
        ("ad_id", [0.0, 1.0, 2.5], "ad_id holds float64; ids are whole numbers"),
    ]
    for name, ids, message in cases:
        with pytest.raises(ColumnsWrong, match=message):
            Columns(TEMPLATE, towers=3).arrays(ROWS | {name: np.array(ids)})


def test_no_rows_are_rows():
    arrays = Columns(TEMPLATE, towers=3).arrays({name: values[:0] for name, values in ROWS.items()})
    assert [array.shape for array in arrays] == [(0, 2), (0, 3), (0, 2), (0, 3), (0,)]
