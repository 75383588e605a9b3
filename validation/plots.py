"""Reliability diagrams and lines over days as inline SVG. Words from outside stay in the page, so that the page's escaping covers them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from math import sqrt
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

RAW, CALIBRATED = "#d97706", "#2563eb"
INK = "#010203"  # stands for the page's own text colour, light or dark
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "adtower", "font.size": 8, "axes.linewidth": 0.6}


def reliability_svg(bins: Sequence[Mapping[str, Any]], title: str = "reliability") -> Markup:
    """One head in one tower: observed against predicted, before and after calibration, with the diagonal of a calibrated model.

    `bins`: rows of `calibration_daily` (stage, rows, predicted, observed). Bars are 95% Wilson intervals of the observed share.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.5, 2.3), layout="constrained")
        axes = figure.add_subplot()
        limit = max([1e-6, *(max(row["predicted"], row["observed"]) for row in bins)]) * 1.08
        axes.plot([0, limit], [0, limit], color=INK, linewidth=0.6, linestyle=(0, (4, 3)), alpha=0.6)
        _points(axes, [row for row in bins if row["stage"] == "raw"], RAW, filled=False)
        _points(axes, [row for row in bins if row["stage"] == "calibrated"], CALIBRATED, filled=True)
        _dress(axes, limit)
        figure.patch.set_alpha(0)
        svg = _inline(figure, title)
    for colour, own in ((RAW, "c1"), (CALIBRATED, "c0")):  # of page.css, which knows dark and light
        svg = Markup(svg.replace(colour, f"var(--{own}, {colour})"))
    return svg


def days_svg(
    days: Sequence[str], values: Mapping[str, Sequence[float]], colours: Mapping[str, tuple[str, str]], title: str = "errors by day"
) -> Markup:
    """A line a name over days, from 0 up. `colours`: name -> colour and line style; the key stands in the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for name, (colour, style) in colours.items():
            axes.plot(range(len(days)), values[name], style, color=colour, linewidth=1.3, marker="o", markersize=2.8)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(days)), days)
        axes.set_ylabel("|predicted / there - 1|", color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _bare(axes)
        figure.patch.set_alpha(0)
        return _inline(figure, title)


def changes_svg(lines: Sequence[Mapping[Any, Any]], title: str = "changes") -> Markup:
    """A dot and an interval a line (head, arm, ne_change, ne_change_low, ne_change_high), one below the other, about a line at none."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.6 + 0.15 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.6, linestyle=(0, (4, 3)), alpha=0.6)
        for place, line in enumerate(lines):
            axes.plot([line["ne_change_low"], line["ne_change_high"]], [place, place], color=CALIBRATED, linewidth=1, alpha=0.55)
            axes.plot(line["ne_change"], place, "o", color=CALIBRATED, markersize=3.2)
        axes.set_yticks(range(len(lines)), [f"{line['head']}: {line['arm']}" for line in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        _bare(axes)
        figure.patch.set_alpha(0)
        svg = _inline(figure, title)
    return Markup(svg.replace(CALIBRATED, f"var(--c0, {CALIBRATED})"))


def wilson(positives: float, rows: float) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927)."""
    z, share = 1.96, min(max(positives / rows, 0.0), 1.0)
    middle, spread = share + z * z / (2 * rows), z * sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _points(axes: Axes, bins: Sequence[Mapping[str, Any]], colour: str, filled: bool) -> None:
    predicted, observed = [row["predicted"] for row in bins], [row["observed"] for row in bins]
    if filled:
        for row in bins:
            low, high = wilson(row["observed"] * row["rows"], row["rows"])
            axes.plot([row["predicted"]] * 2, [low, high], color=colour, linewidth=0.9, alpha=0.55)
    axes.plot(predicted, observed, "o", color=colour, markersize=3.6, markerfacecolor=colour if filled else "none", markeredgewidth=0.9)


def _dress(axes: Axes, limit: float) -> None:
    axes.set_xlim(0, limit)
    axes.set_ylim(0, limit)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("observed", color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(PercentFormatter(1.0))
    _bare(axes)


def _bare(axes: Axes) -> None:
    """Two axes in the page's ink, on the page's ground."""
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, width=0.6, length=2.5)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))


def _inline(figure: Figure, title: str) -> Markup:
    """The <svg> element alone: named, sized by the page, in the page's text colour, without ids that a second figure would repeat."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r'\1role="img"', svg, count=1)
    opening, rest = svg.replace(INK, "currentColor").split(">", 1)
    return Markup(opening) + Markup("><title>{}</title>").format(title) + Markup(rest)
