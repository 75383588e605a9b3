"""The model card: limits by hand arithmetic, words for what the data lack, and nothing from a log that could pass for Markdown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conf.load import load
from models.metrics import auc_interval
from tests.jobs.nights import ROOT
from tests.validation.night import made_up_night, segment
from validation.model_card import as_json, as_markdown, intended_use, limits_of, metrics_of


def row(**changed: Any) -> dict[str, Any]:
    given = {"head": "click", "source": "(all)", "tower": "(all)", "stage": "calibrated", "rows": 1_000, "positives": 100, "ratio": 1.1}
    return {
        **given,
        "auc": 0.8,
        "ne": 0.9,
        "gauc": 0.7,
        "top_ratio": 1.2,
        "brier": 0.05,
        "ece": 0.01,
        "ece_low": 0.008,
        "ece_high": 0.02,
        **changed,
    }


def made_up_card(**changed: Any) -> dict[str, Any]:
    cell = {"head": "click", "tower": "a", "positives": 5, "users": 4, "ne_rise": [0.01, 0.0, 0.02], "auc_change": None, "ratio": None}
    days = dict.fromkeys(("trained_from", "trained_to", "calibrated_from", "calibrated_to", "held_out", "scored"), "2026-05-01")
    return {
        **{"model": "9b1d", "name": "demo", "night": "2026-05-16", "simulated": True, "intended_use": ["ranking"], "limits": ["few"]},
        "data": {**days, "parent": None, "examples_version": 7, "examples": {"2026-05-01": "10:ab"}},
        **{"code": {"distribution": "0.1.0", "hash": "abc"}, "training": {}, "metrics": metrics_of([row()])},
        "verdict": {
            **{"verdict": "publish", "reason": "good", "production": None, "night": "2026-05-16"},
            "comparison": {"judged": 0, "whole": None, "cells": [{**cell, "shift": None}]},
        },
        **{"calibrator": made_up_night().calibrator, "configuration": {"name": "demo"}, **changed},
    }


def test_the_interval_of_an_auc_is_that_of_hanley_and_mcneil() -> None:
    # A = .8 of 10 and 20: Q1 = .8 / 1.2, Q2 = 2 x .64 / 1.8; (.16 + 9 (Q1 - .64) + 19 (Q2 - .64)) / 200 = .0087556, root .0935711
    half = 1.959964 * 0.0935711
    assert auc_interval(0.8, 10, 20) == pytest.approx((0.8 - half, 0.8 + half), abs=1e-6)
    assert auc_interval(1.0, 5, 5) == (1.0, 1.0)


def test_each_metric_has_the_limits_that_are_known_and_none_else() -> None:
    (found,) = metrics_of([row(), row(stage="raw")])
    # Byar's limits of 100 events are 81.36 and 121.63.
    assert found["ratio"] == {"value": 1.1, "low": pytest.approx(1.1 * 0.8136, abs=1e-3), "high": pytest.approx(1.1 * 1.2163, abs=1e-3)}
    assert found["auc"]["low"] < 0.8 < found["auc"]["high"] and found["ece"] == {"value": 0.01, "low": 0.008, "high": 0.02}
    assert all(found[name]["low"] is None for name in ("top_ratio", "ne", "gauc", "brier"))
    (none,) = metrics_of([row(positives=0, ratio=None, auc=None, ne=None, gauc=None)])
    assert none["ratio"] == none["auc"] == {"value": None, "low": None, "high": None}


def test_limits_name_what_the_data_had_too_little_of() -> None:
    conf = load(ROOT / "conf" / "tiny.yaml")
    metrics = [row(source="video", positives=7), row(source="standard"), row(source="(all)", tower="video", positives=7)]
    text = "\n".join(limits_of(conf, ["a note"], metrics, [segment("US", 300, 420.0)], {"judged": 1, "cells": [{}, {}]}))
    for said in ("simulated logs", "one held-out day", "a note", "click has fewer than 20 positives on the held-out day in: video (7).",
                 "1 of 1 segments", "country = US: 1.40 times", "Only 1 of 2 cells"):  # fmt: skip
        assert said in text, text


def test_intended_use_says_each_head_in_words() -> None:
    text = "\n".join(intended_use(load(ROOT / "conf" / "tiny.yaml")))
    assert "inventory of shopping, standard, video" in text
    assert "good_click: click with 30 s dwell within 24 hours of being shown, among rows where click is known" in text


def test_words_from_outside_stay_words_in_the_markdown() -> None:
    evil = "a|b\n# <script> [x](y) `z`"
    card = made_up_card(limits=[evil], metrics=metrics_of([row(source=evil)]))
    text = as_markdown(json.loads(as_json(card)))
    assert "<script" not in text and "\n# <" not in text
    assert text.count(r"a\|b # &lt;script> \[x\](y) \`z\`") == 2


def test_the_same_card_is_the_same_text_and_what_is_not_known_is_a_dash() -> None:
    card = made_up_card()
    assert as_json(card) == as_json(dict(reversed(card.items())))
    text = as_markdown(json.loads(as_json(card)))
    assert "| click | a | 5 | 4 | 0.0100 (0.0000 to 0.0200) | – | – | – |" in text
    assert "**publish**, on the night of 2026-05-16: good" in text and "| started from | nothing |" in text and "    name: demo" in text
