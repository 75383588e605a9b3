"""Masked, weighted binary cross-entropy of every head, with divisors that no batch and no number of ranks moves.

Shapes: B rows, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def share_of_weight(weight: Mapping[str, float], rows: int, batch_size: int) -> Tensor:
    """float32 [H]: 1 / (total weight of the head's loss rows x batch_size / rows); 0 leaves out a head without any.

    A constant divisor: the mean over a batch's own known rows would give a row of a thin batch more say, and would differ between ranks.
    """
    return torch.tensor([rows / (total * batch_size) if total > 0 else 0.0 for total in weight.values()], dtype=torch.float32)


def head_losses(logits_BH: Tensor, labels_BH: Tensor, known_BH: Tensor, weight_B: Tensor, share_H: Tensor) -> Tensor:
    """float32 [H]: sum over rows of weight x known x cross-entropy, times `share_H`.

    Summed over the ranks and steps of an epoch this is the mean loss x rows / batch_size.
    """
    entropy_BH = binary_cross_entropy_with_logits(logits_BH.float(), labels_BH, reduction="none")
    return (entropy_BH * known_BH * weight_B.unsqueeze(1)).sum(0) * share_H


def counted(known_BH: Tensor, weight_B: Tensor, share_H: Tensor) -> Tensor:
    """float32 [H]: the rows of `head_losses`, without their cross-entropy; 1 on the average batch."""
    return (known_BH * weight_B.unsqueeze(1)).sum(0) * share_H


def conditional(labels_BH: Tensor, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
    """int labels (1, 0, -1 = masked) [B, H] -> (labels float32, known float32): known is 1 where the head's loss counts the row.

    A child head stands for p(child | parent), so it counts rows whose parent is 1 and whose own label is known.
    """
    known_BH = labels_BH >= 0
    for head, parent in enumerate(parents):
        if parent >= 0:
            known_BH[:, head] &= labels_BH[:, parent] == 1
    return labels_BH.clamp(min=0).float(), known_BH.float()
