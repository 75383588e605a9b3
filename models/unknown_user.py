"""Training rows that lose their user, so that the model knows what to expect of a user nobody knows.

A row that is scored without a user_id has no value in any feature of family user, nor in a history feature of key user; etl/encoding.py
writes them as missing. Of the training rows `training.unknown_user_share` are given exactly that representation, other ones in every epoch
(cf. DropoutNet, Volkovs et al., NeurIPS 2017), so that its embeddings and flags are learned on users of every kind.

Which rows depends on seed, epoch, shard and place in the shard alone: not on the number of ranks, nor on where a training was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from conf.history import history_column
from conf.template import Feature, Template
from models.columns import Columns

USER = "user"  # of the families, and of the keys that history is counted by
STREAM = 1  # apart from the draws that order the same shard


class UnknownUser:
    """Takes the user from a share of the rows of one shard, a row group at a time in the file's order."""

    def __init__(self, template: Template, heads: Iterable[str], share: float, seed: int, epoch: int, shard: int) -> None:
        self.share, self.names = share, user_columns(template, list(heads)) if share else frozenset[str]()
        self.draw = np.random.default_rng((seed, epoch, shard, STREAM))

    def __call__(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encoded columns, each [N], as they are or as they would be without a user."""
        if not self.names:
            return dict(columns)
        lost = self.draw.random(len(columns["tower"])) < self.share
        return {name: without(name, values, lost) if name in self.names else values for name, values in columns.items()}


def user_columns(template: Template, heads: list[str]) -> frozenset[str]:
    """The encoded columns of the features that a row without user_id lacks."""
    own = tuple(feature for feature in template.features if of_user(feature, heads))
    return frozenset(Columns(Template(features=own), towers=0).names) - {"tower"} if own else frozenset()


def of_user(feature: Feature, heads: list[str]) -> bool:
    """History by a key of another name than `user` is not the user's, even where the key's expression reads user_id."""
    if feature.family != "history":
        return feature.family == USER
    try:
        return history_column(feature.column, [USER], heads).key == USER
    except ValueError:
        return False


def without(name: str, values: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """An encoded column with the rows `lost` missing: 0, a number as well as an id, and 1 in the flag."""
    return np.where(lost, 1 if name.endswith("__missing") else 0, values).astype(values.dtype)
