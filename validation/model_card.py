"""The card of a model that serves: what it was made from, how it did on the held-out day, what it is for, and where it had too little data.

One dict of plain values is the JSON; the Markdown is rendered from that dict, so that no number stands twice. After Mitchell et al., Model
Cards for Model Reporting (FAT* 2019).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.schema import Conf, Head
from etl.schemas import ALL
from models.metrics import auc_interval, poisson_interval
from validation.figures import off_segments
from validation.pages import FILTERS, FOLDER, NOTHING

Row = Mapping[str, Any]
NO_INTERVAL = ("top_ratio", "ne", "gauc", "brier")  # nothing here gives one


def metrics_of(metrics: Sequence[Row]) -> list[dict[str, Any]]:
    """Head x source x tower, calibrated: each metric's value, and its 95% limits where something known gives them."""
    return [_slice(row) for row in metrics if row["stage"] == "calibrated"]


def _slice(row: Row) -> dict[str, Any]:
    positives, negatives = row["positives"], row["rows"] - row["positives"]
    found: dict[str, Any] = {name: row[name] for name in ("head", "source", "tower", "rows", "positives")}
    found["ratio"] = _with_limits(row["ratio"], _scaled(row["ratio"], poisson_interval(positives)) if positives else None)
    found["auc"] = _with_limits(row["auc"], auc_interval(row["auc"], positives, negatives) if row["auc"] is not None else None)
    found["ece"] = _with_limits(row["ece"], (row["ece_low"], row["ece_high"]) if row.get("ece_low") is not None else None)
    return found | {name: _with_limits(row[name], None) for name in NO_INTERVAL}


def _with_limits(value: float | None, limits: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = limits or (None, None)
    return {"value": value, "low": low, "high": high}


def _scaled(value: float, limits: tuple[float, float]) -> tuple[float, float]:
    return value * limits[0], value * limits[1]


def intended_use(conf: Conf) -> list[str]:
    """In words, from the configuration: what is predicted, of what, and what this is not."""
    sources = ", ".join(sorted({source.source for source in conf.sources.values() if source.kind == "impressions"}))
    heads = [f"{name}: {_head(name, head)}" for name, head in conf.heads.items()]
    return [
        f"Offline scores of the next day's inventory of {sources}: the probability that an impression draws an engagement, for ranking, "
        "pricing and planning.",
        *heads,
        "Each probability holds on average over many rows with the calibrator of the same night; it is no statement about a single person.",
        "Not for sources, heads or days other than these, and not without that calibrator.",
    ]


def _head(name: str, head: Head) -> str:
    dwell = f" with {head.min_dwell_seconds:g} s dwell" if head.min_dwell_seconds else ""
    given = f", among rows where {head.parent} is known; its probability includes that of {head.parent}" if head.parent else ""
    where = f", where {head.applies_to}" if head.applies_to != "true" else ""
    return f"{head.action}{dwell} within {head.window_hours:g} hours of being shown{where}{given}"


def limits_of(conf: Conf, notes: Sequence[str], metrics: Sequence[Row], segments: Sequence[Row], decision: Row) -> list[str]:
    """What the data had too little of, in words; `notes` are those of the night's report."""
    return [*_always(conf, metrics), *notes, *_thin(metrics, conf.calibration.min_positives), *_off(segments), *_unjudged(decision)]


def _always(conf: Conf, metrics: Sequence[Row]) -> Iterator[str]:
    if conf.simulation is not None:
        yield "Trained on simulated logs: it says nothing of real people."
    yield "Judged on one held-out day; what changes from day to day is not in the intervals."
    if not metrics:
        yield "Not measured on this night's held-out day: it serves by a person's order."


def _thin(metrics: Sequence[Row], needed: int) -> Iterator[str]:
    for head in dict.fromkeys(row["head"] for row in metrics):
        own = [row for row in metrics if row["head"] == head and row["stage"] == "calibrated" and row["positives"] < needed]
        thin = [f"{row['source'] if row['tower'] == ALL else row['tower']} ({row['positives']:,})" for row in own]
        if thin:
            yield f"{head} has fewer than {needed} positives on the held-out day in: {', '.join(dict.fromkeys(thin))}."


def _off(segments: Sequence[Row]) -> Iterator[str]:
    off = off_segments(segments)
    if off:
        worst = off[0]
        named = f"{worst['head']} in {worst['tower']}, {worst['by']} = {worst['value']}: {worst['ratio']:.2f} times what was seen"
        yield f"{len(off)} of {len(segments)} segments are off beyond chance; that which is wrong by most: {named}."


def _unjudged(decision: Row) -> Iterator[str]:
    cells = decision.get("cells") or ()
    if len(cells) > decision.get("judged", 0):
        yield f"Only {decision.get('judged', 0)} of {len(cells)} cells (a head in a tower) had enough positives to be judged by the gate."


def as_json(card: Row) -> str:
    return json.dumps(card, indent=1, sort_keys=True, allow_nan=False, default=str) + "\n"


def as_markdown(card: Row) -> str:
    """`card`: as read back from the JSON."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain, autoescape=False
    )
    environment.filters.update(FILTERS, limits=_limits, triple=_triple, yaml=_indented)
    return environment.get_template("model_card.md").render(card=card)


class _Ready(str):
    """Text that is Markdown already."""


def _plain(value: Any) -> Any:
    """Words from logs and configuration can begin no table cell, link or tag."""
    if not isinstance(value, str) or isinstance(value, _Ready):
        return value
    escaped = "".join(f"\\{letter}" if letter in "\\|`*[]" else letter for letter in value)
    return " ".join(escaped.replace("<", "&lt;").split())


def _limits(of: Row, digits: int = 3) -> str:
    return _triple((of["value"], of["low"], of["high"]), digits)


def _triple(of: Sequence[float | None] | None, digits: int = 3) -> str:
    """A value with its interval, such as 1.031 (0.971 to 1.094)."""
    value, low, high = (FILTERS["number"](number, digits) for number in of or (None, None, None))
    return value if low == NOTHING else f"{value} ({low} to {high})"


def _indented(value: Any) -> _Ready:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return _Ready("\n".join(f"    {line}" for line in text.splitlines()))
