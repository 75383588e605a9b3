"""Whatever stands in a configuration, a date or a user file: it is taken, or refused in words. Never another exception."""

from __future__ import annotations

import argparse
import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.load import ConfError, load, load_text
from conf.schema import Conf
from jobs.common import day_option
from jobs.forget import ids_in
from jobs.nightly import run_name

TINY = Path(__file__).parents[2] / "conf" / "tiny.yaml"
WHOLE = load(TINY).model_dump(mode="json")
LINES = TINY.read_text(encoding="utf-8").splitlines()
MANY = settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["off", "{day}", "1e999", "${HOME}", "../.."])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=5
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The address of every value of a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, one in inner for place in places(one, (*at, key))]


PLACES = places(WHOLE)


@MANY
@given(place=st.sampled_from(PLACES), other=st.sampled_from(PLACES), value=VALUES, how=st.sampled_from(["set", "drop", "swap", "rename"]))
def test_a_configuration_changed_anywhere_is_taken_or_refused_in_words(place: tuple, other: tuple, value: Any, how: str) -> None:
    text = copy.deepcopy(WHOLE)
    *above, last = place
    within: Any = text
    for key in above:
        within = within[key]
    if how == "set":
        within[last] = value
    elif how == "swap":
        found: Any = WHOLE
        for key in other:
            found = found[key]
        within[last] = copy.deepcopy(found)
    else:
        kept = within.pop(last)
        if how == "rename" and isinstance(within, dict):
            within[f"{last}x"] = kept
    taken_or_refused(text)


def taken_or_refused(text: dict[str, Any]) -> None:
    try:
        assert isinstance(load_text("fuzzed", text), Conf)
    except ConfError as error:
        assert len(str(error)) > len("fuzzed: ")


@settings(parent=MANY, max_examples=400)
@given(
    at=st.integers(0, len(LINES) - 1),
    piece=st.text(max_size=30) | st.sampled_from(["\t", "- ", "&a *a", "!!int x", "{", "'", "<<: *b", "? :"]),
    cut=st.integers(0, 40),
)
def test_a_file_changed_anywhere_is_taken_or_refused_in_words(tmp_path: Path, at: int, piece: str, cut: int) -> None:
    lines = [*LINES[:at], LINES[at][:cut] + piece, *LINES[at + 1 :]]
    file = tmp_path / "fuzzed.yaml"
    file.write_text(
        "\n".join(lines).replace("extends: demo.yaml", f"extends: {TINY.with_name('demo.yaml')}"), encoding="utf-8", errors="replace"
    )
    try:
        assert isinstance(load(file), Conf)
    except ConfError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-16' OR '1'='1",
        "2026-05-16; DROP TABLE examples",
        "../../etc",
        "file:///etc/passwd",
        "$(id)",
        "{{ ds }}",
        "`a``b`",
        "2026-5-1",
        "20260516",
        "２０２６-05-16",
    ],
)
def test_what_is_no_date_never_comes_near_a_query(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write it as 2026-05-14"):
        day_option(text)
    if not text.isdecimal() and not text.replace("-", "").isdigit():
        with pytest.raises(argparse.ArgumentTypeError, match="is no run id"):
            run_name(text)


@MANY
@given(st.text(max_size=12) | st.dates().map(str) | st.text("0123456789-", min_size=10, max_size=10))
def test_a_date_is_a_date_or_refused_in_words(text: str) -> None:
    try:
        assert isinstance(found := day_option(text), date) and str(found) == text
    except argparse.ArgumentTypeError as error:
        assert "is no date" in str(error)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_a_user_file_names_ids_or_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "users.txt"
    file.write_bytes(content)
    try:
        ids = ids_in(file)
        assert ids and all(one.strip() == one for one in ids)
    except ConfError as error:
        assert str(file) in str(error)
