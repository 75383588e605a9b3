"""Why a stage is done again, in words: what of its inputs, configuration and code is not as the ledger keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jobs.depends import Depends

DAYS = {f"users/2026-05-{day:02}": f"{day}:a" for day in range(1, 8)}
MADE_FROM = Depends(
    "train",
    DAYS | {"models/9b/bundle.json": "f00", "served@9b/2026-05-07": "3:c"},
    {"training": {"batch_size": 256, "rates": [0.1, 0.2]}, "sources": {"video": {"files": "s3a://key:hidden@logs/{day}"}}},
    {"jobs": "1", "etl": "2"},
    "2026-05-07",
)


def kept(of: Depends) -> dict[str, Any]:
    """As the ledger gives it back."""
    back: dict[str, Any] = json.loads(json.dumps(of.kept({"users": "7c@v3"})))
    return back


CASES: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"inputs": MADE_FROM.inputs | {"users/2026-05-03": "9:z"}}, "inputs changed: users/2026-05-03"),
    (
        {"inputs": MADE_FROM.inputs | {name: "0:z" for name in DAYS}},
        "inputs changed: users of 7 days from 2026-05-01 to 2026-05-07",
    ),
    (
        {"inputs": {**DAYS, "served@9b/2026-05-07": "3:c", "models/1c/bundle.json": "f00"}},
        "new inputs: models/1c/bundle.json; inputs gone: models/9b/bundle.json",
    ),
    (
        {"settings": MADE_FROM.settings | {"training": {"batch_size": 512, "rates": [0.1], "epochs": 2}}},
        "configuration changed: training.batch_size was 256, is 512, training.epochs was not there, is 2, "
        "training.rates was [0.1, 0.2], is [0.1]",
    ),
    ({"code": {"jobs": "1", "etl": "3"}}, "code changed: etl"),
    ({"asked": "2026-05-01"}, "days are built from 2026-05-01 on, and were from 2026-05-07 on"),
    (
        {"inputs": MADE_FROM.inputs | {"users/2026-05-03": "9:z"}, "code": {"jobs": "8", "etl": "9"}},
        "inputs changed: users/2026-05-03; code changed: etl, jobs",
    ),
]


@pytest.mark.parametrize(("now", "told"), CASES, ids=[told[:40] or "nothing" for _, told in CASES])
def test_each_change_is_named(now: dict[str, Any], told: str) -> None:
    changed = replace(MADE_FROM, **now)
    assert changed.changes(kept(MADE_FROM)) == told
    assert (changed.mark == MADE_FROM.mark) is (told == "")


def test_a_password_is_neither_kept_nor_told_and_a_new_one_is_a_change_all_the_same() -> None:
    assert "hidden" not in json.dumps(kept(MADE_FROM))
    renewed = replace(MADE_FROM, settings=json.loads(json.dumps(MADE_FROM.settings).replace("hidden", "renewed")))
    assert renewed.changes(kept(MADE_FROM)) == "" and renewed.mark != MADE_FROM.mark


def test_of_many_changes_the_first_are_named_and_the_rest_counted() -> None:
    many = replace(MADE_FROM, settings={"heads": {f"head_{n}": n for n in range(9)}})
    told = many.changes(kept(replace(MADE_FROM, settings={"heads": {f"head_{n}": n + 1 for n in range(9)}})))
    assert told.startswith("configuration changed: heads.head_0 was 1, is 0, ") and told.endswith(" and 4 more")
