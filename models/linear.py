"""The shallow path: a logistic regression over the very inputs of the deep layers, beside them.

Shapes: B rows, N numbers, F ids a row, R rows of all embedded features, H heads, T towers, U rows of the table that a batch touches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.gates import Gates
from models.towers import PerTower, zero_linear


class LinearPath(nn.Module):
    """Log-odds that a weight a number and an id add: one for all towers, and one of each tower's own, gated (Wide & Deep, arXiv:1606.07792).

    All start at zero. `table` [R, 1 + T, H] holds the ids' weights, the shared ones first; like the embeddings it takes no gradient
    itself. forward: float32 [B, N], int64 [B, F], int64 [B] -> float32 [B, H].
    """

    def __init__(self, numbers: int, rows: int, heads: int, towers: int) -> None:
        super().__init__()
        self.heads, self.blocks = heads, 1 + towers
        self.shared = zero_linear(numbers, heads)
        self.residual = PerTower(towers, lambda: zero_linear(numbers, heads))
        self.gate = Gates(towers)  # of the ids' weights; those of numbers have theirs
        self.table = nn.Parameter(torch.zeros(rows, 1 + towers, heads), requires_grad=False)

    def forward(self, numbers_BN: Tensor, position_BF: Tensor, tower_B: Tensor, rows: Tensor, share_BF: Tensor | None = None) -> Tensor:
        """`rows`: the table, or those of its rows that the batch touches; `position_BF` says which of them.

        `share_BF` float32 [B, F]: what an id counts for, 1 each without it; the values of a list share one weight's worth.
        """
        of_numbers_BH = self.shared(numbers_BN) + self.residual(numbers_BN, tower_B, self.heads)
        if not position_BF.shape[1]:
            return of_numbers_BH
        shared_BF = position_BF * self.blocks
        own_BF = shared_BF + 1 + tower_B.clamp(min=0).unsqueeze(1)
        counts_BF = ((tower_B >= 0) * self.gate(tower_B)).to(rows.dtype).unsqueeze(1).expand_as(own_BF)
        weights = [torch.ones_like(counts_BF), counts_BF] if share_BF is None else [share_BF, share_BF * counts_BF]
        of_ids_BH = nn.functional.embedding_bag(
            torch.cat([shared_BF, own_BF], 1),
            rows.reshape(-1, self.heads),
            mode="sum",
            per_sample_weights=torch.cat(weights, 1),
        )
        return of_numbers_BH + of_ids_BH
