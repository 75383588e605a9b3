"""The representation layer: every feature on a common scale, ids from one fused embedding table.

Shapes: B rows, C continuous features, M = C + dense features, D numbers of all dense vectors, K embedded features, F ids a row (one a feature,
`length` of a list), U rows of the table that a batch touches, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.columns import Arrays, Columns

# No number enters a layer beyond this: products of two such still are far from the end of float32, so no input makes a score infinite.
LARGEST_INPUT = 1e6


class Features(NamedTuple):
    """models.columns.Arrays as tensors."""

    continuous_BC: Tensor  # float32, raw values, 0 where missing
    missing_BM: Tensor  # float32, 1 where missing
    dense_BD: Tensor  # float32
    ids_BF: Tensor  # int64, rows of the fused table
    tower_B: Tensor  # int64, -1: a tower that the model does not know

    @staticmethod
    def of(arrays: Arrays) -> Features:
        return Features(*(torch.from_numpy(array) for array in arrays))

    def to(self, device: torch.device) -> Features:
        return Features(*(tensor.to(device, non_blocking=True) for tensor in self))


class Lookup(NamedTuple):
    """The ids that a batch touches, each once, and copies of their rows: leaves that collect the gradient of these rows alone."""

    ids_U: Tensor  # int64, ascending
    position_BF: Tensor  # int64: where in ids_U each lookup of the batch is
    embedding: Tensor  # float32 [U, E], requires grad
    linear: Tensor  # float32 [U, 1 + T, H], requires grad


class FusedEmbedding(nn.Module):
    """All embedding tables as one [sum of ids, E]. It takes no gradient itself: see models.optimizers.adagrad_.

    A list is the mean of the rows of what is there; where nothing is, the row of the missing value.
    """

    def __init__(self, columns: Columns, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(columns.offsets[-1], width) * 0.01, requires_grad=False)
        spans = zip(columns.embedded, columns.places, columns.places[1:], columns.offsets, strict=False)
        # Of each list: its first place among the ids of a row, the place after its last, and the row of the table that means nothing is there.
        self.lists = [(first, end, nothing) for feature, first, end, nothing in spans if feature.length]
        self.register_buffer("first_K", torch.tensor(columns.places[:-1], dtype=torch.int64), persistent=False)

    first_K: Tensor

    def forward(self, ids_BF: Tensor, share_BF: Tensor | None, lookup: Lookup | None = None) -> Tensor:
        """float32 [B, K * E]. With a lookup the gradient reaches its rows. `share_BF`: self.shares(ids_BF)."""
        place_BF, rows = (ids_BF, self.table) if lookup is None else (lookup.position_BF, lookup.embedding)
        if share_BF is None:
            return nn.functional.embedding(place_BF, rows).flatten(1)
        bag_BK = torch.arange(len(ids_BF), device=ids_BF.device).unsqueeze(1) * ids_BF.shape[1] + self.first_K
        pooled = nn.functional.embedding_bag(place_BF.flatten(), rows, bag_BK.flatten(), mode="sum", per_sample_weights=share_BF.flatten())
        return pooled.view(len(ids_BF), len(self.first_K) * rows.shape[1])

    def shares(self, ids_BF: Tensor) -> Tensor | None:
        """float32 [B, F]: what an id counts for in the mean of its feature. None without lists: every id is its feature's only one."""
        if not self.lists:
            return None
        share_BF = torch.ones(ids_BF.shape, device=ids_BF.device)
        for first, end, nothing in self.lists:
            there = ids_BF[:, first:end] != nothing
            count_B = there.sum(1)
            share_BF[:, first:end] = there / count_B.clamp(min=1).unsqueeze(1)
            share_BF[:, first] += count_B == 0  # the first is then the id of the missing value
        return share_BF


class Representation(nn.Module):
    """Features -> (numbers float32 [B, numbers_width], embeddings float32 [B, K * E]).

    Numbers are continuous features squashed, missing flags and dense vectors.

    squash: clip at fitted quantiles, standardise. log: sign(x) * log(1 + |x|), then squash. none: as it is. A missing number stands at the
    mean. A number whose training rows hold no variation (or no value) tells nothing and reads as the mean, always.
    """

    def __init__(self, columns: Columns, embedding_width: int, statistics: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__()
        self.embedding = FusedEmbedding(columns, embedding_width)
        count, dense_width = len(columns.continuous), len(columns.dense_names)
        self.numbers_width = count + count + len(columns.dense) + dense_width
        fitted = [_squash(feature.transform, statistics.get(feature.column)) for feature in columns.continuous]
        for i, name in enumerate(("low_C", "high_C", "mean_C", "scale_C")):
            self.register_buffer(name, torch.tensor([numbers[i] for numbers in fitted], dtype=torch.float32))
        self.register_buffer(
            "log_C", torch.tensor([feature.transform == "log" for feature in columns.continuous], dtype=torch.bool), persistent=False
        )

    low_C: Tensor
    high_C: Tensor
    mean_C: Tensor
    scale_C: Tensor
    log_C: Tensor

    def forward(self, features: Features, share_BF: Tensor | None, lookup: Lookup | None = None) -> tuple[Tensor, Tensor]:
        """`share_BF`: self.embedding.shares of the features' ids."""
        return self.numbers(features), self.embedding(features.ids_BF, share_BF, lookup)

    def numbers(self, features: Features) -> Tensor:
        """What is not embedded, side by side: squashed numbers [B, C], missing flags [B, M], dense vectors [B, D]."""
        raw_BC = features.continuous_BC
        number_BC = torch.where(self.log_C, raw_BC.sign() * raw_BC.abs().log1p(), raw_BC).clamp(self.low_C, self.high_C)
        present_BC = 1 - features.missing_BM[:, : raw_BC.shape[1]]
        squashed_BC = (number_BC - self.mean_C) * self.scale_C * present_BC
        return torch.cat([squashed_BC, features.missing_BM, features.dense_BD.clamp(-LARGEST_INPUT, LARGEST_INPUT)], dim=1)


def _squash(transform: str, statistic: Mapping[str, float] | None) -> tuple[float, float, float, float]:
    """(low, high, mean, scale) of a continuous feature."""
    if transform == "none":
        return -LARGEST_INPUT, LARGEST_INPUT, 0.0, 1.0
    if statistic is None or statistic["std"] <= 0:
        return 0.0, 0.0, 0.0, 0.0
    return statistic["low"], statistic["high"], statistic["mean"], 1 / statistic["std"]
