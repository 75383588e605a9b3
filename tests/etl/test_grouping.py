"""Which columns are proposed as one summarization group, from their descriptions alone."""

from __future__ import annotations

from typing import Any

from conf.template import Feature, Template
from etl.description import Described, Parts
from etl.differences import differences
from etl.grouping import fitted, grouped
from etl.proposal import Proposal, propose

TOPICS = ("cats", "dogs", "tea", "vans", "maps", "kites")


def listed(column: str, *values: str, family: Any = "user") -> Described:
    """A list of texts whose elements are `values`, each as frequent as any other."""
    parts = Parts(3, 30_000, len(values), tuple((value, 1 / len(values)) for value in values))
    return Described(column, family, "texts", "array<string>", 10_000, 10_000, words=3.0, parts=parts)


def single(column: str, *values: str, family: Any = "user") -> Described:
    top = tuple((value, 1 / len(values)) for value in values)
    return Described(column, family, "text", "string", 10_000, 10_000, distinct=len(values), top=top)


def proposed(*columns: Described) -> list[Proposal]:
    return grouped([propose(column) for column in columns], columns)


def groups(*columns: Described) -> dict[str, str | None]:
    return {made.column: made.feature.group for made in proposed(*columns) if made.feature}


def test_columns_of_one_family_that_share_most_of_their_values_are_one_group():
    other = tuple(f"x{n}" for n in range(6))
    numbers = tuple(str(n) for n in range(12))
    cases = [
        ("lists and single values alike", [listed("topics", *TOPICS), single("favourite", *TOPICS)], ["topics", "topics"]),
        ("a third by its second", [listed("a", *TOPICS), listed("b", *TOPICS, *other), listed("c", *other)], ["a", "a", "a"]),
        ("half of the values", [listed("a", *TOPICS), listed("b", *TOPICS, *other)], ["a", "a"]),
        ("less than half", [listed("a", *TOPICS), listed("b", *TOPICS, *other, "y")], [None, None]),
        ("nothing in common", [listed("a", *TOPICS), listed("b", *other)], [None, None]),
        ("too few", [single("vip", *TOPICS[:4]), single("new", *TOPICS[:4])], [None, None]),
        ("numbers", [single("hour", *numbers), single("grade", *numbers)], [None, None]),
        ("two families", [listed("a", *TOPICS), listed("b", *TOPICS, family="ad")], [None, None]),
        ("known once served", [single("a", *TOPICS, family="serving"), single("b", *TOPICS, family="serving")], [None, None]),
    ]
    assert {name: list(groups(*columns).values()) for name, columns, _ in cases} == {name: wanted for name, _, wanted in cases}


def test_the_reason_says_what_they_share():
    (topics, _) = proposed(listed("topics", *TOPICS), listed("boards", *TOPICS, *(f"x{n}" for n in range(4))))
    assert topics.reason.endswith("; 6 of its most frequent values, at least 60.0% of them by rows, are those of boards: one group")
    assert topics.feature and topics.feature.reason == topics.reason


def template(*features: dict[str, Any]) -> Template:
    of_all = {"family": "user", "type": "one_hot", "vocabulary": sorted(TOPICS), "length": 3}
    return Template(features=tuple(Feature.model_validate(of_all | feature) for feature in features))


def test_what_is_new_comes_into_the_group_where_its_own_stand_or_stays_alone():
    made = proposed(*(listed(name, *TOPICS) for name in ("topics", "boards", "pins")))
    cases = [  # what stands, the new column's group
        ("in a person's group", template({"column": "topics", "group": "interests"}, {"column": "boards"}), ["interests"]),
        ("apart by a person", template({"column": "topics"}, {"column": "boards"}), [None]),
        ("none of them", template({"column": "country"}), ["topics", "topics", "topics"]),
    ]
    for name, standing, wanted in cases:
        new = fitted([one for one in made if one.column not in {of.column for of in standing.features}], made, standing)
        assert [one.feature.group for one in new if one.feature] == wanted, name


def test_columns_that_stand_apart_are_a_difference_and_those_in_one_group_by_any_name_none():
    made = proposed(listed("topics", *TOPICS), listed("boards", *TOPICS))
    apart = list(differences(template({"column": "topics"}, {"column": "boards", "group": "b"}), made))
    assert [line.split(" (")[0] for line in apart] == [
        "~ topics: stands apart from boards here, one group with it is proposed",
        "~ boards: stands apart from topics here, one group with it is proposed",
    ]
    assert list(differences(template({"column": "topics", "group": "g"}, {"column": "boards", "group": "g"}), made)) == []
