"""How a column is read, from its description alone: each rule as a table of cases, without Spark."""

from __future__ import annotations

from typing import Any

import pytest

from conf.template import Template
from etl.description import Alone, Described, Labelled, Parts
from etl.differences import differences
from etl.leaks import auc, suspicions
from etl.profile import LEVELS
from etl.proposal import Proposal, propose, round_up, tail


def column(kind: str, **over: Any) -> Described:
    stored = {"number": "double", "text": "string", "texts": "array<string>", "numbers": "array<float>", "other": "map<string,int>"}[kind]
    given: dict[str, Any] = {"column": "c", "family": "context", "kind": kind, "stored": stored, "rows": 10_000, "filled": 10_000}
    return Described(**(given | over))


def numbers(value_at: Any, **over: Any) -> Described:
    return column("number", quantiles={level: value_at(level) for level in LEVELS}, **over)


def texts(*top: tuple[str, float], distinct: int = 0, **over: Any) -> Described:
    return column("text", top=top, distinct=distinct or len(top), **over)


def chosen(described: Described) -> dict[str, Any]:
    """Keys of the feature proposed; none where the column is left out."""
    feature = propose(described).feature
    return (
        feature.model_dump(include={"type", "transform", "buckets", "vocabulary", "width", "length"}, exclude_defaults=True)
        if feature
        else {}
    )


def test_a_number_is_read_as_it_is_by_its_logarithm_or_as_0_and_1():
    squash, log = {"type": "continuous"}, {"type": "continuous", "transform": "log"}
    cases = [
        ("even, 0 to 100", numbers(lambda level: 100 * level), squash),
        ("a tail to 10,000", numbers(lambda level: 10_000 * level**20), log),
        ("the same tail below 1", numbers(lambda level: level**20), squash),
        ("mostly 0, up to 50", numbers(lambda level: 50.0 if level > 0.97 else 0.0), log),
        ("tails on both sides", numbers(lambda level: 1e6 * (2 * level - 1) ** 21), log),
        ("0 or 1", numbers(lambda level: float(level > 0.6)), {"type": "continuous", "transform": "none"}),
        ("always 7", numbers(lambda level: 7.0), {}),
        ("7 where it is there", numbers(lambda level: 7.0, filled=9_000), squash),
    ]
    assert {name: chosen(described) for name, described, _ in cases} == {name: wanted for name, _, wanted in cases}


def test_tails_are_measured_in_half_quartile_ranges():
    even = {level: level for level in LEVELS}
    assert tail(even) == pytest.approx(0.49 / 0.25)
    assert tail(dict.fromkeys(LEVELS, 3.0)) == 0.0
    assert tail({**dict.fromkeys(LEVELS, 0.0), 0.99: 1.0}) == float("inf")


def test_a_text_is_a_closed_list_where_few_values_cover_nearly_all_rows_and_hashed_else():
    rare = [(f"typo{n}", 0.00004) for n in range(40)]
    many = [(f"u{n:02}", 0.001) for n in range(51)]
    cases = [
        ("two values", texts(("no", 0.6), ("yes", 0.4)), {"type": "one_hot", "vocabulary": ("no", "yes")}),
        ("in order of number", texts(("10", 0.6), ("9", 0.3), ("-1", 0.1)), {"type": "one_hot", "vocabulary": ("-1", "9", "10")}),
        ("rare ones are unseen", texts(("b", 0.5), ("a", 0.4984), *rare), {"type": "one_hot", "vocabulary": ("a", "b")}),
        ("too many are rare", texts(("b", 0.5), ("a", 0.49), *rare, distinct=250), {"type": "hashed", "buckets": 1000}),
        ("20,113 values", texts(*many, distinct=20_113, filled=300_000, rows=300_000), {"type": "hashed", "buckets": 100_000}),
        ("never twice", texts(*many, distinct=9_000), {}),
        (
            "five slogans",
            texts(*((f"s{n}", 0.2) for n in range(5)), words=11.4),
            {"type": "one_hot", "vocabulary": ("s0", "s1", "s2", "s3", "s4")},
        ),
        ("one value", texts(("feed", 1.0)), {}),
        ("one value or none", texts(("gift", 1.0), filled=500), {"type": "one_hot", "vocabulary": ("gift",)}),
        ("never filled", texts(filled=0), {}),
    ]
    assert {name: chosen(described) for name, described, _ in cases} == {name: wanted for name, _, wanted in cases}


