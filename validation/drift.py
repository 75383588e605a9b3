"""Distribution shift of features, as pure functions: the newest day's profile against those of the days that were trained on.

A profile is what the ledger keeps of one feature on one day, so that no day is ever read twice:
  counts  rows by bin, the missing value first; bins were learned when the feature was first seen and are carried on
  seen    which of gate.seen_bits hash positions the day's values fall on (a bitmap, zlib, base64); not for continuous features
A row has one value of a feature: of a list the first that is there, of a text its first token.
Shift is the population stability index, PSI = sum over bins of (a - e) ln(a / e) for shares a (newest day) and e (reference): N. Siddiqi,
Credit Risk Scorecards, Wiley 2006, ch. 9, who reads .1 to .25 as some and above .25 as a large shift. With no shift its mean is about
(bins - 1)(1/n + 1/m) for n and m rows (B. Yurdakul, Statistical Properties of PSI, 2018): .02 for 20 bins of 2,000 rows each.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from conf.gates import Gate
from conf.template import Feature
from validation.checks import Check

TOP_VALUES = 20  # bins of a categorical feature, beside those of the other values and of the missing one
FLOOR = 1e-4  # the share that an empty bin stands for, since the logarithm of 0 is not defined
FULL = 0.9  # a bitmap with more of its positions taken cannot tell new values from old ones

Profile = Mapping[str, Any]
Profiles = Mapping[str, Mapping[str, Profile]]  # day -> feature -> profile


def psi(reference: Sequence[float], newest: Sequence[float]) -> float:
    """Population stability index of two histograms (counts or shares) over the same bins."""
    if len(reference) != len(newest):
        raise ValueError(f"histograms of {len(reference)} and {len(newest)} bins; PSI needs the same bins")
    total, new_total = sum(reference), sum(newest)
    if not total or not new_total:
        raise ValueError("a histogram without rows has no distribution; PSI needs rows on both sides")
    pairs = [(max(e / total, FLOOR), max(a / new_total, FLOOR)) for e, a in zip(reference, newest, strict=True)]
    return sum((a - e) * math.log(a / e) for e, a in pairs)


def merged(histograms: Sequence[Sequence[int]]) -> list[int]:
    return [sum(counts) for counts in zip(*histograms, strict=True)]


def usual_shift(reference: Sequence[Sequence[int]]) -> float:
    """The largest PSI of one of the reference's days against its other days; at least two are needed.

    It is how far a day strays that nobody worries about: a column like the weekday holds another value each day.
    """
    others = [merged([*reference[:n], *reference[n + 1 :]]) for n in range(len(reference))]
    return max(psi(rest, day) for rest, day in zip(others, reference, strict=True))


def shifts_by_day(histograms: Mapping[str, Sequence[int]], reference: Collection[str]) -> dict[str, float]:
    """Day -> its PSI against the days of `reference`, itself left out; a day without rows, or for which that leaves none, has no shift."""
    shifts = {}
    for day, newest in sorted(histograms.items()):
        others = [histograms[other] for other in reference if other != day and other in histograms]
        if any(newest) and any(map(any, others)):
            shifts[day] = psi(merged(others), newest)
    return shifts


class Shift(NamedTuple):
    """How far the newest day of `of` lies from `days` days before it; `usual`: how far one of those lies from the others, at most.

    `rows`: of the newest day, or of the days before, whichever are fewer.
    """

    of: str
    day: str
    psi: float
    usual: float | None
    days: int
    rows: int


def shift_of(name: str, histograms: Mapping[str, Sequence[int]], first: str, last: str) -> Shift | None:
    """The newest day against those from `first` to `last`, or against all earlier ones where none of these was counted; None without any."""
    newest = max(histograms)
    earlier = sorted(day for day in histograms if day < newest and any(histograms[day]))
    reference = [day for day in earlier if first <= day <= last] or earlier
    shifts = shifts_by_day({day: histograms[day] for day in (*reference, newest)}, reference)
    if newest not in shifts:
        return None
    rows = min(sum(histograms[newest]), sum(sum(histograms[day]) for day in reference))
    return Shift(name, newest, shifts.pop(newest), max(shifts.values(), default=None), len(reference), rows)


def cuts(quantiles: Sequence[float | None]) -> list[float]:
    """Upper edges (included) of all bins of a continuous feature but the last, from its quantiles; ties become one edge."""
    return sorted({round(edge, 9) for edge in quantiles if edge is not None and math.isfinite(edge)})


def top_positions(counts: Mapping[int, int]) -> list[int]:
    """The hash positions of the most frequent values; ties by position."""
    return sorted(sorted(counts, key=lambda position: (-counts[position], position))[:TOP_VALUES])


def counts_in(bins: Profile, missing: int, counts: Mapping[int, int]) -> list[int]:
    """Rows by bin, the missing value first. `counts`: rows by bin number of a continuous feature, by hash position of any other."""
    if "cuts" in bins:
        return [missing, *(counts.get(number, 0) for number in range(len(bins["cuts"]) + 1))]
    top = [counts.get(position, 0) for position in bins["top"]]
    return [missing, sum(counts.values()) - sum(top), *top]


def pack(positions: Sequence[int], bits: int) -> str:
    taken = np.zeros(bits, dtype=bool)
    taken[list(positions)] = True
    return base64.b64encode(zlib.compress(np.packbits(taken).tobytes())).decode()


def unpack(text: str, bits: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)).astype(bool)[:bits]


def unseen_share(counts: Mapping[int, int], missing: int, seen: np.ndarray) -> float | None:
    """Share of rows whose value the reference does not have. None where its bitmap is too full to tell.

    A new value falls on a position already taken with the probability f that any position is taken, so what is counted is (1 - f) of what
    is there (linear counting: Whang, Vander-Zanden, Taylor, ACM TODS 15(2), 1990).
    """
    rows, taken = missing + sum(counts.values()), float(seen.mean())
    if taken > FULL or not rows:
        return None
    return min(1.0, sum(count for position, count in counts.items() if not seen[position]) / rows / (1 - taken))


@dataclass(frozen=True)
class Newest:
    """The newest day as it was counted: feature -> missing rows, and rows by bin number or hash position."""

    day: str
    missing: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


def drift_checks(features: Sequence[Feature], newest: Newest, reference: Profiles, bins: Mapping[str, Profile], gate: Gate) -> list[Check]:
    """PSI of every feature but dense vectors, and the share of unseen values of every categorical one; warnings.

    Judged against two or more reference days, on gate.min_psi_rows rows or more on both sides.
    """
    checks = []
    for feature in features:
        name = feature.column
        if name not in newest.counts:
            continue
        days = {day: profiles[name] for day, profiles in sorted(reference.items()) if name in profiles and day != newest.day}
        rows = newest.missing[name] + sum(newest.counts[name].values())
        trained_on = sum(sum(profile["counts"]) for profile in days.values())
        few = "no history yet" if len(days) < 2 else f"{rows:,} rows against {trained_on:,}: too few to judge"
        judged = len(days) >= 2 and min(rows, trained_on) >= gate.min_psi_rows
        checks.append(_psi_check(name, newest, days if judged else {}, bins[name], gate, few))
        if "top" in bins[name]:
            checks.append(_unseen_check(name, newest, days if judged else {}, gate, few))
    return checks


def _psi_check(name: str, newest: Newest, days: Mapping[str, Profile], bins: Profile, gate: Gate, nothing: str) -> Check:
    numbers, needed, told = {}, f"at most {gate.max_psi:g}", {}
    limit = gate.max_psi
    if days:
        histograms = [profile["counts"] for profile in days.values()]
        found = psi(merged(histograms), counts_in(bins, newest.missing[name], newest.counts[name]))
        own = usual_shift(histograms)
        limit = max(gate.max_psi, own)
        numbers, told = {newest.day: found}, {newest.day: f"PSI {found:.3f} against {min(days)} to {max(days)}"}
        needed = f"at most {limit:.3g}, the larger of gate.max_psi and what those days differ among themselves ({own:.3g})"
    why = "the model meets values in other proportions than it was trained on"
    knob = f"gate.max_psi is {gate.max_psi:g}"
    return Check("psi", name, numbers, why, high=limit, severity="warning", knob=knob, needed=needed, told=told, nothing=nothing)


def _unseen_check(name: str, newest: Newest, days: Mapping[str, Profile], gate: Gate, nothing: str) -> Check:
    share, told = None, {}
    seen = [unpack(profile["seen"], gate.seen_bits) for profile in days.values()]
    if seen:
        union = np.logical_or.reduce(seen)
        if all(bitmap.sum() <= 1 for bitmap in seen) and union.sum() > 1:
            nothing = "one value a day, another one each day: a calendar's, and new by nature"
        else:
            share = unseen_share(newest.counts[name], newest.missing[name], union)
            nothing = f"{union.mean():.0%} of the hash positions are taken: too full to tell; raise gate.seen_bits"
        told = {newest.day: f"{share:.2%} of rows hold a value unseen on {min(days)} to {max(days)}"} if share is not None else {}
    return Check(
        "unseen",
        name,
        {} if share is None else {newest.day: share},
        "what training never met is predicted from the other features alone",
        high=gate.max_unseen_share,
        severity="warning",
        knob=f"gate.max_unseen_share is {gate.max_unseen_share:g}",
        needed=f"at most {gate.max_unseen_share:.0%} of rows",
        told=told,
        nothing=nothing,
    )
