"""Lists: several ids a feature, read as the mean of what is there. Held to hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conf.template import Template
from conf.training import ModelConf
from models.columns import Columns
from models.engagement import EngagementModel
from models.errors import ColumnsWrong
from models.linear import LinearPath
from models.representation import Features, FusedEmbedding, Lookup
from tests.models.small_model import open_gates
from tests.models.snapshots import HEADS, SMALL, TOWERS

# Rows of the fused table: ad 0 to 3, tags 4 to 8 (missing, unseen, a, b, c), title 9 to 12.
LISTS = Template.model_validate(
    {
        "features": [
            {"column": "ad", "family": "ad", "type": "hashed", "buckets": 3},
            {"column": "tags", "family": "ad", "type": "indexed", "vocabulary": ["a", "b", "c"], "length": 3},
            {"column": "title", "family": "ad", "type": "text", "buckets": 3, "length": 2},
        ]
    }
)
COLUMNS = Columns(LISTS, towers=3)


def encoded(ad: list[int], tags: list[tuple[int, ...]], title: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    lists = {"tags": np.array(tags, np.int32), "title": np.array(title, np.int32)}
    places = {f"{name}__{place}": ids[:, place] for name, ids in lists.items() for place in range(ids.shape[1])}
    return {"ad": np.array(ad, np.int32), **places, "tower": np.zeros(len(ad), np.int32)}


def drawn(rows: int) -> dict[str, np.ndarray]:
    """Random rows, many of their places empty."""
    draw = np.random.default_rng(1)

    def ids(width: int, most: int) -> list[tuple[int, ...]]:
        return [tuple(row) for row in draw.integers(0, most, (rows, width)) * draw.integers(0, 2, (rows, width))]

    return encoded(list(draw.integers(0, 4, rows)), ids(3, 5), ids(2, 4)) | {"tower": draw.integers(-1, 3, rows).astype(np.int32)}


ROWS = encoded(ad=[2, 0, 3], tags=[(2, 3, 4), (0, 0, 0), (0, 1, 0)], title=[(1, 1), (0, 0), (3, 0)])


def test_each_place_of_a_list_is_a_column_of_ids_in_its_features_rows():
    assert COLUMNS.names == ("ad", "tags__0", "tags__1", "tags__2", "title__0", "title__1", "tower")
    assert (COLUMNS.offsets, COLUMNS.places) == ((0, 4, 9, 13), (0, 1, 4, 6))
    assert COLUMNS.arrays(ROWS).ids.tolist() == [[2, 6, 7, 8, 10, 10], [0, 4, 4, 4, 9, 9], [3, 4, 5, 4, 12, 9]]
    with pytest.raises(ColumnsWrong, match="tags__1 holds ids 5 to 5; the model knows 0 to 4"):
        COLUMNS.arrays(ROWS | {"tags__1": np.full(3, 5)})


def test_an_id_counts_for_its_share_of_what_is_there_and_of_nothing_the_first_is_the_missing_value():
    shares = FusedEmbedding(COLUMNS, 2).shares(torch.from_numpy(COLUMNS.arrays(ROWS).ids))
    assert shares is not None
    third = pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    assert shares.tolist() == [third, [1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0]]


def test_a_list_is_embedded_as_the_mean_of_the_rows_that_are_there():
    layer = FusedEmbedding(COLUMNS, 2)
    with torch.no_grad():
        layer.table.copy_(torch.stack([torch.arange(13.0), 10 * torch.arange(13.0)], 1))  # row r is (r, 10 r)
    ids = torch.from_numpy(COLUMNS.arrays(ROWS).ids)
    found = layer(ids, layer.shares(ids))
    # ad; mean of tags: (6 + 7 + 8) / 3, missing 4, unseen 5; mean of title: (10 + 10) / 2, missing 9, 12
    assert found[:, ::2].tolist() == [[2, pytest.approx(7), 10], [0, 4, 9], [3, 5, 12]]
    assert torch.allclose(found[:, 1::2], 10 * found[:, ::2])
    touched, position = torch.unique(ids, return_inverse=True)
    rows = layer.table[touched].requires_grad_()
    by_lookup = layer(ids, layer.shares(ids), Lookup(touched, position, rows, rows))
    assert torch.equal(by_lookup, found)
    by_lookup[0].sum().backward()
    assert rows.grad is not None
    gradient = dict(zip(touched.tolist(), rows.grad[:, 0].tolist(), strict=True))
    third = pytest.approx(1 / 3)
    assert {row: g for row, g in gradient.items() if g} == {2: 1, 6: third, 7: third, 8: third, 10: 1}  # nothing to what is not there


def test_the_linear_path_adds_the_mean_of_a_lists_weights():
    path = LinearPath(0, 13, heads=1, towers=2)
    open_gates(path)
    with torch.no_grad():
        path.table[:, 0, 0] = torch.arange(13.0)
        path.table[:, 2, 0] = 100 * torch.arange(13.0)
    ids = torch.from_numpy(COLUMNS.arrays(ROWS).ids)
    shares = FusedEmbedding(COLUMNS, 2).shares(ids)
    found = path(torch.zeros(3, 0), ids, torch.tensor([0, 1, -1]), path.table, shares)
    assert found.flatten().tolist() == pytest.approx([2 + 7 + 10, 101 * (0 + 4 + 9), 3 + 5 + 12])


def model_of_lists(template: Template = LISTS, conf: ModelConf = SMALL) -> EngagementModel:
    torch.manual_seed(1)
    return EngagementModel(template, HEADS, TOWERS, conf, {}, torch.zeros(4, 3)).eval()


def test_a_row_gets_the_same_bits_whatever_lists_stand_beside_it():
    model, rows = model_of_lists(conf=ModelConf()), Features.of(COLUMNS.arrays(drawn(400)))
    torch.nn.init.normal_(model.linear.table)
    with torch.inference_mode():
        together = model(rows)
        for first, last in ((0, 1), (1, 3), (3, 10), (10, 43), (43, 400)):
            assert torch.equal(model(Features(*(tensor[first:last] for tensor in rows))), together[first:last]), (first, last)


def test_a_list_of_one_place_is_the_value_itself():
    plain = Template.model_validate({"features": [{**feature.model_dump(), "length": 0} for feature in LISTS.features[:2]]})
    short = Template.model_validate({"features": [plain.features[0].model_dump(), {**plain.features[1].model_dump(), "length": 1}]})
    columns = {"ad": np.array([1, 2, 0]), "tags": np.array([0, 1, 3]), "tags__0": np.array([0, 1, 3]), "tower": np.zeros(3, np.int64)}
    outputs = [model_of_lists(of)(Features.of(Columns(of, 3).arrays(columns))) for of in (plain, short)]
    assert torch.equal(*outputs)
