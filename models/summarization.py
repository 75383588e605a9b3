"""The summarization layer: what several embeddings say about one thing, as one.

Shapes: B rows, K embedded features, E embedding width, G groups, N features of a group, W what is left: ungrouped features and groups, E each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conf.template import Feature
from models.columns import Columns
from models.experts import Linear


class Summarization(nn.Module):
    """float32 [B, K * E] -> [B, W]: the embeddings of features without a group as they are, then one common embedding of each group.

    A group's is a linear map of its features' embeddings side by side, [B, N * E] -> [B, E]. The layer is that of "How we use AutoML,
    Multi-task learning and Multi-tower models for Pinterest Ads" (Pinterest Engineering, 2020), in which related features share one common
    embedding; the linear map is ours. Without groups it has no weights and does nothing.
    """

    order_K: Tensor

    def __init__(self, columns: Columns, embedding_width: int) -> None:
        super().__init__()
        self.groups = groups_of(columns)
        grouped = [place for places in self.groups.values() for place in places]
        alone = [place for place in range(len(columns.embedded)) if place not in grouped]
        self.sizes = [len(alone), *(len(places) for places in self.groups.values())]
        self.register_buffer("order_K", torch.tensor([*alone, *grouped], dtype=torch.int64), persistent=False)
        self.of_group = nn.ModuleList(Linear(len(places) * embedding_width, embedding_width) for places in self.groups.values())
        self.embedding_width, self.width = embedding_width, (len(alone) + len(self.groups)) * embedding_width

    def forward(self, embedded_BX: Tensor) -> Tensor:
        if not self.groups:
            return embedded_BX
        ordered_BKE = embedded_BX.unflatten(1, (-1, self.embedding_width))[:, self.order_K]
        alone, *grouped = (part_BNE.flatten(1) for part_BNE in ordered_BKE.split(self.sizes, 1))
        # Contiguous, since a matrix product goes another way, with other last bits, through rows that lie apart.
        common = [linear(part.contiguous()) for linear, part in zip(self.of_group, grouped, strict=True)]
        return torch.cat([alone, *common], 1)


def groups_of(columns: Columns) -> dict[str, list[int]]:
    """Group -> the places of its features among the embedded ones; groups in the order in which the template first names them."""
    groups: dict[str, list[int]] = {}
    for place, feature in enumerate(columns.embedded):
        if feature.group is not None:
            groups.setdefault(feature.group, []).append(place)
    return groups


def embeddings_of(columns: Columns) -> list[list[Feature]]:
    """The features of each embedding that Summarization gives, in its order: one, or those of a group."""
    groups = [[columns.embedded[place] for place in places] for places in groups_of(columns).values()]
    return [*([feature] for feature in columns.embedded if feature.group is None), *groups]
