"""Where the templates of pages are found, and how they write numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
NOTHING = "\N{EN DASH}"


def _undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _count(value: Any) -> str:
    return NOTHING if _undefined(value) else f"{value:,.0f}"


def _number(value: Any, digits: int = 3) -> str:
    return NOTHING if _undefined(value) else f"{value:.{digits}f}"


def _share(value: Any) -> str:
    """A share in per cent, with as many digits as small probabilities need."""
    if _undefined(value):
        return NOTHING
    return f"{value:.1%}" if abs(value) >= 0.1 else f"{value:.2%}" if abs(value) >= 0.001 or value == 0 else f"{value * 100:.2g}%"


def _largest(weights: Mapping[str, float], most: int = 5) -> str:
    """The weights that move log-odds furthest, of how many."""
    ranked = sorted(weights.items(), key=lambda pair: (-abs(pair[1]), pair[0]))
    return f"{', '.join(f'{key} {weight:+.3f}' for key, weight in ranked[:most])}; {len(ranked):,} in all"


def _seconds(value: Any) -> str:
    if _undefined(value):
        return NOTHING
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


#: How numbers are written, on pages and in a model card.
FILTERS: dict[str, Callable[..., str]] = {"count": _count, "number": _number, "share": _share, "seconds": _seconds, "largest": _largest}


def pages() -> Environment:
    """The templates beside this file. Every value is escaped, and one that is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return environment
