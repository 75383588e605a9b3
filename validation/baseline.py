"""What is usual: a day's counts against the same weekday of earlier nights, as pure functions of plain dicts.

The history is what gates that passed wrote into the run ledger; a failed run or gate left nothing there, so that a bad day never becomes
the measure of the next one. A usual number is a median, so that one odd day among several does not move it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from typing import Any

from conf.gates import Gate
from validation.checks import Check
from validation.findings import Severity

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")

Rows = Mapping[str, Mapping[str, int]]  # day -> source -> rows
Labels = Mapping[str, Mapping[str, Mapping[str, list[int]]]]  # day -> source -> head -> [positives, known labels]


@dataclass(frozen=True)
class History:
    """What gates of earlier nights recorded; of a day that several nights judged, the last one's numbers.

    `rows`: table -> Rows. `labels`: days whose labels were final. `bins`: feature -> bins. `profiles`: day -> feature -> profile (drift.py).
    """

    rows: Mapping[str, Rows] = field(default_factory=dict)
    labels: Labels = field(default_factory=dict)
    bins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> History:
        """From the counts of gates that passed, oldest night first."""
        rows: dict[str, dict[str, Mapping[str, int]]] = {}
        labels: dict[str, Mapping[str, Mapping[str, list[int]]]] = {}
        bins: dict[str, Mapping[str, Any]] = {}
        profiles: dict[str, dict[str, Mapping[str, Any]]] = {}
        for counts in records:
            for table, days in counts.get("rows", {}).items():
                rows.setdefault(table, {}).update(days)
            labels |= counts.get("labels", {})
            changed = {name for name, made in counts.get("bins", {}).items() if name in bins and bins[name] != made}
            for features in profiles.values():  # counts in bins of another shape say nothing about these
                for name in changed & features.keys():
                    del features[name]
            bins |= counts.get("bins", {})
            for day, features in counts.get("profiles", {}).items():
                profiles.setdefault(day, {}).update(features)
        return cls(rows, labels, bins, profiles)


@dataclass(frozen=True)
class Usual:
    amount: float
    of: str  # such as "median of 3 earlier Fridays"


def usual(by_day: Mapping[str, float], day: str, min_same_weekdays: int) -> Usual | None:
    """The median over earlier days of the same weekday, over all earlier days where those are fewer than `min_same_weekdays`.

    None without any earlier day. Days are ISO text; a day itself and later ones are never its own measure.
    """
    earlier = {other: number for other, number in by_day.items() if other < day}
    weekday = date.fromisoformat(day).weekday()
    same = [number for other, number in earlier.items() if date.fromisoformat(other).weekday() == weekday]
    if len(same) >= min_same_weekdays:
        return Usual(median(same), f"median of {len(same)} earlier {WEEKDAYS[weekday]}")
    return Usual(median(earlier.values()), f"median of {len(earlier)} earlier days") if earlier else None


def count_checks(history: Rows, found: Rows, gate: Gate, optional: Iterable[str] = ()) -> list[Check]:
    """Each source's rows a day as a multiple of the usual: critical beyond max_count_ratio either way, a warning beyond warn_count_ratio.

    `found` has every day judged, a day without rows too. A source of the history that is missing counts as 0 rows; one that only
    `optional` blocks feed never stops the night. Where fewer than min_expected_rows are expected nothing is judged: the Poisson noise of
    100 rows is 10% either way, that of 10 rows 32%.
    """
    sources = sorted({source for days in (history, found) for counts in days.values() for source in counts})
    return [check for source in sources for check in _count_pair(history, found, gate, source, source in set(optional))]


def _count_pair(history: Rows, found: Rows, gate: Gate, source: str, optional: bool) -> list[Check]:
    past = {day: float(counts[source]) for day, counts in history.items() if source in counts}
    ratios: dict[str, float] = {}
    told: dict[str, str] = {}
    nothing = "no history yet"
    for day, counts in found.items():
        expected, rows = usual(past, day, gate.min_same_weekdays), counts.get(source, 0)
        if expected is None:
            continue
        if expected.amount < gate.min_expected_rows:
            nothing = f"fewer than {gate.min_expected_rows} rows a day are usual: too few to judge"
            continue
        ratios[day] = rows / expected.amount
        told[day] = f"{rows:,} rows, {ratios[day]:.3g} times the {expected.amount:,.0f} that are usual ({expected.of})"
    why = "a source that sends far fewer or more rows than on this weekday is cut off, delivered twice or read wrongly"
    hard = _ratio_check("rows_usual", source, ratios, told, gate.max_count_ratio, "max_count_ratio", why, nothing)
    hard = hard if not optional else _as_warning(hard)
    rest = {day: ratio for day, ratio in ratios.items() if day not in hard.wrong}
    soft = _ratio_check("rows_near_usual", source, rest, told, gate.warn_count_ratio, "warn_count_ratio", why, nothing, "warning")
    return [hard, soft]


def label_checks(history: Labels, found: Labels, gate: Gate) -> list[Check]:
    """Each head's rate of positives in each source, on days whose labels are final, as a multiple of the usual rate; a warning.

    Judged where at least min_expected_rows positives are expected.
    """
    cells = sorted({(head, source) for counts in found.values() for source, heads in counts.items() for head in heads})
    return [_rate_check(history, found, gate, head, source) for head, source in cells]


def _rate_check(history: Labels, found: Labels, gate: Gate, head: str, source: str) -> Check:
    past = _rates(history, head, source)
    ratios: dict[str, float] = {}
    told: dict[str, str] = {}
    nothing = "no history yet"
    for day, counts in found.items():
        positives, known = counts.get(source, {}).get(head, [0, 0])
        expected = usual(past, day, gate.min_same_weekdays)
        if expected is None or not known:
            continue
        if expected.amount * known < gate.min_expected_rows:
            nothing = f"fewer than {gate.min_expected_rows} positives are expected: too few to judge"
            continue
        ratios[day] = positives / (expected.amount * known)
        told[day] = f"{positives:,} of {known:,}, {ratios[day]:.3g} times the rate {expected.amount:.3g} that is usual ({expected.of})"
    why = "a rate that jumps is a changed log, a lost join or another audience; what was learned before may no longer hold"
    name = "label_rate_usual"
    return _ratio_check(name, f"label_{head} in {source}", ratios, told, gate.warn_label_ratio, "warn_label_ratio", why, nothing, "warning")


def _rates(labels: Labels, head: str, source: str) -> dict[str, float]:
    cells = {day: counts.get(source, {}).get(head, [0, 0]) for day, counts in labels.items()}
    return {day: positives / known for day, (positives, known) in cells.items() if known}


def _ratio_check(
    name: str,
    column: str,
    ratios: Mapping[str, float],
    told: Mapping[str, str],
    limit: float,
    knob: str,
    why: str,
    nothing: str,
    severity: Severity = "critical",
) -> Check:
    needed = f"{1 / limit:.3g} to {limit:g} times the usual"
    return Check(name, column, ratios, why, 1 / limit, limit, severity, f"gate.{knob} is {limit:g}", "", needed, told, nothing)


def _as_warning(check: Check) -> Check:
    return Check(**{**vars(check), "severity": "warning"})
