"""Products of the numbers of a layer: what fully connected layers need many units to imitate.

Shapes: B rows, W width of the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.experts import Linear

# Smaller than Xavier: products of three large numbers would drown the rest before anything is learned.
GAIN = 0.1


def _map(width: int) -> Linear:
    made = Linear(width, width)
    nn.init.xavier_uniform_(made.weight, gain=GAIN)
    nn.init.zeros_(made.bias)
    return made


class LatentCross(nn.Module):
    """x, x * (A1 x), x * (A1 x) * (A2 x), ... side by side, up to products of `order` factors. float32 [B, W] -> [B, order * W].

    Multiplicative crosses as in "Latent Cross" (Beutel et al., WSDM 2018), stacked as in Pinterest's post of 2020.
    """

    def __init__(self, width: int, order: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(_map(width) for _ in range(order - 1))
        self.width = order * width

    def forward(self, input_BW: Tensor) -> Tensor:
        terms = [input_BW]
        for factor in self.maps:
            terms.append(terms[-1] * factor(input_BW))
        return torch.cat(terms, 1)


class CrossNetwork(nn.Module):
    """x[l + 1] = x[0] * (A[l] x[l]) + x[l], `order` - 1 times: DCN-v2 (Wang et al., WWW 2021). float32 [B, W] -> [B, W]."""

    def __init__(self, width: int, order: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(_map(width) for _ in range(order - 1))
        self.width = width

    def forward(self, input_BW: Tensor) -> Tensor:
        crossed = input_BW
        for factor in self.maps:
            crossed = input_BW * factor(crossed) + crossed
        return crossed
