"""How much each head's loss weighs: by its rows, all alike, or by the noise that is learned of it.

By rows, the losses add up to the likelihood of all labels. Were all alike, a row of a child head such as good_click, of which there is one where
click has thirty, would move what the heads share thirty times as far, which then learns its noise.

Uncertainty weighting (Kendall, Gal & Cipolla, CVPR 2018) in its form for cross-entropy: a row of head h costs exp(-s) L + s / 2, s the log of
the head's variance (a regression's would be exp(-s) L / 2 + s / 2). At rest s = log(2 x mean loss): a head weighs 1 / (2 x its mean loss), so
that one with rare positives, whose loss is small, is not drowned by the others.

s / 2 is a row's like L: counted where the head counts the row, with its weight, by the same constant divisor. So the optimum moves with no
batch size, padding or number of ranks, and a head that is left out stays where it started.

Shapes: H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from models.manifest import Manifest

# Gradient descent, not Adam: at rest the curvature exp(-s) L is 1/2 whatever the head, so one rate fits all.
LEARNING_RATE = 0.05


class HeadWeighting:
    """`log_variance_H` is part of a training's state, the same on every rank, and gone once the bundle is saved: each training starts at the
    optimum of a model that knows the base rates alone."""

    def __init__(self, kind: Literal["rows", "constant", "uncertainty"], manifest: Manifest) -> None:
        self.learned = kind == "uncertainty"
        self.log_variance_H = torch.zeros(len(manifest.heads))
        if kind == "rows":
            self.log_variance_H = -share_of_rows(manifest).log()
        elif kind == "uncertainty":
            self.log_variance_H = (2 * base_entropy(manifest)).log()

    @property
    def weight_H(self) -> Tensor:
        return (-self.log_variance_H).exp()

    def learn_(self, loss_H: Tensor, counted_H: Tensor) -> None:
        """One step down the gradient, by sums over all ranks: models.losses.head_losses, and the same of 1 a row, which is 1 on the average batch."""
        if self.learned:
            self.log_variance_H -= LEARNING_RATE * (counted_H / 2 - self.weight_H * loss_H)


def share_of_rows(manifest: Manifest) -> Tensor:
    """float32 [H]: weight of each head's loss rows over that of the head with most; 1 for a head without any, which is left out."""
    weight_H = torch.tensor([manifest.weight[head] for head in manifest.heads], dtype=torch.float32)
    return torch.where(weight_H > 0, weight_H / weight_H.max().clamp(min=1e-30), 1.0)


def base_entropy(manifest: Manifest) -> Tensor:
    """float32 [H]: mean cross-entropy, in nats, of a model that predicts each head's rate over all towers."""
    log_odds_H = torch.from_numpy(manifest.base_log_odds()[-1]).float()
    return binary_cross_entropy_with_logits(log_odds_H, log_odds_H.sigmoid(), reduction="none")
