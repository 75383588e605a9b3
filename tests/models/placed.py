"""Examples that also know where an ad was shown, and a training in which every choice that is off by default is on."""

from __future__ import annotations

import numpy as np

from conf.template import Template
from conf.training import ModelConf, Training
from tests.models.snapshots import SMALL, TEMPLATE, TRAINING, example_columns

PLACE = [
    {"column": "slot", "family": "serving", "type": "one_hot", "vocabulary": ["first", "second"]},
    {"column": "depth", "family": "serving", "type": "continuous"},
]
PLACED = Template.model_validate({"features": [*TEMPLATE.model_dump(mode="json")["features"], *PLACE]})
ADDITIVE = SMALL.model_copy(update={"serving": "additive"})
EVERY_MODEL: ModelConf = ADDITIVE.model_copy(update={"private_layers": {"save": (6, 4), "good_click": (3,)}})
EVERY_TRAINING: Training = TRAINING.model_copy(update={"head_weighting": "uncertainty", "unknown_user_share": 0.1})


def placed_columns(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """`example_columns` with a slot (2 first, 3 second) and a depth that is missing in a fifth of the rows."""
    draw = np.random.default_rng(seed + 100)
    gone = draw.random(rows) < 0.2
    return example_columns(rows, seed) | {
        "slot": draw.integers(2, 4, rows).astype(np.int32),
        "depth": np.where(gone, 0, draw.normal(2, 1, rows)).astype(np.float32),
        "depth__missing": gone.astype(np.int8),
    }
