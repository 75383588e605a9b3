"""What etl/profile.py finds of a column, and etl/proposal.py decides by. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from conf.template import Family

Kind = Literal["number", "text", "texts", "numbers", "other"]


class Labelled(NamedTuple):
    """Rows whose label of a head is known, and those with label 1."""

    rows: int
    positives: int

    @property
    def rate(self) -> float:
        return self.positives / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Alone:
    """How well a column, as the only predictor, tells a head's positives: learned on one half of the rows, measured on the other.

    `auc` is None where the measured half has too few positives. `filled`, `missing`: the labels where the column has a value, and where not.
    """

    auc: float | None
    filled: Labelled
    missing: Labelled


@dataclass(frozen=True)
class Parts:
    """The elements of a column's lists, or the tokens of its sentences; of one row each counts once.

    `length`: nine filled rows in ten have no more. `top`: the most frequent with their share of `counted`, as many as etl/profile.py keeps.
    """

    length: int
    counted: int = 0
    distinct: int = 0
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Described:
    """A column of `examples` over the training window.

    `top`: the most frequent values with their share of the filled rows, as many as etl/profile.py keeps. `quantiles`: level -> value. `lengths`:
    of the shortest and the longest vector. `parts`: of a list of texts and of a sentence.
    """

    column: str
    family: Family
    kind: Kind
    stored: str  # the type in the table
    rows: int
    filled: int
    distinct: int = 0  # values of a text
    sampled: bool = False  # `distinct` is an estimate, and `top` of some of the rows
    top: tuple[tuple[str, float], ...] = ()
    quantiles: Mapping[float, float] = field(default_factory=dict)
    words: float = 1.0  # of a text, on average
    lengths: tuple[int, int] = (0, 0)
    parts: Parts | None = None
    heads: Mapping[str, Alone] = field(default_factory=dict)

    @property
    def missing_share(self) -> float:
        return 1 - self.filled / self.rows if self.rows else 0.0
