"""How much of what a tower has of its own counts: a number a tower, learned from rows that were not learned from yet.

A tower's own weights learn its rows' noise too. Where sources do not differ, that noise is all they have, and no decay of weights that leaves
room for what a source says cures it. So each residual (of a tower's layers, its read-outs, its ids ...) is multiplied by a gate, which starts
low. In the first epoch every row is met before it is learned from: whether the residual, as other rows made it, brings this row nearer to its
label is an honest answer, and the gate follows it up or down (prequential: Dawid, J. R. Stat. Soc. A 1984). Later epochs leave it alone, since
rows known by heart would always open it. A gated residual is that of ReZero (Bachlechner et al., arXiv:2003.04887), which is for depth.

Shapes: B rows, T towers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

START = 0.3
#: AdamW moves every weight by about the learning rate; a gate has to come from START to 1, or to 0, within one epoch.
PACE = 10.0
SUFFIX = ".gate_over_pace"


class Gate(nn.Module):
    """Of one tower: a module, so that what is learned of it has the tower's name (models/warm_start.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_over_pace = nn.Parameter(torch.tensor(START / PACE))

    def forward(self) -> Tensor:
        return PACE * self.gate_over_pace


class Gates(nn.Module):
    """int64 [B] -> float32 [B]; of rows of no known tower (-1), which have no residual, that of some tower."""

    def __init__(self, towers: int) -> None:
        super().__init__()
        self.of_tower = nn.ModuleList(Gate() for _ in range(towers))

    def forward(self, tower_B: Tensor) -> Tensor:
        return torch.stack([gate() for gate in self.of_tower])[tower_B.clamp(min=0)]


def opened(tensors: Mapping[str, Tensor], names: Mapping[str, object]) -> dict[str, Tensor]:
    """The weights of a model that has `names`; from a bundle older than its gates, with all of them open, as the others were learned."""
    gates = (name for name in names if name.endswith(SUFFIX) and name not in tensors)
    return dict(tensors) | {name: torch.tensor(1 / PACE) for name in gates}
