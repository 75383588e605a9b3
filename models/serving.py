"""What is known only once an ad is served, such as its position: a shallow term beside the network, at its mean in every score.

An ad that stood high was clicked more often for that alone, and good ads stand high. Learned beside the network, the effect of the place is
not put down to the ad: the shallow tower of Zhao et al., "Recommending What Video to Watch Next" (RecSys 2019), where the position is missing
when scoring. PAL (Guo et al., RecSys 2019) instead multiplies by p(seen | position) and scores p(click | seen), which is no rate of anything
that is observed.

Here the term is centred: what it adds is counted from its mean over the tower's training rows. A score leaves the term out, and so holds
for an ad in the tower's average place: rank orders ads whatever place they will get, and the log-odds stay those of served traffic but for
what their mean hides (the mean of probabilities over places is not the probability at the mean place). The calibrator, fitted on such scores
of served rows with whatever places they had, takes up the rest: a calibrated probability is the rate that ads of this score meet over the
places that are being given. It pays where something other than quality, such as a bid, decides the place; where quality alone does, the place
tells of it, and a model that leaves it out may rank better. Nothing is read of these columns to score, whatever they hold.

Shapes: B rows, K features' numbers and ids of a row, X inputs (numbers, then one an id), H heads, T towers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from conf.template import Template
from models.columns import Arrays, Columns
from models.representation import Features, Representation


class ServingTerm(nn.Module):
    """Log-odds that a weight a number and an id add, of all towers plus the tower's own, counted from their mean over the tower's rows.

    `mean_TX` [T + 1, X] holds the mean inputs, nan while they are not known; its last row, for rows of no known tower, is 0.
    forward: features of family serving -> float32 [B, H].
    """

    mean_TX: Tensor

    def __init__(self, template: Template, heads: int, towers: int, statistics: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__()
        self.columns = Columns(template, towers, serving=True)
        self.representation = Representation(self.columns, 0, statistics)  # of numbers; an id has no embedding, only its weights
        width = self.representation.numbers_width + self.columns.offsets[-1]
        self.weight = nn.Parameter(torch.zeros(1 + towers, width, heads))  # of all towers, then each one's own
        self.register_buffer("mean_TX", torch.full((towers + 1, width), torch.nan).index_fill_(0, torch.tensor(towers), 0.0))

    def forward(self, served: Features) -> Tensor:
        weight_TXH = torch.cat([self.weight[:1] + self.weight[1:], self.weight[:1]])
        position_BK, value_BK = self._inputs(served)
        tower_B = served.tower_B % len(weight_TXH)  # -1 is the last
        position_BK = position_BK + tower_B.unsqueeze(1) * weight_TXH.shape[1]
        added_BH = embedding_bag(position_BK, weight_TXH.flatten(0, 1), mode="sum", per_sample_weights=value_BK)
        return added_BH - embedding(tower_B, (self.mean_TX.unsqueeze(2) * weight_TXH).sum(1))

    def _inputs(self, served: Features) -> tuple[Tensor, Tensor]:
        """(which of the X inputs, its value), each [B, K]: numbers as the network would read them, 1 for an id."""
        numbers_BN = self.representation.numbers(served)
        rows, numbers = numbers_BN.shape
        places_BN = torch.arange(numbers, device=numbers_BN.device).expand(rows, -1)
        ids_BF = served.ids_BF + numbers
        return torch.cat([places_BN, ids_BF], 1), torch.cat([numbers_BN, torch.ones_like(ids_BF, dtype=numbers_BN.dtype)], 1)

    def sums(self, rows: Iterable[tuple[Arrays, np.ndarray]]) -> Tensor:
        """float64 [T, X + 1]: inputs summed by tower, and last the weight of the rows. `rows`: (features of family serving, weight [N])."""
        towers, width = len(self.mean_TX) - 1, self.mean_TX.shape[1]
        sums_TX = torch.zeros(towers, width + 1, dtype=torch.float64)
        for arrays, weight in rows:
            served, weight_B = Features.of(arrays), torch.from_numpy(weight).double()
            known_B = served.tower_B >= 0
            position_BK, value_BK = self._inputs(served)
            position_BK = torch.cat([position_BK, torch.full((len(weight), 1), width)], 1) + served.tower_B.unsqueeze(1) * (width + 1)
            value_BK = torch.cat([value_BK.double(), torch.ones(len(weight), 1, dtype=torch.float64)], 1) * weight_B.unsqueeze(1)
            sums_TX.view(-1).index_add_(0, position_BK[known_B].flatten(), value_BK[known_B].flatten())
        return sums_TX

    def centre_(self, sums_TX: Tensor) -> None:
        """Take the means that are not known yet from `sums`; a tower without rows has nothing to be counted from."""
        weight_T1 = sums_TX[:, -1:]
        means_TX = torch.where(weight_T1 > 0, sums_TX[:, :-1] / weight_T1, 0.0).float()
        self.mean_TX[:-1] = torch.where(self.mean_TX[:-1].isnan(), means_TX, self.mean_TX[:-1])
