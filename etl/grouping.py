"""Columns that say the same kind of thing -> one summarization group. Pure rules on descriptions; what they propose is for a person to review.

Two embedded features of one family are alike where at least FEWEST_SHARED of their most frequent values are the same and make up at least
MOSTLY of either's, by rows: topics that a user follows beside topics of what the user saved. Whole numbers do not count, since 3 may be an
hour here and a grade there. So the published system groups features that are similar in nature, as annotations of a user that several
algorithms made ("How we use AutoML, Multi-task learning and Multi-tower models for Pinterest Ads", 2020); the rule is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import fsum

from conf.template import EMBEDDED, Feature, Template
from etl.description import Described
from etl.proposal import Proposal, share_of_rows

FEWEST_SHARED = 5
MOSTLY = 0.5


def grouped(proposals: Sequence[Proposal], columns: Sequence[Described]) -> list[Proposal]:
    """The proposals, those that are alike in a group that has the name of its first column; their reasons say what they share."""
    described = {column.column: column for column in columns}
    features = [made.feature for made in proposals if made.feature and made.feature.type in EMBEDDED and made.feature.family != "serving"]
    frequent = {feature.column: _frequent(feature, described[feature.column]) for feature in features}
    group_of: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for one, other in combinations(features, 2):
        shared, least = _shared(frequent[one.column], frequent[other.column])
        if one.family == other.family and shared >= FEWEST_SHARED and least >= MOSTLY and other.column not in group_of:
            group_of[other.column] = group_of.setdefault(one.column, one.column)
            told = f"{shared} of its most frequent values, at least {share_of_rows(least)} of them by rows, are those of"
            reasons.setdefault(one.column, f"; {told} {other.column}: one group")
            reasons[other.column] = f"; {told} {one.column}: one group"
    return [
        _in_group(made, group_of[made.column], made.reason + reasons[made.column]) if made.column in group_of else made
        for made in proposals
    ]


def fitted(new: Iterable[Proposal], proposals: Iterable[Proposal], standing: Template) -> list[Proposal]:
    """What is new to a template that stands: in the group in which one of their own stands there, else only with others that are new too."""
    stands = {feature.column: feature.group for feature in standing.features}
    own = members(made.feature for made in proposals if made.feature)
    return [_in_group(made, _group_there(made, own, stands), made.reason) if made.feature else made for made in new]


def members(features: Iterable[Feature]) -> dict[str, list[str]]:
    """Group -> its columns, in their order."""
    found: dict[str, list[str]] = {}
    for feature in features:
        if feature.group is not None:
            found.setdefault(feature.group, []).append(feature.column)
    return found


def _group_there(made: Proposal, own: Mapping[str, Sequence[str]], stands: Mapping[str, str | None]) -> str | None:
    proposed = made.feature.group if made.feature else None
    together = own.get(proposed or "", [])
    there = [group for column in together if (group := stands.get(column))]
    if there:
        return there[0]
    return proposed if sum(column not in stands for column in together) > 1 else None


def _in_group(made: Proposal, group: str | None, reason: str) -> Proposal:
    assert made.feature is not None, "only features have groups"
    return replace(made, feature=made.feature.model_copy(update={"group": group, "reason": reason}), reason=reason)


def _shared(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[int, float]:
    """How many frequent values both have, and what share of either's rows with a frequent value they make up at least."""
    shared = one.keys() & other.keys()
    return len(shared), min(fsum(of[value] for value in shared) / fsum(of.values()) for of in (one, other)) if shared else 0.0


def _frequent(feature: Feature, column: Described) -> dict[str, float]:
    """The most frequent values that the feature embeds, elements or tokens where it reads several, with their shares."""
    top = column.parts.top if feature.length and column.parts else column.top
    return {value: share for value, share in top if not value.lstrip("-").isdigit()}
