"""What the report draws of a night, and the tables that say the same: plain rows in, pictures of validation/charts.py out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from etl.schemas import ALL
from validation.charts import Axis, Cell, Line, Tick, bar_svg, colour, grid_svg, lines_svg
from validation.drift import Shift
from validation.queries import STEPS

Row = Mapping[str, Any]
TOP = 0.2  # share of rows whose share of positives a table tells
MEASURES = {"ne": ("normalised entropy", 1.0), "ratio": ("predicted / observed", 1.0), "auc": ("AUC", None)}
STRONGEST = 2.0  # predicted / observed, or its inverse, that has the full colour
VAGUE = 4.0  # an interval whose ends lie further apart than this tells no direction


def by(rows: Iterable[Row], name: str) -> dict[str, list[Row]]:
    """Rows by the text in a column, in the order of their first rows."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(str(row[name]), []).append(row)
    return parts


def gains(reliability: Sequence[Row]) -> list[dict[str, Any]]:
    """A head each: the share of positives that the best rows hold (gain), and how many times their share of rows that is (lift)."""
    found = []
    for head, bins in by((row for row in reliability if row["rows"] and row["stage"] == "calibrated"), "head").items():
        curves = {tower: gain_curve(of) for tower, of in ((ALL, bins), *by(bins, "tower").items())}
        curves = {tower: points for tower, points in curves.items() if points}
        if not curves:
            continue
        lifts = {tower: [(x, y / x) for x, y in points if x] for tower, points in curves.items()}
        most = max(y for points in lifts.values() for _, y in points)
        keys = {tower: "ink" if tower == ALL else colour(place - 1) for place, tower in enumerate(curves)}
        shares = Axis(0, 1, [Tick(n / 4, f"{n / 4:.0%}") for n in (0, 2, 4)])
        told = "; ".join(
            f"{tower}: the top {TOP:.0%} of rows hold {held(points, TOP):.0%} of positives" for tower, points in curves.items()
        )
        found.append(
            {
                "head": head,
                "keys": keys,
                "gain": lines_svg(f"gain of {head}", told, _lines(curves, keys), shares, shares, [Line([(0, 0), (1, 1)], "ink")]),
                "lift": lines_svg(f"lift of {head}", told, _lines(lifts, keys), shares, _from_zero(most), [Line([(0, 1), (1, 1)], "ink")]),
                "lines": [
                    {"tower": tower, "top": points[1][0], "lift": lifts[tower][0][1], "held": held(points, TOP)}
                    for tower, points in curves.items()
                ],
            }
        )
    return found


def gain_curve(bins: Sequence[Row]) -> list[tuple[float, float]]:
    """(share of rows, share of positives) from the highest predictions down, beginning at (0, 0); empty without positives."""
    ranked = sorted(bins, key=lambda row: -row["predicted"])
    rows, positives = sum(row["rows"] for row in ranked), sum(row["rows"] * row["observed"] for row in ranked)
    if not positives:
        return []
    points, above, hit = [(0.0, 0.0)], 0.0, 0.0
    for row in ranked:
        above, hit = above + row["rows"], hit + row["rows"] * row["observed"]
        points.append((above / rows, hit / positives))
    return points


def held(points: Sequence[tuple[float, float]], share: float) -> float:
    """The share of positives in the best `share` of rows, between two points in a straight line."""
    for (left, low), (right, high) in pairwise(points):
        if right >= share:
            return low + (high - low) * (share - left) / (right - left)
    return 1.0


def heat(segments: Sequence[Row]) -> list[dict[str, Any]]:
    """A head each: predicted over observed of every segment (lines) in every tower (columns)."""
    found = []
    for head, rows in by(segments, "head").items():
        towers = sorted({str(row["tower"]) for row in rows})
        lines: dict[tuple[str, str], dict[str, Row]] = {}
        for row in sorted(rows, key=lambda row: (row["by"], *_natural(row["value"]))):
            lines.setdefault((row["by"], row["value"]), {})[row["tower"]] = row
        grid = [(f"{field} {value}", {tower: _cell(row) for tower, row in of.items()}) for (field, value), of in lines.items()]
        off = sum(cell.outlined for _, cells in grid for cell in cells.values())
        told = f"{len(rows)} segments, {off} of them off beyond chance; the table below has each"
        svg = grid_svg(f"predicted over observed of {head} by segment", told, grid, towers)
        found.append({"head": head, "svg": svg, "towers": towers, "lines": lines})
    return found