def test_a_sentence_is_read_by_its_tokens_and_a_list_by_its_elements_as_far_as_nine_rows_in_ten_go():
    many = tuple((f"t{n:02}", 0.001) for n in range(51))
    two = (("red", 0.7), ("blue", 0.3))

    def sentences(**over: Any) -> Described:
        return texts(*many, distinct=9_000, words=11.4, parts=Parts(16, 110_000, 3_700, many), **over)

    def lists(parts: Parts, **over: Any) -> Described:
        return column("texts", words=3.2, parts=parts, **over)

    cases = [
        ("sentences", sentences(), {"type": "text", "length": 16, "buckets": 10_000}),
        ("words of one row each", texts(*many, distinct=9_000, words=11.4, parts=Parts(16, 110_000, 90_000, many)), {}),
        ("dots and dashes alone", texts(*many, distinct=9_000, words=11.4, parts=Parts(1)), {}),
        ("known once served", sentences(family="serving"), {}),
        ("a closed list", lists(Parts(2, 32_000, 2, two)), {"type": "one_hot", "vocabulary": ("blue", "red"), "length": 2}),
        ("many", lists(Parts(5, 32_000, 700, many)), {"type": "hashed", "buckets": 2000, "length": 5}),
        ("hardly one twice", lists(Parts(5, 32_000, 31_000, many)), {}),
        ("a list known once served", lists(Parts(2, 32_000, 2, two), family="serving"), {}),
        ("never filled", lists(Parts(1), filled=0), {}),
    ]
    assert {name: chosen(described) for name, described, _ in cases} == {name: wanted for name, _, wanted in cases}
    assert propose(sentences()).reason == (
        "sentences of 11 words on average, 3,700 tokens; 90% have no more than 16 tokens; 10,000 buckets, 0.37 values each"
    )
    assert propose(lists(Parts(2, 32_000, 2, two))).reason == (
        "lists of 3.2 values on average; 2 values: a closed list; 90% have no more than 2 values"
    )
    assert "the first 64 are read" in propose(lists(Parts(64, 32_000, 700, many))).reason


def test_a_vector_needs_one_length_and_a_map_is_left_out():
    assert chosen(column("numbers", lengths=(16, 16))) == {"type": "dense", "width": 16}
    assert chosen(column("numbers", lengths=(3, 16))) == {} and "3 to 16 numbers" in propose(column("numbers", lengths=(3, 16))).reason
    assert "map<string,int>" in propose(column("other")).reason


def test_a_reason_gives_the_numbers_it_rests_on():
    alone = {"click": Alone(0.613, Labelled(9_000, 90), Labelled(1_000, 9)), "save": Alone(None, Labelled(9_000, 2), Labelled(1_000, 0))}
    listed = texts(("US", 0.9), ("GB", 0.0987), *[(f"x{n}", 0.00001) for n in range(10)], filled=9_000, heads=alone)
    assert propose(listed).reason == (
        "12 values, the 2 most frequent cover 99.9% of rows: a closed list; missing in 10.0% of rows; alone it orders click with AUC 0.61"
    )
    ids = texts(("u", 0.02), *[(f"u{n}", 0.001) for n in range(50)], distinct=20_113, filled=2_100_000, rows=2_100_000, sampled=True)
    assert propose(ids).reason == "about 20,100 values, the most frequent in 2.0% of rows; 100,000 buckets, 0.2 values each"
    assert propose(texts(filled=0)).reason == "never filled in 10,000 rows"
    assert propose(texts(("feed", 1.0))).reason == "always 'feed' in 10,000 rows"
    assert propose(numbers(lambda level: 100 * level)).reason == "half of the values from 25 to 75, 98% from 1 to 99"


def test_buckets_are_1_2_or_5_times_a_power_of_ten():
    cases = [(0, 10), (10, 10), (11, 20), (50_000, 50_000), (50_001, 100_000), (1e9, 10_000_000)]
    assert [round_up(number) for number, _ in cases] == [wanted for _, wanted in cases]


