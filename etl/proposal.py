"""A column's description -> how the model should read it, and why: pure rules, no Spark.

Each rule gives a reason with the numbers it rests on. What it proposes is for a person to review; nothing here is fitted to a model.

  number             continuous; `log` first where the farther 1% tail lies more than HEAVY_TAIL half quartile ranges from the median
                     (3.5 for a normal distribution) and beyond LOG_FROM, below which a logarithm changes little
  text, closed list  one_hot: at most LONGEST_LIST values, each in at least RAREST of the rows, cover at least COVERED of them
  text, sentences    text: more than MOST_WORDS words on average; hashed tokens
  text, else         hashed: ROOM times as many buckets as values, rounded up to 1, 2 or 5 times a power of ten
  list of texts      one_hot or hashed, as a text is, by its elements
  numbers            dense, where every vector has the same length
Of a sentence and a list so many places are read (`length`) that LIST_COVERED of the filled rows have no more.
Left out: what is never filled, what is always the same, what hardly ever repeats, and types that no feature reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.template import Feature
from etl.description import Described, Parts

LONGEST_LIST = 50
RAREST = 0.0005
COVERED = 0.995
ROOM = 2.5
MOST_BUCKETS = 10_000_000
HEAVY_TAIL = 6.0
LOG_FROM = 10.0
FEWEST_REPEATS = 2.0  # rows a value
RARE = "hardly one comes twice, so there is nothing to learn of them"
MOST_WORDS = 4.0
LIST_COVERED = 0.9
LONGEST_READ = 64  # places of a list, the most that a feature may have
WORTH_TELLING = 0.55  # an AUC


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
    ways = {"number": _number, "text": _text, "texts": _list, "numbers": _vector, "other": _other}
    keys, why = ways[column.kind](column)
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
    values = _values(column.distinct, column.sampled)
    if known := _closed(column.top, values, "rows"):
        return known
    if column.parts:
        return _sentence(column, column.parts)
    if _rare(column.filled, column.distinct):
        return {}, f"{values} in {column.filled:,} filled rows: {RARE}"
    buckets, load = _room(column.distinct)
    return {"type": "hashed", "buckets": buckets}, f"{values}, the most frequent in {share_of_rows(column.top[0][1])} of rows; {load}"


def _sentence(column: Described, parts: Parts) -> tuple[dict[str, Any], str]:
    tokens = _values(parts.distinct, column.sampled, "token")
    what = f"sentences of {column.words:.0f} words on average, {tokens}"
    if column.family == "serving":
        return {}, f"{what}; the serving term reads single values"
    if _rare(parts.counted, parts.distinct):
        return {}, f"{what}: {RARE}"
    buckets, load = _room(parts.distinct)
    keys = {"type": "text", "length": parts.length, "buckets": buckets}
    return keys, f"{what}; {_places(parts, 'tokens')}; {load}"


def _list(column: Described) -> tuple[dict[str, Any], str]:
    parts = column.parts
    assert parts is not None, "whoever describes a list counts its elements"
    values = _values(parts.distinct, column.sampled)
    what, places = f"lists of {column.words:.2g} values on average", _places(parts, "values")
    if column.family == "serving":
        return {}, f"{what}; the serving term reads single values"
    if known := _closed(parts.top, values, "values in lists"):
        keys, why = known
        return {**keys, "length": parts.length}, f"{what}; {why}; {places}"
    if _rare(parts.counted, parts.distinct):
        return {}, f"{what}, {values}: {RARE}"
    buckets, load = _room(parts.distinct)
    return {"type": "hashed", "buckets": buckets, "length": parts.length}, f"{what}, {values}; {places}; {load}"


def _closed(top: Sequence[tuple[str, float]], told_as: str, of: str) -> tuple[dict[str, Any], str] | None:
    """As a closed list, where few values cover nearly all."""
    values = [value for value, share in top[:LONGEST_LIST] if share >= RAREST]
    covered = sum(share for _, share in top[: len(values)])
    if covered < COVERED:
        return None
    known = {"type": "one_hot", "vocabulary": tuple(sorted(values, key=_in_order(values)))}
    if len(top) == len(values):
        return known, f"{len(values)} values: a closed list"
    return known, f"{told_as}, the {len(values)} most frequent cover {share_of_rows(covered)} of {of}: a closed list"


def _rare(counted: int, distinct: int) -> bool:
    """Also where there is none at all."""
    return counted < FEWEST_REPEATS * distinct or not distinct


def _room(distinct: int) -> tuple[int, str]:
    buckets = round_up(ROOM * distinct)
    return buckets, f"{buckets:,} buckets, {distinct / buckets:.2g} values each"


def _places(parts: Parts, what: str) -> str:
    return (
        f"{LIST_COVERED:.0%} have no more than {parts.length} {what}"
        if parts.length < LONGEST_READ
        else f"the first {LONGEST_READ} are read"
    )


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


def _values(distinct: int, sampled: bool, what: str = "value") -> str:
    return f"about {round_to_three(distinct):,} {what}s" if sampled else f"{distinct:,} {what}s"


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
