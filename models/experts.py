"""The layers that all towers share: one bottom for all heads, or experts that each head mixes for itself.

Shapes: B rows, I input width, O output width, W width of the last layer, E experts, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

LEAST_ROWS, LEAST_COLUMNS = 32, 16


class Linear(nn.Linear):
    """nn.Linear whose output of a row has the same bits whatever rows stand beside it (on one thread).

    Matrix libraries take other routines, with another order of sums, for a handful of rows; and for fewer than a dozen columns of output
    one whose order follows how each row lies in memory. Rows come in batches that nothing fixes, and the same day scored twice must give
    the same table.
    """

    def reset_parameters(self) -> None:
        """A layer without input (of a template without numbers) is its bias alone, from 0 on; torch warns that such a one has no weights."""
        if self.in_features:
            super().reset_parameters()
        else:
            nn.init.zeros_(self.bias)

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
    """Fully connected layers under every tower (Caruana, Multitask Learning, 1997). forward: float32 [B, I] -> [B, 1, W]."""

    def __init__(self, width: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(width, widths, dropout))
        self.width = widths[-1]

    def forward(self, input_BI: Tensor) -> Tensor:
        return self.layers(input_BI).unsqueeze(1)


class PerHead(nn.Module):
    """One module a head, each for its own input: H modules of float32 [B, I] -> [B, O]."""

    def __init__(self, heads: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.of_head = nn.ModuleList(make() for _ in range(heads))

    def forward(self, input_BHI: Tensor) -> Tensor:
        # Contiguous, since a matrix product goes another way, with other last bits, through rows that lie apart.
        return torch.stack([module(input_BHI[:, head].contiguous()) for head, module in enumerate(self.of_head)], 1)


class MixtureOfExperts(nn.Module):
    """MMoE: experts that all heads share, mixed by a gate a head (Ma et al., KDD 2018). forward: float32 [B, I] -> [B, H, W]."""

    def __init__(self, width: int, widths: Sequence[int], dropout: float, experts: int, heads: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(*layers(width, widths, dropout)) for _ in range(experts))
        self.gates = PerHead(heads, lambda: Linear(width, experts))
        self.width, self.heads = widths[-1], heads

    def forward(self, input_BI: Tensor) -> Tensor:
        experts_BEW = torch.stack([expert(input_BI) for expert in self.experts], 1)
        gates_BHE = self.gates(input_BI.unsqueeze(1).expand(-1, self.heads, -1)).softmax(2)
        return mixed(gates_BHE, experts_BEW.unsqueeze(1))


class ProgressiveExtraction(nn.Module):
    """PLE: levels of shared experts and one of each head's own, which only that head's gate reads (Tang et al., RecSys 2020).

    A level is one layer wide: `widths` [levels]. forward: float32 [B, I] -> [B, H, W].
    """

    def __init__(self, width: int, widths: Sequence[int], dropout: float, experts: int, heads: int) -> None:
        super().__init__()
        inputs, last = (width, *widths), len(widths) - 1
        self.levels = nn.ModuleList(
            ExtractionLevel(inputs[level], inputs[level + 1], dropout, experts, heads, last=level == last) for level in range(len(widths))
        )
        self.width, self.heads = widths[-1], heads

    def forward(self, input_BI: Tensor) -> Tensor:
        own_BHI, shared_BI = input_BI.unsqueeze(1).expand(-1, self.heads, -1), input_BI
        for level in self.levels:
            own_BHI, shared_BI = level(own_BHI, shared_BI)
        return own_BHI


class ExtractionLevel(nn.Module):
    """float32 [B, H, I], [B, I] -> what each head reads on [B, H, O], and the next level's shared input [B, O] (the last has none: as given)."""

    def __init__(self, width: int, out: int, dropout: float, experts: int, heads: int, last: bool) -> None:
        super().__init__()
        self.shared = nn.ModuleList(nn.Sequential(*layers(width, (out,), dropout)) for _ in range(experts))
        self.own = PerHead(heads, lambda: nn.Sequential(*layers(width, (out,), dropout)))
        self.gates = PerHead(heads, lambda: Linear(width, experts + 1))
        self.gate = None if last else Linear(width, experts + heads)

    def forward(self, own_BHI: Tensor, shared_BI: Tensor) -> tuple[Tensor, Tensor]:
        shared_BEO, own_BHO = torch.stack([expert(shared_BI) for expert in self.shared], 1), self.own(own_BHI)
        seen_BHEO = torch.cat([shared_BEO.unsqueeze(1).expand(-1, own_BHO.shape[1], -1, -1), own_BHO.unsqueeze(2)], 2)
        read_BHO = mixed(self.gates(own_BHI).softmax(2), seen_BHEO)
        if self.gate is None:
            return read_BHO, shared_BI
        every_BEO = torch.cat([shared_BEO, own_BHO], 1)
        return read_BHO, mixed(self.gate(shared_BI).softmax(1), every_BEO)


def mixed(share: Tensor, experts: Tensor) -> Tensor:
    """Experts [..., E, W] by their shares [..., E] -> [..., W]. Summed row by row, so that a row's bits depend on no other row."""
    return (share.unsqueeze(-1) * experts).sum(-2)
