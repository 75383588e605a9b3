"""Towers and heads: a shared one for all, plus a residual of each tower's own that starts at zero.

A new or small source therefore starts as the shared tower and departs from it only as far as its data pay for (models/gates.py).
A row runs through its own tower's residual alone. Shapes: B rows, I input width, W output width, K inputs a row, H heads, T towers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from conf.training import ModelConf
from models.crosses import CrossNetwork, LatentCross
from models.experts import Linear, layers
from models.gates import Gates


class PerTower(nn.Module):
    """One module a tower; a row goes through its own tower's module only. A row of no known tower (-1) gets zeros.

    What the modules give is multiplied by the tower's gate, unless they are `whole`: nothing that is shared stands beside them.
    """

    def __init__(self, towers: int, make: Callable[[], nn.Module], whole: bool = False) -> None:
        super().__init__()
        self.of_tower = nn.ModuleList(make() for _ in range(towers))
        self.gate = None if whole else Gates(towers)

    def forward(self, input_BI: Tensor, tower_B: Tensor, width: int) -> Tensor:
        """float32 [B, ...], as its modules read it, int64 [B] -> float32 [B, width]."""
        rows, outputs = [], []
        for tower, module in enumerate(self.of_tower):
            own_n = (tower_B == tower).nonzero().squeeze(1)
            if own_n.numel():
                rows.append(own_n)
                outputs.append(module(input_BI[own_n]))
        if not rows:
            return input_BI.new_zeros(len(input_BI), width)
        stacked = torch.cat(outputs)
        output = stacked.new_zeros(len(input_BI), width).index_copy(0, torch.cat(rows), stacked)
        return output if self.gate is None else output * self.gate(tower_B).unsqueeze(1)


class Towers(nn.Module):
    """relu(shared(x) + residual of the row's tower(x)), or, for comparison, `plain`: each tower alone, relu(own(x)).

    Each is a cross (where asked) and fully connected layers. K inputs a row, one for all heads or one a head, go the same way.
    forward: float32 [B, K, I], int64 [B] -> float32 [B, K, W].
    """

    def __init__(self, width: int, towers: int, conf: ModelConf) -> None:
        super().__init__()
        self.width = conf.tower_widths[-1]

        def tower(make_last: Callable[[int, int], Linear]) -> nn.Sequential:
            crosses = crossed(width, conf)
            entry = crosses[0].width if crosses else width
            inner, last = conf.tower_widths[:-1], (entry, *conf.tower_widths)[-2]
            return nn.Sequential(*crosses, *layers(entry, inner, conf.dropout), make_last(last, self.width))

        self.shared = None if conf.towers == "plain" else tower(Linear)
        make_last = Linear if conf.towers == "plain" else zero_linear
        self.residual = PerTower(towers, lambda: tower(make_last), whole=conf.towers == "plain")

    def forward(self, input_BKI: Tensor, tower_B: Tensor) -> Tensor:
        rows, inputs = input_BKI.shape[:2]
        flat, tower = input_BKI.flatten(0, 1), tower_B.repeat_interleave(inputs)
        output = self.residual(flat, tower, self.width)
        if self.shared is not None:
            output = output + self.shared(flat)
        return output.relu().view(rows, inputs, self.width)


class Heads(nn.Module):
    """Log-odds of every head: a shared linear map, plus the tower's own, plus the base log-odds of that tower and head.

    `base_TH` [T + 1, H] is counted (models.manifest), its last row for rows of no known tower: learning starts at the base rates.
    forward: float32 [B, 1, I] (all heads read it) or [B, H, I] (each head its own), int64 [B] -> float32 [B, H].
    """

    base_TH: Tensor

    def __init__(self, width: int, heads: int, towers: int, base_TH: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.shared = ReadOut(width, heads)
        nn.init.zeros_(self.shared.bias)
        self.residual = PerTower(towers, lambda: zeroed(ReadOut(width, heads)))
        self.register_buffer("base_TH", base_TH.to(torch.float32))

    def forward(self, hidden_BKI: Tensor, tower_B: Tensor) -> Tensor:
        # -1 is the last row of base_TH, as of any Python sequence.
        return self.shared(hidden_BKI) + self.residual(hidden_BKI, tower_B, self.heads) + self.base_TH[tower_B]


class PrivateLayers(nn.Module):
    """Log-odds that some heads add to their read-out by fully connected layers of their own: `widths` is head number -> units a layer.

    The layers are of all towers, their read-out is shared plus one of each tower's own. All read-outs start at zero, so a head departs
    from what it shares with the others only as far as its own data pay, and one that is given private layers later starts as it was.
    forward: as of Heads -> float32 [B, H], 0 where a head has none.
    """

    def __init__(self, width: int, heads: int, towers: int, widths: Mapping[int, Sequence[int]], dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.of_head = nn.ModuleDict({str(head): PrivateHead(width, towers, own, dropout) for head, own in widths.items()})

    def forward(self, hidden_BKI: Tensor, tower_B: Tensor) -> Tensor:
        added_HB = [hidden_BKI.new_zeros(len(hidden_BKI))] * self.heads
        for head, own in self.of_head.items():
            input = 0 if hidden_BKI.shape[1] == 1 else int(head)
            added_HB[int(head)] = own(hidden_BKI[:, input].contiguous(), tower_B)  # contiguous as in PerHead
        return torch.stack(added_HB, 1)


class PrivateHead(nn.Module):
    """What one head has of its own. forward: float32 [B, I], int64 [B] -> float32 [B]."""

    def __init__(self, width: int, towers: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(width, widths, dropout))
        self.shared = zero_linear(widths[-1], 1)
        self.residual = PerTower(towers, lambda: zero_linear(widths[-1], 1))

    def forward(self, hidden_BI: Tensor, tower_B: Tensor) -> Tensor:
        own_BW = self.layers(hidden_BI)
        return (self.shared(own_BW) + self.residual(own_BW, tower_B, 1)).squeeze(1)


class ReadOut(Linear):
    """A number a head, of what all heads read [B, 1, I] or each head's own [B, H, I]. -> [B, H]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, 0]) if input.shape[1] == 1 else (input * self.weight).sum(2) + self.bias


def crossed(width: int, conf: ModelConf) -> list[LatentCross | CrossNetwork]:
    """The cross in front of a tower's layers; none where model.cross says so."""
    if conf.cross == "none":
        return []
    return [LatentCross(width, conf.cross_order) if conf.cross == "latent" else CrossNetwork(width, conf.cross_order)]


def zero_linear(width: int, out: int) -> Linear:
    return zeroed(Linear(width, out))


def zeroed(linear: Linear) -> Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