def test_auc_counts_ties_half_and_needs_twenty_of_each():
    # Pairs: 30 positives of level 2 stand above 60 of the 90 negatives and beside 30; 10 of level 1 beside 60.
    assert auc([(2.0, 60, 30), (1.0, 70, 10)]) == pytest.approx((30 * (60 + 15) + 10 * 30) / (40 * 90))
    assert auc([(1.0, 500, 250)]) == 0.5
    assert auc([(1.0, 500, 19)]) is None and auc([(1.0, 500, 481)]) is None and auc([]) is None


def test_a_column_is_suspected_that_tells_too_much_or_is_filled_only_where_the_engagement_happened():
    few, even = Labelled(9_000, 180), Labelled(1_000, 20)
    cases = [  # AUC, labels where filled, where missing; what is said
        ("tells too much", Alone(0.91, few, even), ["AUC 0.910"]),
        ("tells a lot", Alone(0.84, few, even), []),
        ("too few positives to measure", Alone(None, Labelled(10_000, 3), Labelled(0, 0)), []),
        ("filled after", Alone(0.7, Labelled(300, 290), Labelled(9_700, 12)), ["96.7% of the 300", "after the engagement"]),
        ("both", Alone(0.99, Labelled(300, 290), Labelled(9_700, 0)), ["AUC 0.990", "0.0% of the 9,700"]),
        ("filled in too few", Alone(0.5, Labelled(20, 19), Labelled(9_980, 100)), []),
        ("missing in too few", Alone(0.5, Labelled(9_990, 200), Labelled(10, 0)), []),
    ]
    for name, alone, said in cases:
        found = " | ".join(suspicions(column("text", heads={"click": alone})))
        assert all(part in found for part in said) and bool(found) == bool(said), (name, found)
    assert "family serving" in suspicions(column("text", heads={"click": cases[0][1]}))[0]
    assert suspicions(column("number", family="serving", heads={"click": cases[0][1]})) == []


def test_differences_name_what_would_be_read_otherwise_and_leave_what_a_person_may_choose():
    def feature(name: str, type_: str, **keys: Any) -> dict[str, Any]:
        return {"column": name, "family": "ad", "type": type_, **keys}

    def proposals(*features: dict[str, Any]) -> list[Proposal]:
        made = Template.model_validate({"features": features}).features
        return [Proposal(one.column, one, "why") for one in made]

    standing = Template.model_validate(
        {
            "features": [
                feature("same", "hashed", buckets=200),
                feature("small", "hashed", buckets=100),
                feature("list", "one_hot", vocabulary=["b", "a", "old"]),
                feature("age", "continuous", transform="log"),
                feature("retyped", "hashed", buckets=50),
                feature("topics", "hashed", buckets=100, length=3),
                feature("boards", "hashed", buckets=100, length=4),
                feature("gone", "continuous"),
                feature("constant", "continuous"),
            ],
            "left_out": {"secret": "not to be read", "empty": "never filled"},
        }
    )
    now = proposals(
        feature("same", "hashed", buckets=1000),
        feature("small", "hashed", buckets=1000),
        feature("list", "one_hot", vocabulary=["a", "b", "c"]),
        feature("age", "continuous"),
        feature("retyped", "one_hot", vocabulary=["x"]),
        feature("topics", "hashed", buckets=100, length=8),
        feature("boards", "hashed", buckets=100, length=8),
        feature("secret", "continuous"),
        feature("new", "dense", width=4),
    )
    now += [Proposal("constant", None, "always 1"), Proposal("empty", None, "never filled"), Proposal("hidden", None, "a map")]
    assert list(differences(standing, now)) == [
        "~ small: 100 buckets stand here, 1,000 are proposed (why)",
        "~ list: its vocabulary lacks 'c' and has the rare or unseen 'old' (why)",
        "~ age: transform log stands here, squash is proposed (why)",
        "~ retyped: ad hashed in 50 buckets stands here, ad one_hot of 1 value is proposed (why)",
        "~ topics: the first 3 are read here, 8 are proposed (why)",
        "? gone: stands here as ad continuous (squash); the examples of this configuration have no such column",
        "- constant: stands here as ad continuous (squash); would be left out: always 1",
        "+ secret: left out here (not to be read); would be ad continuous (squash): why",
        "+ new: new, ad dense of 4 numbers: why",
        "- hidden: new, left out: a map",
    ]
