"""The tables of ids while they are trained, held to the model's own and to hand arithmetic."""

from __future__ import annotations

import torch

from models.tables import gradient_of
from tests.models.small_model import HEADS, SMALL, TOWERS, features, small_model, tables_of


def test_a_lookup_gives_what_the_table_gives_and_takes_the_gradient_of_its_rows_alone():
    model, rows = small_model(), features()
    before = model(rows)
    lookup = tables_of(model)[0].lookup(rows.ids_BF)
    assert torch.equal(model(rows), before)
    assert torch.equal(model(rows, lookup), before)
    model(rows, lookup).sum().backward()
    assert lookup.ids_U.tolist() == sorted(set(rows.ids_BF.flatten().tolist()))
    assert lookup.embedding.grad is not None and lookup.linear.grad is not None
    assert lookup.embedding.grad.shape == (len(lookup.ids_U), SMALL.embedding_width)
    assert lookup.linear.grad.shape == (len(lookup.ids_U), 1 + len(TOWERS), len(HEADS))
    assert torch.equal(gradient_of(lookup)[:, : SMALL.embedding_width], lookup.embedding.grad)


def test_only_the_rows_of_a_batch_are_touched_and_a_gradient_of_zero_changes_nothing():
    model = small_model()
    tables, squares = tables_of(model)
    before = {name: table.clone() for name, table in model.tables.items()}
    gradient = torch.zeros(2, SMALL.embedding_width + before["linear"][0].numel())
    gradient[1] = 3.0
    tables.step_(torch.tensor([0, 2]), gradient, {"embedding": 0.1, "linear": 0.1})
    for name, step in (("embedding", 0.1), ("linear", 0.1 * 3 / 10**0.5)):  # squares 0 + 9, a mean over the row; and 1 + 9
        table = model.tables[name]
        assert torch.equal(table[[0, 1, 3]], before[name][[0, 1, 3]])
        assert torch.allclose(table[2], before[name][2] - step)
    assert squares["embedding"].flatten()[:4].tolist() == [0, 0, 9, 0]
    assert squares["linear"][2].eq(10).all() and squares["linear"][[0, 1, 3]].eq(1).all()
