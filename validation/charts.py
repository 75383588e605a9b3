"""Small pictures as inline SVG, drawn by hand: lines, bars in a table's cell, and a grid of colours.

They take the page's ink and colours from its style sheet (page.css), so that they follow dark and light, and each says what it shows in
<title> and <desc>. Whatever comes from outside goes through markupsafe's escaping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 8, 22  # margins of a picture of lines, in its own units
ROW, CELL, LABEL = 14, 46, 96  # of a grid: height of a row, width of a cell and of the labels
COLOURS = 8  # as many as page.css has; a ninth line begins again


class Tick(NamedTuple):
    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, with a text at each tick."""

    low: float
    high: float
    ticks: Sequence[Tick] = ()

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        span = self.high - self.low
        return min(max((value - self.low) / span, 0.0), 1.0) if span else 0.5


class Line(NamedTuple):
    """`colour`: a class of page.css, such as c0; `dots` where points are few."""

    points: Sequence[Point]
    colour: str
    dots: bool = False


def lines_svg(
    title: str, told: str, lines: Sequence[Line], x: Axis, y: Axis, guides: Sequence[Line] = (), size: tuple[int, int] = (250, 160)
) -> Markup:
    """Lines over an axis each; `guides` are thin and dashed."""
    width, height = size

    def across(value: float) -> float:
        return round(LEFT + x.place(value) * (width - LEFT - RIGHT), 1)

    def up(value: float) -> float:
        return round(height - BOTTOM - y.place(value) * (height - TOP - BOTTOM), 1)

    floor, parts = height - BOTTOM, []
    parts.append(Markup('<path class="axis" d="M{0} {1}V{2}H{3}"/>').format(LEFT, TOP, floor, width - RIGHT))
    for tick in x.ticks:
        anchor = "middle" if across(tick.at) + 3 * len(tick.text) < width else "end"
        parts.append(Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(across(tick.at), height - 8, anchor, tick.text))
    parts += [Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 4, up(t.at) + 3, t.text) for t in y.ticks]
    for line, kind in (*((guide, "guide") for guide in guides), *((line, "line") for line in lines)):
        points = [(across(a), up(b)) for a, b in line.points]
        path = " ".join(f"{a},{b}" for a, b in points)
        parts.append(Markup('<polyline class="{} {}" points="{}"/>').format(kind, line.colour, path))
        if line.dots or len(points) == 1:
            parts += [Markup('<circle class="dot {}" cx="{}" cy="{}" r="1.8"/>').format(line.colour, a, b) for a, b in points]
    return _svg(width, height, title, told, parts)


def bar_svg(title: str, value: float, most: float, mark: float | None = None, level: str = "c0") -> Markup:
    """A bar for a table's cell, from 0 to `most`; `mark`: a line across it, such as what is usual."""
    width, axis = 120, Axis(0, most or 1)
    parts = [Markup('<rect class="bar {}" x="0" y="2" width="{:.1f}" height="8"/>').format(level, max(axis.place(value) * width, 1))]
    if mark is not None:
        parts.append(Markup('<path class="mark" d="M{:.1f} 0V12"/>').format(min(max(axis.place(mark) * width, 0.5), width - 0.5)))
    return _svg(width, 12, title, "", parts)


class Cell(NamedTuple):
    """A square of a grid. `strength`: -1 to 1, below 0 in the colour of too low, above in that of too high; `outlined`: beyond chance."""

    strength: float
    outlined: bool = False
    faint: bool = False


def grid_svg(title: str, told: str, rows: Sequence[tuple[str, Mapping[str, Cell]]], columns: Sequence[str]) -> Markup:
    """Labelled rows of cells, a column each; a cell that is not there stays empty."""
    width, height = LABEL + CELL * len(columns), ROW * (len(rows) + 1) + 2
    parts = [
        Markup('<text x="{}" y="9" text-anchor="middle">{}</text>').format(LABEL + CELL * (n + 0.5), _short(name, 8))
        for n, name in enumerate(columns)
    ]
    for place, (label, cells) in enumerate(rows, start=1):
        top = ROW * place
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LABEL - 4, top + 10, _short(label, 20)))
        for n, name in enumerate(columns):
            if name in cells:
                parts.append(_cell(cells[name], LABEL + CELL * n, top))
    return _svg(width, height, title, told, parts, widest=round(width * 1.3))


def _cell(cell: Cell, left: float, top: float) -> Markup:
    kind = f"{'high' if cell.strength > 0 else 'low'}{' off' if cell.outlined else ''}"
    strength = 0 if cell.faint else min(abs(cell.strength), 1.0)
    at = {"left": left + 1, "top": top + 1, "width": CELL - 2, "height": ROW - 2}
    ground = Markup('<rect class="ground" x="{left}" y="{top}" width="{width}" height="{height}"/>').format(**at)
    if cell.faint:
        middle = {"x": left + CELL / 2, "y": top + ROW / 2}
        return ground + Markup('<circle class="few" cx="{x}" cy="{y}" r="1.2"/>').format(**middle)
    return ground + Markup(
        '<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" fill-opacity="{strength:.2f}"/>'
    ).format(kind=kind, strength=strength, **at)


def colour(place: int) -> str:
    return f"c{place % COLOURS}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _svg(width: float, height: float, title: str, told: str, parts: Sequence[Markup], widest: int | None = None) -> Markup:
    """As wide as its place in the page, at most `widest` pixels."""
    described = Markup("<desc>{}</desc>").format(told) if told else Markup("")
    limit = Markup(' style="max-width:{}px"').format(widest) if widest else Markup("")
    box = f"0 0 {round(width)} {round(height)}"
    opening = Markup('<svg class="drawn" viewBox="{}"{} role="img"><title>{}</title>').format(box, limit, title)
    return opening + described + Markup("").join(parts) + Markup("</svg>")
