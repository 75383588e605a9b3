"""The layers that all towers share.

Shapes: B rows, I input width, W width of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def layers(width: int, widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Linear, ReLU and (where asked) dropout per width."""
    made: list[nn.Module] = []
    for before, after in zip((width, *widths), widths, strict=False):
        made += [nn.Linear(before, after), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return made


class SharedBottom(nn.Module):
    """Fully connected layers under every tower (Caruana, Multitask Learning, 1997). forward: float32 [B, I] -> [B, W]."""

    def __init__(self, width: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(width, widths, dropout))
        self.width = widths[-1]

    def forward(self, input_BI: Tensor) -> Tensor:
        return self.layers(input_BI)
