"""The answer of jobs/explain.py as a person reads it: what changed, mainly through what, and the parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from etl.explanation import EXPECTED
from models.metrics import chance_share, poisson_interval

SAME = 1e-6  # published scores are float64, but batches of other sizes round otherwise
MAINLY, WORTH_SAYING = 0.8, 0.2  # of a change: named until they make up so much; a part against it, from so much on
NONE_SEEN = -math.log(0.025)  # the most engagements that are to be expected, at 95%, where none was seen
CANCELS = 0.05  # a change that is less of its largest part: a share of it says nothing

#: Factor -> what it says of a fall and of a rise.
WORDS = {
    "model": ("the other model rates it lower", "the other model rates it higher"),
    "calibrator": ("the other calibrator makes it lower", "the other calibrator makes it higher"),
    "features": ("what is now known of its users and ads lowers it", "what is now known of its users and ads raises it"),
    "mix": ("its mix of candidates is rated lower", "its mix of candidates is rated higher"),
    "volume": ("it stands for fewer impressions", "it stands for more impressions"),
}


def lines_of(told: Mapping[str, Any]) -> list[str]:
    """`told`: as `jobs.explain.answer` gives it."""
    lines = _heading(told)
    shown = [*([told["whole"]] if told["whole"] else []), *told["segments"]]
    of_segments = told["segments"] or shown
    places = _decimals([part for one in of_segments for part in (*one["parts"].values(), one["after"] - one["before"])])
    for one in shown:
        what = "all rows" if one is told["whole"] or not told["by"] else f"{told['by']} {one['segment']}"
        lines += ["", *_change(what, one, places)]
    if told["shown_of"] > len(told["segments"]):
        lines += ["", f"{len(told['segments'])} of {told['shown_of']:,} shown; --top shows more, --value one"]
    if told["on_one_day_only"]:
        lines += ["", f"{told['on_one_day_only']:,} have rows on one of the days alone, and so no mean to compare"]
    lines += _features(told.get("features", ()), told["of"], told["days"])
    for day, differs in zip(told["days"], told["differs_from_published"], strict=True):
        if differs > SAME:
            lines += [
                "",
                f"Beware: the published scores of {day} do not come out again, by up to {differs:.2%}: its tables have changed since.",
            ]
    return lines


def _heading(told: Mapping[str, Any]) -> list[str]:
    (first, last), (before, after) = told["days"], told["models"]
    by = f"both by model {after}" if before == after else f"{last} by model {after}, {first} by model {before}"
    lines = [f"{told['of']} of {last} against {first}; {by}"]
    for level in told["levels"]:
        observed = level["observed"]
        held = (
            f"predicted / observed {level['predicted'] / observed:.3f}" if observed else f"predicted {level['predicted']:,.1f}, observed 0"
        )
        chance = f"{observed:,} positives, chance alone {chance_share(observed):.1%}" if observed else "no positives"
        lines.append(f"    model of {level['scored']}: {held} on its held-out day {level['measured']} ({chance})")
    return lines


def _change(what: str, one: Mapping[str, Any], places: int) -> list[str]:
    before, after, parts = one["before"], one["after"], one["parts"]
    change = after - before
    counted = {"rows": one["rows"], "impressions": one["impressions"]}
    counts = ", ".join(f"{name} {first:,.0f} -> {last:,.0f}" for name, (first, last) in counted.items())
    lines = [f"{what}: {before:,.{places}f} -> {after:,.{places}f} ({change:+,.{places}f}{_share(before, after)}); {counts}"]
    if words := reason(change, parts):
        lines.append(f"    {words}")
    if levels := one.get("levels"):
        lines.append("    on held-out days: " + "; ".join(map(_level, levels)))
    return lines + [f"    {factor:<12}{part:+14,.{places}f}" for factor, part in sorted(parts.items(), key=lambda pair: -abs(pair[1]))]


def _level(level: Mapping[str, Any]) -> str:
    """What was predicted of a segment on a day that no fit read, and what came, with the limits that chance alone gives it."""
    predicted, observed = level["predicted"], level["observed"]
    if not level["rows"]:
        return f"{level['measured']} no impressions"
    low, high = (observed * limit for limit in poisson_interval(observed)) if observed else (0.0, NONE_SEEN)
    beyond = "" if low <= predicted <= high else ": off beyond chance"
    return f"{level['measured']} predicted {predicted:,.1f}, observed {observed:,} (95% {low:,.1f} to {high:,.1f}){beyond}"


def reason(change: float, parts: Mapping[str, float]) -> str:
    """The factors that make up most of the change, in words, and those that stand against it; "" where nothing changed."""
    if not change:
        return ""
    if abs(change) < CANCELS * max(map(abs, parts.values())):
        return "its parts nearly cancel"
    along = sorted(((part / change, factor) for factor, part in parts.items() if part / change > 0), key=lambda pair: -pair[0])
    named: list[str] = []
    reached = 0.0
    for share, factor in along:
        if reached < MAINLY:
            named.append(f"{WORDS[factor][parts[factor] > 0]} ({share:.0%})")
            reached += share
    against = [f"{WORDS[factor][part > 0]} ({part / change:.0%})" for factor, part in parts.items() if part / change <= -WORTH_SAYING]
    return "mainly: " + ", and ".join(named) + (f"; against it: {', and '.join(against)}" if against else "")


def _features(features: Sequence[Mapping[str, Any]], of: str, days: Sequence[str]) -> list[str]:
    """What each feature adds to the mean, day by day: the mean as it is less the mean where the feature were not known."""
    if not features:
        return []
    worths = [[day[0] - day[1] if day else None for day in row["days"]] for row in features]
    places = _decimals([worth for pair in worths for worth in pair if worth is not None])
    mean = f"p_{of.removeprefix(EXPECTED)}" if of.startswith(EXPECTED) else of
    lines = ["", f"What each feature adds to the mean {mean} of all rows chosen, against its not being known: {days[0]} -> {days[1]}"]
    for row, pair in zip(features, worths, strict=True):
        told = " -> ".join(
            "no such feature" if worth is None else f"{worth:+.{places}f}" if math.isfinite(worth) else "no rows" for worth in pair
        )
        lines.append(f"    {row['feature']:<28}{row['family']:<9}{told}")
    return lines


def _decimals(changes: Sequence[float]) -> int:
    """So many that the largest of these numbers has four digits that count: one number for a whole table."""
    largest = max((abs(change) for change in changes if math.isfinite(change)), default=0.0)
    return min(max(3 - math.floor(math.log10(largest)), 0), 9) if largest else 3


def _share(before: float, after: float) -> str:
    """By how much it changed, as a share of what it was."""
    return f", {(after - before) / abs(before):+.1%}" if before else ""
