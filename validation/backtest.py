"""What a person reads of a backtest (jobs/backtest.py): a few lines of text, and one self-contained HTML page.

Cells are told apart by the positives of the window before the measured days: below ENOUGH a fit is mostly noise, and its error too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from models.methods import CHOSEN, NOISE, ORACLE, RAW
from models.walk_summary import Estimate, Line, lines, noise
from validation.pages import NOTHING, pages
from validation.plots import days_svg

ENOUGH = 100
#: Drawn over days, where the walk has them.
DRAWN = {
    RAW: ("#d97706", "-"),
    "platt": ("#2563eb", "-"),
    "featured": ("#7c3aed", "-"),
    CHOSEN: ("#15803d", "--"),
    ORACLE: ("#6b7280", "-"),
    NOISE: ("#9ca3af", ":"),
}


@dataclass(frozen=True)
class Block:
    """Lines of one regime: of large or small cells, of all cells of a `head`, on measured or scored days. `noise`: the error against labels that
    chance would leave to right predictions (models/walk_summary.py)."""

    regime: str
    kind: str
    cells: str
    first: object
    last: object
    noise: float
    lines: list[Line]

    @property
    def title(self) -> str:
        where = "" if self.kind == "measured" else ", on the days on which scores are used"
        return f"{self.regime}{where}: {self.cells}, {self.first} to {self.last}; chance alone leaves {self.noise:.3f} against labels"

    @property
    def has_truth(self) -> bool:
        return self.lines[0].error_true is not None


def summary(rows: pd.DataFrame, unit: str) -> list[Block]:
    """`rows` of the table `backtest`; `unit`: what intervals draw again (models/walk_summary.py)."""
    return list(_blocks(rows, unit))


def _blocks(rows: pd.DataFrame, unit: str) -> Iterator[Block]:
    rows = rows[rows["positives"] > 0]
    large = rows["fit_positives"] >= ENOUGH
    parts = [
        (f"cells of {ENOUGH} and more fit positives", "measured", large),
        (f"cells of fewer than {ENOUGH} fit positives", "measured", ~large),
        (f"cells of {ENOUGH} and more fit positives", "scored", large),
        *((f"head {head}", "measured", rows["head"] == head) for head in dict.fromkeys(rows["head"])),
    ]
    for regime in dict.fromkeys(rows["regime"]):
        for cells, kind, chosen in parts:
            part = rows[(rows["regime"] == regime) & (rows["kind"] == kind) & chosen]
            if len(part):
                seen = part[part["method"] == RAW]["positives"]
                yield Block(regime, kind, cells, part["day"].min(), part["day"].max(), noise(seen), lines(part, unit, kind))


def page(name: str, simulated: bool, rows: pd.DataFrame, blocks: Sequence[Block], features: Sequence[str], unit: str = "day") -> str:
    """One HTML page: per regime a line over days for each method, then the blocks as tables."""
    environment = pages()
    share, change = (partial(_estimate, form=form) for form in ("{:.0%}", "{:+.2%}"))
    environment.filters.update(estimate=_estimate, estimate_share=share, estimate_change=change)
    return environment.get_template("backtest.html").render(
        name=name,
        simulated=simulated,
        unit=unit,
        features=", ".join(features) or "nothing: name some in calibration.features",
        enough=ENOUGH,
        regimes=[_drawn(regime, rows, blocks) for regime in dict.fromkeys(block.regime for block in blocks)],
    )


def _drawn(regime: str, rows: pd.DataFrame, blocks: Sequence[Block]) -> dict[str, Any]:
    of = rows[(rows["regime"] == regime) & (rows["kind"] == "measured") & (rows["positives"] > 0)]
    large = of[of["fit_positives"] >= ENOUGH]
    error = "error_true" if large["error_true"].notna().any() else "error_observed"
    days = large.groupby(["day", "method"])[error].mean().unstack("method")
    known = {method: dress for method, dress in DRAWN.items() if method in days.columns}
    values = {method: days[method].tolist() for method in known}
    chose = of[of["method"] == CHOSEN].groupby("day")["chose"].first()
    changes = [f"{method} from {day}" for day, method in chose[chose != chose.shift()].items()]
    return {
        "title": {"stale": "Stale: one model for all days", "fresh": "Fresh: a model for each day"}[regime],
        "svg": days_svg([f"{day:%m-%d}" for day in days.index], values, known, f"error by day, {regime}"),
        "against": "against the true probabilities" if error == "error_true" else "against labels",
        "key": [(method, colour) for method, (colour, _) in known.items()],
        "chose": ", ".join(changes),
        "blocks": [block for block in blocks if block.regime == regime],
    }


def _estimate(estimate: Estimate | None, form: str = "{:.3f}") -> str:
    return NOTHING if estimate is None else interval(estimate, form)


HEADER = f"{'':<24}{'against labels':>28}{'segments':>10}{'log-loss':>27}{'against the truth':>28}{'beyond oracle':>15}{'removed':>24}{'segments':>10}"


def told(blocks: list[Block]) -> list[str]:
    """The blocks of large and small cells as text, a table each."""
    text = []
    for block in blocks:
        if block.cells.startswith("cells") and block.kind == "measured":
            text += [block.title, HEADER, *(line_told(line) for line in block.lines), ""]
    return text


def line_told(line: Line) -> str:
    loss = interval(line.relative_loss, "{:+.2%}") if line.relative_loss else ""
    text = f"{line.method:<24}{interval(line.error_observed):>28}{line.segments_observed[0]:>10.3f}{loss:>27}"
    if line.error_true is None or line.beyond is None or line.removed_true is None or line.segments_true is None:
        return text
    beyond = "" if line.method == NOISE else f"{line.beyond[0]:+.3f}"
    return f"{text}{interval(line.error_true):>28}{beyond:>15}{interval(line.removed_true, '{:.0%}'):>24}{line.segments_true[0]:>10.3f}"


def interval(estimate: Estimate, form: str = "{:.3f}") -> str:
    """A mean with its interval, such as `.046 (.031 to .060)`."""
    mean, low, high = (form.format(value) for value in estimate)
    return f"{mean} ({low} to {high})"