def _natural(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    return (0, float(value), "") if value.replace(".", "", 1).isdigit() else (1, 0.0, value)


def _cell(row: Row) -> Cell:
    if not row["positives"]:
        return Cell(0.0, faint=True)
    outlined = not row["ratio_low"] <= 1 <= row["ratio_high"]
    vague = not row["ratio_low"] or row["ratio_high"] / row["ratio_low"] > VAGUE
    return Cell(math.log(max(row["ratio"], 1e-9)) / math.log(STRONGEST), outlined, vague and not outlined)


def nights(history: Sequence[Row]) -> list[dict[str, Any]]:
    """A head each: normalised entropy, ratio and AUC of the model that served, night by night."""
    days = sorted({str(row["day"]) for row in history})
    if not days:
        return []
    x = Axis(0, max(len(days) - 1, 1), [Tick(0, days[0][5:]), *([Tick(len(days) - 1, days[-1][5:])] if len(days) > 1 else [])])
    found = []
    for head, rows in by(history, "head").items():
        pictures = []
        for name, (words, right) in MEASURES.items():
            points = [(days.index(str(row["day"])), row[name]) for row in rows if row[name] is not None]
            if points:
                values = [y for _, y in points]
                guides = [Line([(0, right), (x.high, right)], "ink")] if right is not None else []
                told = f"{len(points)} nights, from {min(values):.3f} to {max(values):.3f}, {values[-1]:.3f} at the end"
                y = _around([*values, *([right] if right is not None else [])])
                pictures.append((words, lines_svg(f"{words} of {head}", told, [Line(points, "c0", dots=True)], x, y, guides, (250, 110))))
        found.append({"head": head, "pictures": pictures, "rows": rows})
    return found


def slowest(stages: Sequence[Row], usual: Sequence[Row]) -> list[dict[str, Any]]:
    """Stages by time, each with its share of the night and what is usual."""
    known = {row["stage"]: row for row in usual}
    total, most = sum(row["seconds"] for row in stages), max((row["seconds"] for row in stages), default=0.0)
    most = max([most, *(known[row["stage"]]["seconds"] for row in stages if row["stage"] in known)])
    lines = []
    for row in sorted(stages, key=lambda row: -row["seconds"]):
        of = known.get(row["stage"])
        bar = bar_svg(f"{row['stage']}: {row['seconds']:.1f} s", row["seconds"], most, of["seconds"] if of else None)
        share = row["seconds"] / total if total else None
        lines.append({**row, "share": share, "usual": of["seconds"] if of else None, "times": of["times"] if of else 0, "bar": bar})
    return lines


def off_segments(segments: Sequence[Row]) -> list[Row]:
    """Segments whose interval excludes 1, those first whose predictions are wrong by the most engagements."""
    off = [row for row in segments if row["positives"] and not row["ratio_low"] <= 1 <= row["ratio_high"]]
    return sorted(off, key=lambda row: (-abs(row["predicted"] - row["positives"]), row["head"], row["tower"], row["by"], row["value"]))


def distribution(histogram: Sequence[Row]) -> list[dict[str, Any]]:
    """A head each: share of rows by probability, a line a source, on a logarithmic scale."""
    found = []
    for head, rows in by(histogram, "head").items():
        low, high = min(row["bin"] for row in rows), max(row["bin"] for row in rows) + 1
        decades = range(math.ceil(low / STEPS), math.floor(high / STEPS) + 1)
        x = Axis(low, high, [Tick(n * STEPS, f"{10.0**n:.{max(0, -2 - n)}%}") for n in decades][-4:])
        lines, keys, most = [], {}, 0.0
        for place, (source, of) in enumerate(by(rows, "source").items()):
            total, counts = sum(row["rows"] for row in of), {row["bin"]: row["rows"] for row in of}
            steps = [(edge, counts.get(n, 0) / total) for n in range(low, high) for edge in (n, n + 1)]
            keys[source] = colour(place)
            most = max([most, *(share for _, share in steps)])
            lines.append(Line([(low, 0.0), *steps, (high, 0.0)], keys[source]))
        told = f"from {10 ** (low / STEPS):.2g} to {10 ** (high / STEPS):.2g}; the table below has low, middle and high ones"
        y = Axis(0, most, [Tick(0, "0"), Tick(most, f"{most:.0%}")])
        found.append({"head": head, "keys": keys, "svg": lines_svg(f"calibrated probability of {head}, share of rows", told, lines, x, y)})
    return found


def shifted(shifts: Sequence[Shift], max_psi: float, min_rows: int) -> list[dict[str, Any]]:
    """The largest shift first; `off`: of at least `min_rows`, and beyond both max_psi and what the days before differ among themselves."""
    most = max([max_psi, *(shift.psi for shift in shifts)])
    lines = []
    for shift in sorted(shifts, key=lambda shift: (-shift.psi, shift.of)):
        limit = max(max_psi, shift.usual or 0.0)
        off = shift.psi > limit and shift.rows >= min_rows
        bar = bar_svg(f"{shift.of}: PSI {shift.psi:.3f}", shift.psi, most, limit, "bad" if off else "c0")
        lines.append({**shift._asdict(), "limit": limit, "off": off, "bar": bar})
    return lines


def _lines(curves: Mapping[str, Sequence[tuple[float, float]]], keys: Mapping[str, str]) -> list[Line]:
    """Those of all towers last, on top."""
    return [Line(curves[tower], keys[tower]) for tower in reversed(list(curves))]


def _from_zero(most: float) -> Axis:
    top = max(most, 1.0) * 1.05
    return Axis(0, top, [Tick(0, "0"), Tick(1, "1"), *([Tick(math.floor(top), f"{math.floor(top)}")] if top >= 2 else [])])


def _around(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    pad = (high - low) * 0.1 or 0.01
    return Axis(low - pad, high + pad, [Tick(low, f"{low:.3f}"), *([Tick(high, f"{high:.3f}")] if high > low else [])])
