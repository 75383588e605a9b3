"""What the model is given for each value, by type of feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from conf.template import Template
from etl.encoding import EncodingError, encoded, encoded_columns

BUCKETS = 100_000_000
# xxhash64(value, 'user_id') of 1,000 strings as Spark 4.0.5 gives it, and the xxhash algorithm itself: XXH64 of the value's UTF-8 bytes with
# seed 42, then of the name's with that as seed. An id is 1 + hash mod buckets: if one of these moves, every stored model reads other embeddings.
# All lengths around the blocks of the hash are there, numbers as text, composed and decomposed letters, other scripts, control characters.
GOLDEN_HASHES: list[tuple[str, int]] = [
    (value, hash_) for value, hash_ in json.loads(Path(__file__).with_name("golden_hashes.json").read_text())
]


def template(*features: dict[str, Any]) -> Template:
    return Template.model_validate({"features": [{"family": "context", **feature} for feature in features]})


def hashed(column: str, buckets: int = BUCKETS) -> dict[str, Any]:
    return {"column": column, "type": "hashed", "buckets": buckets}


def encode(spark: SparkSession, wanted: Template, schema: str, values: list[tuple], towers: tuple[str, ...] = ("feed",)) -> list[Row]:
    """Encodings of one row for each of `values`, in their order; `tower` is feed."""
    frame = spark.createDataFrame([(place, "feed", *row) for place, row in enumerate(values)], f"place INT, tower STRING, {schema}")
    return sorted(encoded(frame, wanted, towers, keep=("place",)).collect(), key=lambda row: row["place"])


def test_hashes_are_the_golden_ones(spark: SparkSession) -> None:
    assert len(dict(GOLDEN_HASHES)) == 1000
    found = encode(spark, template(hashed("user_id")), "user_id STRING", [(value,) for value, _ in GOLDEN_HASHES])
    assert [row["user_id"] for row in found] == [1 + hash_ % BUCKETS for _, hash_ in GOLDEN_HASHES]


def test_a_missing_hashed_value_is_id_0_and_an_empty_string_is_a_value(spark: SparkSession) -> None:
    missing, empty = encode(spark, template(hashed("user_id", 3)), "user_id STRING", [(None,), ("",)])
    assert (missing["user_id"], empty["user_id"]) == (0, 1 + 4696813011270908910 % 3)


def test_a_number_is_hashed_as_its_text(spark: SparkSession) -> None:
    wanted = template(hashed("user_id"))
    (row,) = encode(spark, wanted, "user_id BIGINT", [(1,)])
    assert row["user_id"] == 1 + dict(GOLDEN_HASHES)["1"] % BUCKETS


def test_one_value_in_two_features_has_two_hashes(spark: SparkSession) -> None:
    (row,) = encode(spark, template(hashed("city"), hashed("home")), "city STRING, home STRING", [("Ulm", "Ulm")])
    assert row["city"] != row["home"]


def test_a_continuous_value_that_is_no_finite_number_is_missing(spark: SparkSession) -> None:
    cases = [  # value, (encoded, missing)
        (2.5, (2.5, 0)),
        (0.0, (0.0, 0)),
        (-1e30, (pytest.approx(-1e30), 0)),
        (None, (0.0, 1)),
        (float("nan"), (0.0, 1)),
        (float("inf"), (0.0, 1)),
        (float("-inf"), (0.0, 1)),
        (1e300, (0.0, 1)),  # beyond float32
    ]
    found = encode(spark, template({"column": "age", "type": "continuous"}), "age DOUBLE", [(value,) for value, _ in cases])
    assert [(row["age"], row["age__missing"]) for row in found] == [wanted for _, wanted in cases]


def test_a_one_hot_value_is_its_place_in_the_vocabulary_after_missing_and_unseen(spark: SparkSession) -> None:
    wanted = template({"column": "device", "type": "one_hot", "vocabulary": ["phone", "desktop"]})
    cases = [("phone", 2), ("desktop", 3), ("fridge", 1), ("Phone", 1), ("", 1), (None, 0)]
    found = encode(spark, wanted, "device STRING", [(value,) for value, _ in cases])
    assert [row["device"] for row in found] == [id_ for _, id_ in cases]


def test_a_long_vocabulary_gives_the_places_of_a_short_one(spark: SparkSession) -> None:
    values = [*(f"v{number}" for number in range(500)), "", "\u6771\u4eac", 'quo"te\\']
    wanted = template({"column": "brand", "type": "indexed", "vocabulary": values})
    cases = [(value, place) for place, value in enumerate(values, 2)] + [("v500", 1), (" v1", 1), (None, 0)]
    found = encode(spark, wanted, "brand STRING", [(value,) for value, _ in cases])
    assert [row["brand"] for row in found] == [id_ for _, id_ in cases]


def test_a_list_is_the_ids_of_its_first_elements_in_order_and_0_where_nothing_is(spark: SparkSession) -> None:
    wanted = template({"column": "tags", "type": "one_hot", "vocabulary": ["a", "b"], "length": 3}, {**hashed("words"), "length": 2})
    alone = encode(spark, template(hashed("words")), "words STRING", [("a",), ("b",), ("c",)])
    hashes = {value: row["words"] for value, row in zip("abc", alone, strict=True)}
    cases = [  # tags, their ids, words, their ids
        (["a", "b", "z"], (2, 3, 1), ["a", "b"], (hashes["a"], hashes["b"])),
        (["b"], (3, 0, 0), ["b"], (hashes["b"], 0)),
        (["z", "z", "b", "a"], (1, 1, 3), ["c", "c", "a"], (hashes["c"], hashes["c"])),
        ([None, "a", None], (0, 2, 0), [None, "a"], (0, hashes["a"])),  # a null is nothing
        ([], (0, 0, 0), None, (0, 0)),
    ]
    found = encode(spark, wanted, "tags ARRAY<STRING>, words ARRAY<STRING>", [(tags, words) for tags, _, words, _ in cases])
    assert [tuple(row[f"tags__{place}"] for place in range(3)) for row in found] == [ids for _, ids, _, _ in cases]
    assert [tuple(row[f"words__{place}"] for place in range(2)) for row in found] == [ids for _, _, _, ids in cases]


def test_a_text_is_its_first_tokens_in_lower_case(spark: SparkSession) -> None:
    text, words = {"column": "title", "type": "text", "buckets": BUCKETS, "length": 3}, {**hashed("title"), "length": 3}
    cases = [  # text, its tokens
        ("Buy 2, get 1 FREE", ["buy", "2", "get"]),
        ("  --  ", []),
        ("", []),
        (None, []),
        ("München's", ["münchen", "s"]),
        ("ΑΒΓ x_y", ["αβγ", "x", "y"]),
        ("किताबें", ["किताबें"]),  # its vowel signs are marks
        ("東京\t大阪", ["東京", "大阪"]),
    ]
    found = encode(spark, template(text), "title STRING", [(value,) for value, _ in cases])
    hashes = encode(spark, template(words), "title ARRAY<STRING>", [(tokens,) for _, tokens in cases])
    assert [row[1:] for row in found] == [row[1:] for row in hashes]
    assert [sum(row[f"title__{place}"] > 0 for place in range(3)) for row in found] == [len(tokens) for _, tokens in cases]


@pytest.mark.parametrize(
    ("feature", "schema", "message"),
    [
        ({**hashed("tags"), "length": 3}, "tags STRING", r"column tags is string, .*hashed reads array<string>; make it a list"),
        (hashed("tags"), "tags ARRAY<STRING>", r"column tags is array<string>, .*hashed reads string; read it with a `length`"),
        ({"column": "tags", "type": "dense", "width": 2}, "tags STRING", r"column tags is string, .*dense reads array<float>"),
    ],
)
def test_a_list_is_not_read_as_one_value_nor_one_value_as_a_list(
    spark: SparkSession, feature: dict[str, Any], schema: str, message: str
) -> None:
    with pytest.raises(EncodingError, match=message):
        encoded(spark.createDataFrame([], f"tower STRING, {schema}"), template(feature), ["feed"])


def test_a_vector_that_is_not_whole_is_missing_as_a_whole(spark: SparkSession) -> None:
    cases = [  # vector, (encoded, missing)
        ([0.5, -2.0], (0.5, -2.0, 0)),
        ([0.0, 0.0], (0.0, 0.0, 0)),
        (None, (0.0, 0.0, 1)),
        ([], (0.0, 0.0, 1)),
        ([1.0], (0.0, 0.0, 1)),
        ([1.0, 2.0, 3.0], (0.0, 0.0, 1)),
        ([1.0, None], (0.0, 0.0, 1)),
        ([float("nan"), 1.0], (0.0, 0.0, 1)),
        ([1.0, float("inf")], (0.0, 0.0, 1)),
    ]
    found = encode(spark, template({"column": "look", "type": "dense", "width": 2}), "look ARRAY<FLOAT>", [(value,) for value, _ in cases])
    assert [(row["look__0"], row["look__1"], row["look__missing"]) for row in found] == [wanted for _, wanted in cases]


def test_a_tower_is_its_place_in_the_list_and_minus_1_outside_it(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("feed", "Ulm"), ("video", "Ulm"), ("radio", "Ulm")], "tower STRING, city STRING")
    wanted = template(hashed("city"))
    assert [row["tower"] for row in encoded(frame, wanted, ["feed", "video"]).collect()] == [0, 1, -1]
    assert [row["tower"] for row in encoded(frame, wanted, []).collect()] == [-1, -1, -1]


def test_columns_are_float_int_and_tinyint_and_never_null(spark: SparkSession) -> None:
    wanted = template(
        {"column": "age", "type": "continuous"},
        hashed("city"),
        {"column": "device", "type": "one_hot", "vocabulary": ["phone"]},
        {"column": "look", "type": "dense", "width": 2},
        {"column": "tags", "type": "hashed", "buckets": 9, "length": 2},
        {"column": "title", "type": "text", "buckets": 9, "length": 1},
        {"column": "slot", "family": "serving", "type": "hashed", "buckets": 9},  # absent
    )
    frame = spark.createDataFrame(
        [], "age DOUBLE, city STRING, device STRING, look ARRAY<FLOAT>, tags ARRAY<STRING>, title STRING, tower STRING"
    )
    fields = encoded(frame, wanted, ["feed"]).schema
    assert [(field.name, field.dataType.simpleString(), field.nullable) for field in fields] == [
        ("age", "float", False),
        ("age__missing", "tinyint", False),
        ("city", "int", False),
        ("device", "int", False),
        ("look__0", "float", False),
        ("look__1", "float", False),
        ("look__missing", "tinyint", False),
        ("tags__0", "int", False),
        ("tags__1", "int", False),
        ("title__0", "int", False),
        ("slot", "int", False),
        ("tower", "int", False),
    ]
    assert fields.names == encoded_columns(wanted)


def test_only_a_serving_column_may_be_absent_and_then_it_is_missing(spark: SparkSession) -> None:
    position = {"column": "position", "family": "serving", "type": "continuous"}
    (row,) = encode(spark, template(hashed("city"), position), "city STRING", [("Ulm",)])
    assert (row["position"], row["position__missing"]) == (0.0, 1)
    with pytest.raises(EncodingError, match=r"lack \['city'\].*present: \['place', 'tower', 'town'\]"):
        encode(spark, template(hashed("city"), position), "town STRING", [("Ulm",)])


def test_a_name_stands_for_one_column_only(spark: SparkSession) -> None:
    with pytest.raises(EncodingError, match=r"tower.*twice"):
        encoded_columns(template(hashed("tower")))
    frame = spark.createDataFrame([("Ulm", "feed")], "city STRING, tower STRING")
    with pytest.raises(EncodingError, match=r"\['tower'\] are kept and encoded"):
        encoded(frame, template(hashed("city")), ["feed"], keep=("tower",))
