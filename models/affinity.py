"""How well a viewer and an ad go together: products of two latent vectors, which fully connected layers learn slowly if at all.

Shapes: B rows, N numbers, W numbers of summarized embeddings (models/summarization.py), E embedding width, H heads, T towers, M inputs of one side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conf.template import Family, Feature
from models.columns import Columns
from models.experts import Linear
from models.summarization import embeddings_of
from models.towers import PerTower, zero_linear

VIEWER: tuple[Family, ...] = ("user", "context")
SHOWN: tuple[Family, ...] = ("ad",)
# AdamW moves every weight by about the learning rate; a number's latent vector has to come from 0.1 to about 1 within one epoch.
PACE = 10.0


class Affinity(nn.Module):
    """Log-odds that the product [B, E] of the viewer's and the ad's latent vectors adds: read out by weights of all towers and of the tower's own.

    The second-order term of a factorization machine (Rendle, ICDM 2010) between two groups of features: those of families user and context, and
    those of ad. A side is the sum of its features' embeddings (of a group's, its common one), which the deep layers read too (as in DeepFM,
    arXiv:1703.04247), and a linear map of its numbers. Fully connected layers do not stand in for such products: Rendle et al., RecSys 2020
    (arXiv:2005.09683).
    All read-outs start at zero. forward: float32 [B, N], [B, W], int64 [B] -> float32 [B, H].
    """

    def __init__(self, columns: Columns, width: int, heads: int, towers: int) -> None:
        super().__init__()
        self.heads = heads
        self.viewer, self.shown = (Side(columns, families, width) for families in (VIEWER, SHOWN))
        self.shared = zero_linear(width, heads)
        self.residual = PerTower(towers, lambda: zero_linear(width, heads))

    def forward(self, numbers_BN: Tensor, summarized_BW: Tensor, tower_B: Tensor) -> Tensor:
        product_BE = self.viewer(numbers_BN, summarized_BW) * self.shown(numbers_BN, summarized_BW)
        return self.shared(product_BE) + self.residual(product_BE, tower_B, self.heads)


class Side(nn.Module):
    """The latent vector of a side: float32 [B, N], [B, W] -> [B, E]."""

    embedded_M: Tensor
    numbers_M: Tensor

    def __init__(self, columns: Columns, families: Sequence[Family], width: int) -> None:
        super().__init__()
        self.width = width
        for name, of in (("embedded_M", embeddings_of(columns)), ("numbers_M", numbers_of(columns))):
            places = [place for place, features in enumerate(of) if all(feature.family in families for feature in features)]
            self.register_buffer(name, torch.tensor(places, dtype=torch.int64), persistent=False)
        self.of_numbers = Linear(len(self.numbers_M), width)
        if len(self.numbers_M):  # torch warns of a start without weights
            nn.init.normal_(self.of_numbers.weight, std=0.1 / PACE)
        nn.init.zeros_(self.of_numbers.bias)

    def forward(self, numbers_BN: Tensor, summarized_BW: Tensor) -> Tensor:
        of_ids_BE = summarized_BW.unflatten(1, (summarized_BW.shape[1] // self.width, self.width))[:, self.embedded_M].sum(1)
        return of_ids_BE + PACE * self.of_numbers(numbers_BN[:, self.numbers_M])


def numbers_of(columns: Columns) -> list[list[Feature]]:
    """The feature of each number of models.representation.Representation.numbers."""
    vectors = (feature for feature in columns.dense for _ in range(feature.width))
    return [[feature] for feature in (*columns.continuous, *columns.continuous, *columns.dense, *vectors)]


def both_sides(columns: Columns) -> bool:
    """Whether the template tells of viewers and of ads."""
    families = {feature.family for feature in (*columns.embedded, *columns.continuous, *columns.dense)}
    return bool(families & set(VIEWER)) and bool(families & set(SHOWN))
