"""Training rows that lose their user: which ones, and that they read as a row that never had one."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from conf.template import Template
from etl.encoding import encoded
from models.batches import read_batches, shards_of
from models.columns import Columns
from models.manifest import Manifest, read_manifest
from models.unknown_user import UnknownUser, user_columns
from tests.models.snapshots import TEMPLATE, TOWERS, example_columns, write_snapshot

FIRST_ROW_ID = Columns(TEMPLATE, len(TOWERS)).offsets[2]
FEATURES = Template.model_validate(
    {
        "features": [
            {"column": "user_id", "family": "user", "type": "hashed", "buckets": 50},
            {"column": "age", "family": "user", "type": "continuous"},
            {"column": "taste", "family": "user", "type": "dense", "width": 2},
            {"column": "gender", "family": "user", "type": "one_hot", "vocabulary": ["f", "m"]},
            {"column": "user_click_rate", "family": "history", "type": "continuous"},
            {"column": "user_days_since", "family": "history", "type": "continuous"},
            {"column": "user_country_click_rate", "family": "history", "type": "continuous"},  # of another key, `user_country`
            {"column": "ad_click_rate", "family": "history", "type": "continuous"},
            {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 50},
            {"column": "hour", "family": "context", "type": "continuous"},
        ]
    }
)
OF_USER = ["user_id", "age", "taste", "gender", "user_click_rate", "user_days_since"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """2,003 rows in 8 shards, each with three row groups."""
    return read_manifest(write_snapshot(tmp_path_factory.mktemp("snapshots") / "one", example_columns(2003), row_group_rows=100))


def without_user(manifest: Manifest, ranks: int = 1, share: float = 0.2, epoch: int = 0, skip_steps: int = 0) -> list[list[int]]:
    """The `row` of the examples of each global batch that have no user."""
    parts = [
        [
            (batch.features.ids_BF[:, -1] - FIRST_ROW_ID)[(batch.features.missing_BM[:, 1] == 1) & (batch.weight_B > 0)].tolist()
            for batch in read_batches(
                manifest, 64, shards_of(rank, ranks, 8), epoch, seed=1, skip_steps=skip_steps, unknown_user_share=share
            )
        ]
        for rank in range(ranks)
    ]
    return [list(chain(*step)) for step in zip(*parts, strict=True)]


def test_the_same_rows_lose_their_user_on_any_number_of_ranks_and_after_a_resume(manifest: Manifest):
    lost = without_user(manifest)
    assert without_user(manifest, ranks=2) == without_user(manifest, ranks=8) == lost
    assert without_user(manifest, skip_steps=20) == lost[20:]
    rows = list(chain(*lost))
    assert len(rows) == pytest.approx(0.2 * 2003, abs=3 * (0.2 * 0.8 * 2003) ** 0.5)
    other = list(chain(*without_user(manifest, epoch=1)))
    assert len(set(rows) & set(other)) == pytest.approx(0.04 * 2003, abs=30)  # another epoch draws anew
    assert list(chain(*without_user(manifest, share=0.0))) == []


def test_the_order_of_rows_and_all_else_of_them_stay(manifest: Manifest):
    plain, some = (list(read_batches(manifest, 64, range(8), 0, seed=1, unknown_user_share=share)) for share in (0.0, 0.2))
    for before, after in zip(plain, some, strict=True):
        lost = after.features.missing_BM[:, 1] == 1
        assert torch.equal(after.features.ids_BF, before.features.ids_BF)  # of ads and context
        assert torch.equal(after.features.continuous_BC[~lost], before.features.continuous_BC[~lost])
        assert not after.features.continuous_BC[lost].any()
        assert torch.equal(after.labels_BH, before.labels_BH)


def test_what_a_row_loses_are_the_users_features_and_history_of_key_user():
    names = {name.split("__")[0] for name in user_columns(FEATURES, ["click"])}
    assert names == set(OF_USER)


def test_a_row_that_lost_its_user_is_encoded_as_one_that_never_had_one(spark: SparkSession):
    told = {"user_id": "u1", "age": 30.0, "taste": [0.5, 1.0], "gender": "f", "user_click_rate": 0.2, "user_days_since": 3.0}
    rest = {"user_country_click_rate": 0.1, "ad_click_rate": 0.3, "ad_id": "a1", "hour": 9.0, "tower": "feed"}
    schema = (
        "user_id STRING, age DOUBLE, taste ARRAY<DOUBLE>, gender STRING, user_click_rate DOUBLE, user_days_since DOUBLE, "
        "user_country_click_rate DOUBLE, ad_click_rate DOUBLE, ad_id STRING, hour DOUBLE, tower STRING"
    )
    rows = [tuple((told | rest).values()), tuple((dict.fromkeys(told) | rest).values())]
    found = encoded(spark.createDataFrame(rows, schema), FEATURES, ["feed"]).toPandas()
    named, unknown = ({str(name): found[name].to_numpy()[[row]] for name in found} for row in (0, 1))
    lost = UnknownUser(FEATURES, ["click"], share=1.0, seed=1, epoch=0, shard=0)(named)
    columns = Columns(FEATURES, towers=1)
    for ours, scored, before in zip(columns.arrays(lost), columns.arrays(unknown), columns.arrays(named), strict=True):
        assert np.array_equal(ours, scored)
        assert ours.dtype == before.dtype
    assert not np.array_equal(columns.arrays(named).ids, columns.arrays(lost).ids)
