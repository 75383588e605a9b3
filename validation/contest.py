"""What a person reads of a comparison (jobs/compare.py): tables of text, and one self-contained HTML page with the same and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from models.contest import ALL, LABELS, MEAN, TRUTH
from validation.pages import NOTHING, pages
from validation.plots import changes_svg


def told(table: pd.DataFrame, ranked: bool = False) -> list[str]:
    """A table a head over all towers, then the changes cell by cell. `ranked`: arms by how much worse they are than the first."""
    first = table["arm"].iloc[0]
    text: list[str] = []
    for against, of in table.groupby("against", sort=False):
        whole = of[of["tower"] == ALL]
        text += [f"against {against}, all rows; changes are against {first}, more NE is worse", _header()]
        for head in [MEAN, *(name for name in dict.fromkeys(whole["head"]) if name != MEAN)]:
            lines = whole[whole["head"] == head]
            if ranked and head == MEAN:
                lines = lines.sort_values("ne_change", ascending=False)
            text += [_line(line) for line in lines.to_dict("records")]
        text += ["", f"against {against}, by head and tower: NE change against {first}"]
        text += [*cells(of), ""]
    return text


def _header() -> str:
    return f"{'head':<12}{'arm':<30}{'positives':>10}{'AUC':>8}{'NE':>8}{'ratio':>7}{'AUC change':>31}{'NE change':>33}"


def _line(line: Mapping[Any, Any]) -> str:
    count = NOTHING if line["head"] == MEAN else f"{line['positives']:,.0f}"
    ratio = NOTHING if pd.isna(line["ratio"]) else f"{line['ratio']:.2f}"
    start = f"{line['head']:<12}{line['arm']:<30}{count:>10}{line['auc']:>8.4f}{line['ne']:>8.4f}{ratio:>7}"
    return f"{start}{between(line, 'auc_change', '{:+.4f}'):>31}{between(line, 'ne_change', '{:+.2%}'):>33}"


def cells(table: pd.DataFrame) -> Iterator[str]:
    of_towers = table[table["tower"] != ALL]
    for (head, tower), lines in of_towers.groupby(["head", "tower"], sort=False):
        for line in lines.to_dict("records")[1:]:
            yield f"{head:<12}{tower:<14}{line['arm']:<30}{line['positives']:>10,.0f}{between(line, 'ne_change', '{:+.2%}'):>33}"


def between(line: Mapping[Any, Any], what: str, form: str) -> str:
    value, low, high = (line[f"{what}{end}"] for end in ("", "_low", "_high"))
    if not value:
        return NOTHING
    return f"{form.format(value)} ({form.format(low)} to {form.format(high)})"


def page(name: str, simulated: bool, split: Any, seeds: int, settings: Mapping[str, Any], table: pd.DataFrame) -> str:
    """One HTML page. `split`: etl.trial.Split; `settings`: arm -> its rate, epochs and seconds of training."""
    environment = pages()
    environment.globals["between"] = between
    parts = []
    for against, of in table.groupby("against", sort=False):
        whole = of[of["tower"] == ALL]
        # Of all towers together, the mean over heads first: cells are many, and stand in the table.
        ordered = whole.sort_values("head", key=lambda head: head != MEAN, kind="stable")
        changes = [line for line in ordered.to_dict("records") if line["arm"] != table["arm"].iloc[0]]
        parts.append(
            {
                "against": "against the true probabilities" if against == TRUTH else "against labels",
                "labels": against == LABELS,
                "svg": changes_svg(changes, f"NE changes, {against}"),
                "heads": [lines.to_dict("records") for _, lines in whole.groupby("head", sort=False)],
                "cells": [lines.to_dict("records") for _, lines in of[of["tower"] != ALL].groupby(["head", "tower"], sort=False)],
            }
        )
    return environment.get_template("contest.html").render(
        name=name, simulated=simulated, split=split, seeds=seeds, settings=settings, first=table["arm"].iloc[0], parts=parts, mean=MEAN
    )
