"""Towers and heads: a shared one for all, plus a residual of each tower's own that starts at zero.

A new or small source therefore starts as the shared tower and departs from it only as far as its data pay for (training.residual_decay).
A row runs through its own tower's residual alone. Shapes: B rows, I input width, O output width, H heads, n rows of one tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.experts import Linear, layers


class PerTower(nn.Module):
    """One module a tower; a row goes through its own tower's module only. A row of no known tower (-1) gets zeros."""

    def __init__(self, towers: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.of_tower = nn.ModuleList(make() for _ in range(towers))

    def forward(self, input_BI: Tensor, tower_B: Tensor, width: int) -> Tensor:
        """float32 [B, I], int64 [B] -> float32 [B, width]."""
        rows, outputs = [], []
        for tower, module in enumerate(self.of_tower):
            own_n = (tower_B == tower).nonzero().squeeze(1)
            if own_n.numel():
                rows.append(own_n)
                outputs.append(module(input_BI[own_n]))
        if not rows:
            return input_BI.new_zeros(len(input_BI), width)
        stacked = torch.cat(outputs)
        return stacked.new_zeros(len(input_BI), width).index_copy(0, torch.cat(rows), stacked)


class Towers(nn.Module):
    """relu(shared(x) + residual of the row's tower(x)). forward: float32 [B, I], int64 [B] -> float32 [B, W]."""

    def __init__(self, width: int, widths: Sequence[int], towers: int, dropout: float) -> None:
        super().__init__()
        self.width = widths[-1]
        inner, last = widths[:-1], (width, *widths)[-2]
        self.shared = nn.Sequential(*layers(width, inner, dropout), Linear(last, self.width))
        self.residual = PerTower(towers, lambda: nn.Sequential(*layers(width, inner, dropout), zero_linear(last, self.width)))

    def forward(self, input_BI: Tensor, tower_B: Tensor) -> Tensor:
        return (self.shared(input_BI) + self.residual(input_BI, tower_B, self.width)).relu()


class Heads(nn.Module):
    """Log-odds of every head: a shared linear map, plus the tower's own, plus the base log-odds of that tower and head.

    `base_TH` [T + 1, H] is counted (models.manifest), its last row for rows of no known tower: learning starts at the base rates.
    forward: float32 [B, I], int64 [B] -> float32 [B, H].
    """

    base_TH: Tensor

    def __init__(self, width: int, heads: int, towers: int, base_TH: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.shared = Linear(width, heads)
        nn.init.zeros_(self.shared.bias)
        self.residual = PerTower(towers, lambda: zero_linear(width, heads))
        self.register_buffer("base_TH", base_TH.to(torch.float32))

    def forward(self, hidden_BI: Tensor, tower_B: Tensor) -> Tensor:
        # -1 is the last row of base_TH, as of any Python sequence.
        return self.shared(hidden_BI) + self.residual(hidden_BI, tower_B, self.heads) + self.base_TH[tower_B]


def zero_linear(width: int, out: int) -> Linear:
    linear = Linear(width, out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
