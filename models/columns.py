"""Encoded columns -> arrays in the model's order; the one place that batches, predictor and model share the layout of.

Encoded columns are what etl/encoding.py writes: `c` and `c__missing` (continuous), `c` (embedded: an id), `c__0`.. (a list or text: ids, 0
where nothing is), `c__0`.. and `c__missing` (dense), `tower`. Features of family serving are left out, since they are known only once an ad is
served; they have a layout of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from conf.template import EMBEDDED, Feature, FeatureType, Template
from models.errors import ColumnsWrong


class Arrays(NamedTuple):
    """N rows. N may be any number of rows, 0 included."""

    continuous: np.ndarray  # float32 [N, C], raw values, 0 where missing
    missing: np.ndarray  # float32 [N, C + D], 1 where missing: continuous features, then dense ones
    dense: np.ndarray  # float32 [N, sum of widths]
    ids: np.ndarray  # int64 [N, F], rows of the fused embedding table: one of each embedded feature, `length` of a list
    tower: np.ndarray  # int64 [N], -1: a tower that this model does not know


@dataclass(frozen=True)
class Columns:
    """The layout of a template for a model with that many towers. `serving`: that of its features of family serving alone."""

    template: Template
    towers: int
    serving: bool = False

    def _of(self, *types: FeatureType) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.template.of_type(*types) if (feature.family == "serving") == self.serving)

    @cached_property
    def continuous(self) -> tuple[Feature, ...]:
        return self._of("continuous")

    @cached_property
    def dense(self) -> tuple[Feature, ...]:
        return self._of("dense")

    @cached_property
    def embedded(self) -> tuple[Feature, ...]:
        return self._of(*EMBEDDED)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of each embedded feature in the fused table, and its total at the end."""
        return tuple(accumulate((feature.ids for feature in self.embedded), initial=0))

    @cached_property
    def places(self) -> tuple[int, ...]:
        """The first column of `Arrays.ids` that is each embedded feature's, and their number at the end."""
        return tuple(accumulate((len(feature.id_columns) for feature in self.embedded), initial=0))

    @cached_property
    def dense_names(self) -> tuple[str, ...]:
        return tuple(f"{feature.column}__{i}" for feature in self.dense for i in range(feature.width))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every encoded column that the model reads."""
        flags = (f"{feature.column}__missing" for feature in self.continuous + self.dense)
        numbers = (feature.column for feature in self.continuous)
        ids = (name for feature in self.embedded for name in feature.id_columns)
        return (*numbers, *ids, *self.dense_names, *flags, "tower")

    def arrays(self, columns: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays of equally long encoded columns. An absent column or an id outside its feature raises ColumnsWrong."""
        absent = [name for name in self.names if name not in columns]
        if absent:
            raise ColumnsWrong(
                f"encoded columns lack {', '.join(absent)}; there are {', '.join(sorted(columns))}. Encode with the template of the model"
            )
        flags = [f"{feature.column}__missing" for feature in self.continuous + self.dense]
        tower = np.asarray(columns["tower"]).astype(np.int64)
        _require_within("tower", tower, -1, self.towers)
        return Arrays(
            continuous=_matrix(columns, [feature.column for feature in self.continuous], len(tower)),
            missing=_matrix(columns, flags, len(tower)),
            dense=_matrix(columns, list(self.dense_names), len(tower)),
            ids=self._ids(columns, len(tower)),
            tower=tower,
        )

    def _ids(self, columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        ids = np.empty((rows, self.places[-1]), np.int64)
        named = [(name, i) for i, feature in enumerate(self.embedded) for name in feature.id_columns]
        for place, (name, i) in enumerate(named):
            values = np.asarray(columns[name])
            _require_within(name, values, 0, self.embedded[i].ids)
            np.add(values, self.offsets[i], out=ids[:, place], casting="unsafe")
        return ids


def _matrix(columns: Mapping[str, np.ndarray], names: list[str], rows: int) -> np.ndarray:
    matrix = np.empty((rows, len(names)), np.float32)
    for i, name in enumerate(names):
        matrix[:, i] = columns[name]
    return matrix


def _require_within(name: str, values: np.ndarray, least: int, end: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise ColumnsWrong(f"{name} holds {values.dtype}; ids are whole numbers")
    if values.size and (values.min() < least or values.max() >= end):
        raise ColumnsWrong(
            f"{name} holds ids {values.min()} to {values.max()}; the model knows {least} to {end - 1}. "
            "Encode with the template and towers of the model"
        )
