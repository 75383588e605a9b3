"""The whole model: representation -> summarization -> bottom -> towers -> heads, with shallow paths beside them. Only this file assembles.

Shapes: B rows, H heads, T towers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from conf.schema import Head
from conf.template import Template
from conf.training import ModelConf
from models.affinity import Affinity, both_sides
from models.columns import Columns
from models.experts import MixtureOfExperts, ProgressiveExtraction, SharedBottom
from models.linear import LinearPath
from models.manifest import parents_of
from models.representation import Features, Lookup, Representation
from models.serving import ServingTerm
from models.summarization import Summarization
from models.towers import Heads, PerTower, PrivateLayers, Towers


class EngagementModel(nn.Module):
    """Conditional log-odds of every head: a child head's are those given that its parent happened.

    Shared bottom with a tower a source, as in "How we use AutoML, Multi-task learning and Multi-tower models for Pinterest Ads"
    (Pinterest Engineering, 2020); towers are zero-started residuals on a shared tower (models/towers.py). Beside them a linear path
    (models/linear.py) and the affinity of viewer and ad (models/affinity.py).
    `base_TH` float32 [T + 1, H]: log-odds that learning starts at. forward -> float32 [B, H], without `served` those at the mean of what is
    known only once an ad is served (models/serving.py).
    """

    def __init__(
        self,
        template: Template,
        heads: Mapping[str, Head],
        towers: Sequence[str],
        conf: ModelConf,
        statistics: Mapping[str, Mapping[str, float]],
        base_TH: Tensor,
    ) -> None:
        super().__init__()
        self.head_names, self.tower_names, self.parents = list(heads), list(towers), parents_of(dict(heads))
        self.columns = Columns(template, len(towers))
        self.representation = Representation(self.columns, conf.embedding_width, statistics)
        self.summarization = Summarization(self.columns, conf.embedding_width)
        self.bottom = bottom_of(conf, self.representation.numbers_width + self.summarization.width, len(heads))
        self.towers = Towers(self.bottom.width, len(towers), conf)
        self.heads = Heads(self.towers.width, len(heads), len(towers), base_TH)
        self.linear = LinearPath(self.representation.numbers_width, self.columns.offsets[-1], len(heads), len(towers))
        affinity = conf.affinity and both_sides(self.columns)
        self.affinity = Affinity(self.columns, conf.embedding_width, len(heads), len(towers)) if affinity else None
        widths = {number: conf.private_layers[head] for number, head in enumerate(heads) if head in conf.private_layers}
        self.private = PrivateLayers(self.towers.width, len(heads), len(towers), widths, conf.dropout) if widths else None
        self.serving = ServingTerm(template, len(heads), len(towers), statistics) if conf.serving == "additive" else None

    def forward(self, features: Features, lookup: Lookup | None = None, served: Features | None = None) -> Tensor:
        """With a lookup the gradient reaches its rows."""
        share_BF = self.representation.embedding.shares(features.ids_BF)
        numbers, embedded = self.representation(features, share_BF, lookup)
        summarized = self.summarization(embedded)
        hidden = self.towers(self.bottom(torch.cat([numbers, summarized], 1)), features.tower_B)
        ids, weights = (features.ids_BF, self.linear.table) if lookup is None else (lookup.position_BF, lookup.linear)
        log_odds_BH = self.heads(hidden, features.tower_B) + self.linear(numbers, ids, features.tower_B, weights, share_BF)
        if self.affinity is not None:
            log_odds_BH = log_odds_BH + self.affinity(numbers, summarized, features.tower_B)
        if self.private is not None:
            log_odds_BH = log_odds_BH + self.private(hidden, features.tower_B)
        if self.serving is not None and served is not None:
            log_odds_BH = log_odds_BH + self.serving(served)
        return log_odds_BH

    @property
    def tables(self) -> dict[str, Tensor]:
        """What has a row an id, and is updated by the rows that a batch touches: [R, E] and [R, 1 + T, H]."""
        return {"embedding": self.representation.embedding.table, "linear": self.linear.table}

    def residual_modules(self) -> list[PerTower]:
        """What a tower has of its own."""
        return [module for module in self.modules() if isinstance(module, PerTower)]


def bottom_of(conf: ModelConf, width: int, heads: int) -> SharedBottom | MixtureOfExperts | ProgressiveExtraction:
    """What lies under the towers; with one input a row for all heads, or one a head."""
    if conf.bottom == "shared":
        return SharedBottom(width, conf.bottom_widths, conf.dropout)
    kind = MixtureOfExperts if conf.bottom == "mmoe" else ProgressiveExtraction
    return kind(width, conf.bottom_widths, conf.dropout, conf.experts, heads)
