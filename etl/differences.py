"""What stands in a template against what would be proposed now, in lines for a person. Pure.

+ a column that is new   ~ one that would be read otherwise   - one that would be left out   ? one that the examples do not have
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from conf.template import Feature, Template
from etl.grouping import members
from etl.proposal import Proposal

# A person's number of buckets is as good as another, within this many times more or fewer.
SAME_BUCKETS = 5
SAME_LENGTH = 2  # as are places of a list
MOST_LISTED = 10


def new_in(proposals: Iterable[Proposal], standing: Template) -> list[Proposal]:
    """Proposals for columns of which the template says nothing yet."""
    known = {feature.column for feature in standing.features} | set(standing.left_out)
    return [made for made in proposals if made.column not in known]


def differences(standing: Template, proposals: Iterable[Proposal]) -> Iterator[str]:
    """One line for each column on which they differ, in the template's order, then the new ones."""
    by_column = {made.column: made for made in proposals}
    together = members(made.feature for made in by_column.values() if made.feature)
    for feature in standing.features:
        made = by_column.get(feature.column)
        if made is None:
            yield f"? {feature.column}: stands here as {_told(feature)}; the examples of this configuration have no such column"
        elif made.feature is None:
            yield f"- {feature.column}: stands here as {_told(feature)}; would be left out: {made.reason}"
        elif what := _otherwise(feature, made.feature) or _apart(feature, together.get(made.feature.group or "", ()), standing):
            yield f"~ {feature.column}: {what} ({made.reason})"
    for column, why in standing.left_out.items():
        made = by_column.get(column)
        if made and made.feature:
            yield f"+ {column}: left out here ({why}); would be {_told(made.feature)}: {made.reason}"
    for made in new_in(by_column.values(), standing):
        yield (
            f"+ {made.column}: new, {_told(made.feature)}: {made.reason}"
            if made.feature
            else f"- {made.column}: new, left out: {made.reason}"
        )


def _otherwise(stands: Feature, proposed: Feature) -> str:
    """How the proposal differs in what matters; empty where it does not."""
    if stands.type != proposed.type:
        return f"{_told(stands)} stands here, {_told(proposed)} is proposed"
    if stands.type == "continuous" and stands.transform != proposed.transform:
        return f"transform {stands.transform} stands here, {proposed.transform} is proposed"
    if stands.buckets and not stands.buckets / SAME_BUCKETS <= proposed.buckets <= stands.buckets * SAME_BUCKETS:
        return f"{stands.buckets:,} buckets stand here, {proposed.buckets:,} are proposed"
    if stands.type == "dense" and stands.width != proposed.width:
        return f"width {stands.width} stands here, {proposed.width} is proposed"
    if stands.length and not stands.length / SAME_LENGTH <= proposed.length <= stands.length * SAME_LENGTH:
        return f"the first {stands.length} are read here, {proposed.length} are proposed"
    lacks = [value for value in proposed.vocabulary if value not in stands.vocabulary]
    rare = [value for value in stands.vocabulary if value not in proposed.vocabulary]
    told = [f"{what} {_listed(some)}" for what, some in (("lacks", lacks), ("has the rare or unseen", rare)) if some]
    return f"its vocabulary {' and '.join(told)}" if told else ""


def _apart(stands: Feature, together: Sequence[str], standing: Template) -> str:
    """Which of those that a group is proposed with stand outside of the feature's own; empty where none does."""
    apart = [
        other.column
        for other in standing.features
        if other.column in together and other.column != stands.column and (other.group is None or other.group != stands.group)
    ]
    return f"stands apart from {', '.join(apart)} here, one group with it is proposed" if apart else ""


def _listed(values: Sequence[str]) -> str:
    rest = len(values) - MOST_LISTED
    return ", ".join(map(repr, values[:MOST_LISTED])) + (f" and {rest} more" if rest > 0 else "")


def _told(feature: Feature) -> str:
    size = f" of {feature.width} numbers" if feature.type == "dense" else f" ({feature.transform})" if feature.type == "continuous" else ""
    if feature.buckets:
        size = f" in {feature.buckets:,} buckets"
    if feature.vocabulary:
        size = f" of {len(feature.vocabulary):,} value{'s' if len(feature.vocabulary) > 1 else ''}"
    return f"{feature.family} {feature.type}{size}{f', the first {feature.length}' if feature.length else ''}"
