"""The tables of ids while they are trained: an id's weights and Adagrad's squares lie side by side, so that a step visits a row once.

Shapes: R rows of the tables, B rows of a batch, F lookups a row, U ids of a batch, each once, G weights an id has in all tables, S squares.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.engagement import EngagementModel
from models.optimizers import adagrad_
from models.representation import Lookup


class IdTables:
    """The tables of `model` and their `squares` (table -> [R, ...], see adagrad_) become views of one buffer [R, G + S].

    Random rows of memory are what a step waits for: gathered and written a table and a state at a time they took twice as long.
    """

    def __init__(self, model: EngagementModel, squares: Mapping[str, Tensor]) -> None:
        self.names = list(model.tables)
        tensors = [*model.tables.values(), *(squares[name] for name in self.names)]
        self.shapes = [tensor.shape[1:] for tensor in tensors]
        self.widths = [shape.numel() for shape in self.shapes]
        self.all = torch.cat([tensor.detach().flatten(1) for tensor in tensors], 1)
        for tensor, view, shape in zip(tensors, self.all.split(self.widths, 1), self.shapes, strict=True):
            tensor.data = view.view(len(view), *shape)

    def lookup(self, ids_BF: Tensor) -> Lookup:
        """The ids of a batch with copies of their weights, that collect the gradient."""
        ids_U, position_BF = torch.unique(ids_BF, return_inverse=True)
        weights = self.all[ids_U].split(self.widths, 1)[: len(self.names)]
        leaves = {
            name: part.reshape(-1, *shape).requires_grad_() for name, part, shape in zip(self.names, weights, self.shapes, strict=False)
        }
        return Lookup(ids_U, position_BF, **leaves)

    def step_(self, ids_U: Tensor, gradient_UG: Tensor, learning_rates: Mapping[str, float]) -> None:
        """Adagrad's update of the rows `ids_U` (distinct); all others stay untouched."""
        rows = self.all[ids_U]
        parts, count = rows.split(self.widths, 1), len(self.names)
        for name, weights, squares, gradient in zip(
            self.names, parts[:count], parts[count:], gradient_UG.split(self.widths[:count], 1), strict=True
        ):
            adagrad_(weights, squares, gradient, learning_rates[name])
        self.all.index_copy_(0, ids_U, rows)


def gradient_of(lookup: Lookup) -> Tensor:
    """[U, G]: what the weights of a batch's ids collected, the tables side by side."""
    leaves = (lookup.embedding, lookup.linear)
    # Without embedded features no row is touched, and no leaf has a gradient.
    return torch.cat([(leaf.detach() if leaf.grad is None else leaf.grad).flatten(1) for leaf in leaves], 1)
