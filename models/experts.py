"""The layers that all towers share.

Shapes: B rows, I input width, W width of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import linear, pad

LEAST_ROWS, LEAST_COLUMNS = 32, 4


class Linear(nn.Linear):
    """nn.Linear whose output of a row has the same bits whatever rows stand beside it (on one thread).

    Matrix libraries take other routines, with another order of sums, for a handful of rows or for one column of output; rows come in
    batches that nothing fixes, and the same day scored twice must give the same table.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows, more_rows, more_columns = len(input), max(LEAST_ROWS - len(input), 0), max(LEAST_COLUMNS - self.out_features, 0)
        weight: Tensor = pad(self.weight, (0, 0, 0, more_columns)) if more_columns else self.weight
        bias: Tensor = pad(self.bias, (0, more_columns)) if more_columns else self.bias
        padded = pad(input, (0, 0, 0, more_rows)) if more_rows else input
        return linear(padded, weight, bias)[:rows, : self.out_features]


def layers(width: int, widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Linear, ReLU and (where asked) dropout per width."""
    made: list[nn.Module] = []
    for before, after in zip((width, *widths), widths, strict=False):
        made += [Linear(before, after), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
    return made


class SharedBottom(nn.Module):
    """Fully connected layers under every tower (Caruana, Multitask Learning, 1997). forward: float32 [B, I] -> [B, W]."""

    def __init__(self, width: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(width, widths, dropout))
        self.width = widths[-1]

    def forward(self, input_BI: Tensor) -> Tensor:
        return self.layers(input_BI)
