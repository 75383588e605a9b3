"""The representation layer: every feature on a common scale, ids from one fused embedding table.

Shapes: B rows, C continuous features, M = C + dense features, D numbers of all dense vectors, F embedded features, U rows of the table that
a batch touches, E embedding width.
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
    """All embedding tables as one [sum of ids, E]. It takes no gradient itself: see models.optimizers.adagrad_."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, width) * 0.01, requires_grad=False)

    def forward(self, ids_BF: Tensor, lookup: Lookup | None = None) -> Tensor:
        """float32 [B, F * E]. With a lookup the gradient reaches its rows."""
        if lookup is None:
            return nn.functional.embedding(ids_BF, self.table).flatten(1)
        return nn.functional.embedding(lookup.position_BF, lookup.embedding).flatten(1)


class Representation(nn.Module):
    """Features -> (numbers float32 [B, numbers_width], embeddings float32 [B, F * E]), in all `width` columns.

    Numbers are continuous features squashed, missing flags and dense vectors.

    squash: clip at fitted quantiles, standardise. log: sign(x) * log(1 + |x|), then squash. none: as it is. A missing number stands at the
    mean. A number whose training rows hold no variation (or no value) tells nothing and reads as the mean, always.
    """

    def __init__(self, columns: Columns, embedding_width: int, statistics: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__()
        self.embedding = FusedEmbedding(columns.offsets[-1], embedding_width)
        count, dense_width = len(columns.continuous), len(columns.dense_names)
        self.numbers_width = count + count + len(columns.dense) + dense_width
        self.width = self.numbers_width + len(columns.embedded) * embedding_width
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

    def forward(self, features: Features, lookup: Lookup | None = None) -> tuple[Tensor, Tensor]:
        return self.numbers(features), self.embedding(features.ids_BF, lookup)

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
