"""A small model with random weights, and rows for it."""

from __future__ import annotations

import torch
from torch import nn

from models.columns import Columns
from models.engagement import EngagementModel
from models.gates import PACE, Gate
from models.representation import Features
from models.tables import IdTables
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TOWERS, example_columns

STATISTICS = {"age": {"low": -2.0, "high": 2.0, "mean": 0.5, "std": 2.0}, "spend": {"low": 0.0, "high": 3.0, "mean": 1.0, "std": 0.5}}
BASE = torch.tensor([[-1.0, 0.0, -3.0], [-2.0, 0.5, -4.0], [-3.0, 1.0, -5.0], [-1.5, 0.2, -3.5]])  # [T + 1, H]
#: The bundle.json of the small model.
META = {
    "model_id": "m1",
    "template": TEMPLATE.model_dump(mode="json"),
    "heads": {name: head.model_dump(mode="json") for name, head in HEADS.items()},
    "towers": TOWERS,
    "model": SMALL.model_dump(mode="json"),
    "statistics": STATISTICS,
    "trained": {"rows": 1},
}


def small_model() -> EngagementModel:
    torch.manual_seed(1)
    return EngagementModel(TEMPLATE, HEADS, TOWERS, SMALL, STATISTICS, BASE)


def open_gates(module: nn.Module) -> None:
    """What each tower has of its own counts in full, as sums by hand want it."""
    for gate in module.modules():
        if isinstance(gate, Gate):
            gate.gate_over_pace.data.fill_(1 / PACE)


def features(rows: int = 40, tower: int | None = None) -> Features:
    """Example rows, all of one tower where given."""
    found = Features.of(Columns(TEMPLATE, len(TOWERS)).arrays(example_columns(rows)))
    return found if tower is None else found._replace(tower_B=torch.full((rows,), tower))


def tables_of(model: EngagementModel) -> tuple[IdTables, dict[str, torch.Tensor]]:
    """The model's tables as a training holds them, and their squares."""
    squares = {"embedding": torch.zeros(len(model.tables["embedding"]), 1), "linear": torch.ones_like(model.tables["linear"])}
    return IdTables(model, squares), squares
