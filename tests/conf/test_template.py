"""What a feature template may say, and how vocabularies come to it from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf import template
from conf.load import ConfError, load, load_text, read_template
from tests.small import small_conf

FEATURE = {"column": "c", "family": "user"}


def refused(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfError, match=message):
        small_conf(template={"features": [{**FEATURE, **feature}]})


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"type": "indexed"}, "c is indexed and has no vocabulary; give it vocabulary_file, or vocabulary"),
        ({"type": "text", "buckets": 9}, "c is text and has no length; give it length"),
        ({"type": "text", "length": 9}, "c is text and has no buckets"),
        ({"type": "text", "length": 9, "buckets": 9, "vocabulary": ["a"]}, "vocabulary belongs to one_hot, indexed; remove it"),
        ({"type": "continuous", "length": 3}, "c is continuous, and length belongs to hashed, one_hot, indexed, text"),
        ({"type": "dense", "width": 3, "length": 3}, "c is dense, and length belongs to"),
        ({"type": "dense", "width": 3, "group": "g"}, "c is dense, and group belongs to"),
        ({"type": "hashed", "buckets": 9, "length": 65}, "length: .*less than or equal to 64"),
        ({"type": "hashed", "buckets": 9, "group": "No Name"}, "group: "),
        ({"type": "indexed", "vocabulary": ["a", "b", "a"]}, "c names a vocabulary value twice"),
        ({"family": "serving", "type": "hashed", "buckets": 9, "length": 2}, "known only once served and has a length"),
        ({"type": "one_hot", "vocabulary_file": "a.txt"}, "names vocabulary_file a.txt, which was not read; it belongs to indexed"),
        ({"type": "hashed", "family": "history", "buckets": 9}, "c counts history and is hashed; make it continuous"),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused_by_the_knob(feature: dict[str, Any], message: str) -> None:
    refused(feature, message)


@pytest.mark.parametrize(
    ("given", "ids", "columns"),
    [
        ({"type": "hashed", "buckets": 9}, 10, ("c",)),
        ({"type": "hashed", "buckets": 9, "length": 2}, 10, ("c__0", "c__1")),
        ({"type": "text", "buckets": 9, "length": 1}, 10, ("c__0",)),
        ({"type": "one_hot", "vocabulary": ["a", "b"]}, 4, ("c",)),
        ({"type": "indexed", "vocabulary": ["a"], "length": 3}, 3, ("c__0", "c__1", "c__2")),
    ],
)
def test_a_list_has_the_ids_of_a_value_and_a_column_a_place(given: dict[str, Any], ids: int, columns: tuple[str, ...]) -> None:
    feature = template.Feature.model_validate({**FEATURE, **given})
    assert (feature.ids, feature.id_columns) == (ids, columns)


def template_of(folder: Path, values: bytes | None, more: str = "") -> Path:
    """A template whose one feature reads a vocabulary that stands in a folder beside it."""
    if values is not None:
        (folder / "lists").mkdir()
        (folder / "lists" / "brands.txt").write_bytes(values)
    path = folder / "template.yaml"
    path.write_text(f"features:\n- {{column: brand, family: ad, type: indexed, vocabulary_file: lists/brands.txt{more}}}\n")
    return path


def test_a_vocabulary_file_stands_beside_the_template_and_its_values_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    template_of(tmp_path / "deep", "\ufeffAcme\r\n Acme\r\nMünchen\r\n".encode())
    base = small_conf().model_dump(mode="json", exclude={"template"})
    (tmp_path / "conf.yaml").write_text(f"{base | {'template': 'deep/template.yaml'}!r}".replace("None", "null"))
    (tmp_path / "over.yaml").write_text("extends: conf.yaml\nseed: 2\n")
    conf = load(tmp_path / "over.yaml")
    assert conf.template.features[0].vocabulary == ("Acme", " Acme", "München")  # a blank is part of a value
    assert load_text("stored", conf.model_dump(mode="json")) == conf


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, r"brands\.txt: not readable as a vocabulary.*No such file"),
        (b"a\n\nb\n", r"brands\.txt: line 2 is empty"),
        (b"", r"brands\.txt: line 1 is empty"),
        (b"a\nb\na\n", r"brands\.txt: line 3 repeats 'a' of line 1; keep the first"),
        (b"M\xfcnchen\n", r"brands\.txt: not readable as a vocabulary.*utf-8"),
    ],
)
def test_a_vocabulary_file_that_is_none_is_told_by_its_line(tmp_path: Path, values: bytes | None, message: str) -> None:
    path = template_of(tmp_path, values)
    with pytest.raises(ConfError, match=message):
        read_template(path)


def test_the_example_of_the_docstring_is_a_template(tmp_path: Path) -> None:
    assert template.__doc__ is not None
    (tmp_path / "brands.txt").write_text("Acme\n")
    (tmp_path / "template.yaml").write_text(
        "\n".join(line for line in template.__doc__.splitlines() if line.startswith(("  features", "  - ")))
    )
    found = template.Template.model_validate(read_template(tmp_path / "template.yaml"))
    assert [(feature.column, feature.length, feature.group) for feature in found.of_type("hashed", "text")] == [
        ("topics", 5, "interests"),
        ("boards", 3, "interests"),
        ("title", 12, None),
    ]


def test_a_vocabulary_is_given_once(tmp_path: Path) -> None:
    path = template_of(tmp_path, b"a\n", ", vocabulary: [a]")
    with pytest.raises(ConfError, match=r"template\.yaml: feature brand has a vocabulary and a vocabulary_file; keep one"):
        read_template(path)
