"""A column's description -> how the model should read it, and why: pure rules, no Spark.

Each rule gives a reason with the numbers it rests on. What it proposes is for a person to review; nothing here is fitted to a model.

  number             continuous; `log` first where the farther 1% tail lies more than HEAVY_TAIL half quartile ranges from the median
                     (3.5 for a normal distribution) and beyond LOG_FROM, below which a logarithm changes little
  text, closed list  one_hot: at most LONGEST_LIST values, each in at least RAREST of the rows, cover at least COVERED of them
  text, else         hashed: ROOM times as many buckets as values, rounded up to 1, 2 or 5 times a power of ten
  numbers            dense, where every vector has the same length
Left out: what is never filled, what is always the same, texts that hardly ever repeat, sentences, and types that no feature reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from conf.template import Family, Feature

Kind = Literal["number", "text", "numbers", "other"]

LONGEST_LIST = 50
RAREST = 0.0005
COVERED = 0.995
ROOM = 2.5
MOST_BUCKETS = 10_000_000
HEAVY_TAIL = 6.0
LOG_FROM = 10.0
FEWEST_REPEATS = 2.0  # rows a value
MOST_WORDS = 4.0
WORTH_TELLING = 0.55  # an AUC


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
class Described:
    """A column of `examples` over the training window.

    `top`: the most frequent values with their share of the filled rows, LONGEST_LIST + 1 at most. `quantiles`: level -> value. `lengths`:
    of the shortest and the longest vector.
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
    heads: Mapping[str, Alone] = field(default_factory=dict)

    @property
    def missing_share(self) -> float:
        return 1 - self.filled / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Proposal:
    """A feature, or None where the column is better left out; `reason` says why in either case."""

    column: str
    feature: Feature | None
    reason: str


def propose(column: Described) -> Proposal:
    """How to read the column."""
    nothing = _nothing_to_learn(column)
    if nothing:
        return Proposal(column.column, None, nothing)
    keys, why = {"number": _number, "text": _text, "numbers": _vector, "other": _other}[column.kind](column)
    reason = why + _missing(column) + _telling(column)
    if not keys:
        return Proposal(column.column, None, why)
    return Proposal(column.column, Feature(column=column.column, family=column.family, reason=reason, **keys), reason)


def _nothing_to_learn(column: Described) -> str:
    if not column.filled:
        return f"never filled in {column.rows:,} rows"
    if column.filled < column.rows:
        return ""  # whether it is there can be learned from
    values = {repr(value) for value, _ in column.top} | {told(value) for value in column.quantiles.values()}
    constant = column.distinct == 1 or (column.kind == "number" and column.quantiles[0.0] == column.quantiles[1.0])
    return f"always {values.pop()} in {column.rows:,} rows" if constant else ""


def _number(column: Described) -> tuple[dict[str, Any], str]:
    q = column.quantiles
    spread = f"half of the values from {told(q[0.25])} to {told(q[0.75])}, 98% from {told(q[0.01])} to {told(q[0.99])}"
    if set(q.values()) == {0, 1}:
        return {"type": "continuous", "transform": "none"}, "0 or 1"
    if tail(q) > HEAVY_TAIL and max(abs(q[0.01]), abs(q[0.99])) >= LOG_FROM:
        sign = "" if q[0.0] >= 0 else " (with its sign)"
        return {"type": "continuous", "transform": "log"}, f"a long tail: {spread}; its logarithm{sign}"
    return {"type": "continuous", "transform": "squash"}, f"{spread}"


def tail(quantiles: Mapping[float, float]) -> float:
    """How far the farther of the 1% and 99% quantiles lies from the median, in half quartile ranges: 2.0 even, 3.5 normal, 7 exponential."""
    farther = max(quantiles[0.99] - quantiles[0.5], quantiles[0.5] - quantiles[0.01])
    half_range = (quantiles[0.75] - quantiles[0.25]) / 2
    return farther / half_range if half_range else math.inf if farther else 0.0


def _text(column: Described) -> tuple[dict[str, Any], str]:
    if column.words > MOST_WORDS:
        return {}, f"sentences of {column.words:.0f} words on average, and no type reads text yet"
    values = [value for value, share in column.top[:LONGEST_LIST] if share >= RAREST]
    covered = sum(share for _, share in column.top[: len(values)])
    if covered >= COVERED:
        known = {"type": "one_hot", "vocabulary": tuple(sorted(values, key=_in_order(values)))}
        if len(column.top) == len(values):
            return known, f"{len(values)} values: a closed list"
        return known, f"{_values(column)}, the {len(values)} most frequent cover {share_of_rows(covered)} of rows: a closed list"
    if column.filled < FEWEST_REPEATS * column.distinct:
        return {}, f"{_values(column)} in {column.filled:,} filled rows: hardly one comes twice, so there is nothing to learn of them"
    buckets = round_up(ROOM * column.distinct)
    load = f"{buckets:,} buckets, {column.distinct / buckets:.2g} values each"
    return {
        "type": "hashed",
        "buckets": buckets,
    }, f"{_values(column)}, the most frequent in {share_of_rows(column.top[0][1])} of rows; {load}"


def _vector(column: Described) -> tuple[dict[str, Any], str]:
    shortest, longest = column.lengths
    if shortest != longest or not longest:
        return {}, f"vectors of {shortest} to {longest} numbers; dense needs one length, so pad or cut them in the source's expression"
    return {"type": "dense", "width": longest}, f"a vector of {longest} numbers in every filled row"


def _other(column: Described) -> tuple[dict[str, Any], str]:
    return {}, f"it is {column.stored}, which no type of feature reads; make it a number or a text in the source's expression"


def _in_order(values: list[str]) -> Any:
    """By name, or by number where all are whole numbers: an order that stays when frequencies change."""
    return int if all(value.lstrip("-").isascii() and value.lstrip("-").isdigit() for value in values) else str


def _values(column: Described) -> str:
    return f"about {round_to_three(column.distinct):,} values" if column.sampled else f"{column.distinct:,} values"


def _missing(column: Described) -> str:
    return f"; missing in {share_of_rows(column.missing_share)} of rows" if column.filled < column.rows else ""


def _telling(column: Described) -> str:
    measured = {head: alone.auc for head, alone in column.heads.items() if alone.auc is not None}
    best = max(measured, key=lambda head: measured[head] or 0, default=None)
    return f"; alone it orders {best} with AUC {measured[best]:.2f}" if best and (measured[best] or 0) >= WORTH_TELLING else ""


def round_up(number: float) -> int:
    """To 1, 2 or 5 times a power of ten, from 10 to MOST_BUCKETS."""
    power = 10 ** math.floor(math.log10(max(number, 10)))
    return min(next(step * power for step in (1, 2, 5, 10) if step * power >= number), MOST_BUCKETS)


def round_to_three(number: int) -> int:
    """To three digits: as much as an approximate count promises."""
    return number if number < 1000 else round(number, 3 - len(str(number)))


def share_of_rows(share: float) -> str:
    """Never 0% of what is there, nor 100% of what is not all."""
    return "under 0.1%" if 0 < share < 0.001 else "over 99.9%" if 0.999 < share < 1 else f"{share:.1%}"


def told(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
