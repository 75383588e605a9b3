"""What a person reads of a night: one self-contained HTML page, readable without scripts or network.

Plain values in, text out. Rows of tables (`account`, `findings`, `metrics`, ...) are mappings with the column names of etl/schemas.py or
of the function that made them, so that a job hands over what it collected. What a night did not reach stays at its default, and the page
says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from etl.schemas import ALL
from models.metrics import chance_share
from validation import figures
from validation.drift import Shift
from validation.pages import pages
from validation.plots import reliability_svg
from validation.queries import QUANTILES

Row = Mapping[str, Any]
COUNTS = ("rows_in", "kept", "duplicates", "quarantined", "late", "not_due", "other_day")


@dataclass(frozen=True)
class Training:
    """How the night's model came about. `parent` is None and `warm` false for a model trained from nothing; `loss`: head -> mean loss."""

    model: str
    parent: str | None
    trained_from: str
    trained_to: str
    rows: int
    seconds: float
    rows_per_second: float
    ranks: int
    loss: Mapping[str, float]
    epochs: int = 1

    @property
    def warm(self) -> bool:
        return self.parent is not None


@dataclass(frozen=True)
class Scores:
    """The scored inventory. `rows`: source -> rows; `mean_p`: head -> mean calibrated probability; utility: lowest and highest.

    `rank_correlation`, `top_kept`, `top_rows`: what calibration changed of the order (etl/order_change.py).
    """

    day: str
    table: str
    rows: Mapping[str, int]
    mean_p: Mapping[str, float]
    utility: tuple[float, float]
    rank_correlation: float | None = None
    top_kept: float | None = None
    top_rows: int = 0
    quantiles: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)  # head -> source -> those of QUANTILES


@dataclass(frozen=True)
class ReportData:
    """A night. Days and clocks are ISO text in UTC; `held_out` is M; `docs`: stage -> link to its Data Docs index."""

    name: str
    status: str
    level: Literal["good", "warning", "bad"]
    simulated: bool
    run_id: str
    day: str
    as_of: str
    held_out: str
    notes: Sequence[str] = ()
    stages: Sequence[Row] = ()  # stage, status, seconds, message, why
    account: Sequence[Row] = ()  # etl.sources.account
    findings: Sequence[Row] = ()  # validation.findings.Finding as a dict
    docs: Mapping[str, str] = field(default_factory=dict)
    training: Training | None = None
    shown: str = ""  # the model whose calibrator and metrics are shown: the one that serves
    decision: Row | None = None  # what publish_model counted: verdict, reason, production, serves, whole, cells (models/verdict.py)
    fit_days: str = ""  # the days whose served rows fitted the calibrator
    calibrator: Mapping[str, Mapping[str, Row]] = field(default_factory=dict)  # head -> tower -> a Cell of models/calibration.py
    judged_positives: int = 0  # publication.min_positives: cells with fewer are shown faint
    min_positives: int = 0  # calibration.min_positives: cells with fewer are shown faint
    metrics: Sequence[Row] = ()  # rows of `metrics` of this night
    reliability: Sequence[Row] = ()  # rows of `calibration_daily` of this night
    segments: Sequence[Row] = ()  # rows of `calibration_segments` of this night
    scores: Scores | None = None
    queries: Mapping[str, str] = field(default_factory=dict)  # part of the page -> the Spark SQL behind it (validation/queries.py)
    usual: Sequence[Row] = ()  # stage, times, seconds: medians of the nights before
    nights: Sequence[Row] = ()  # day, head, model, rows, positives, ratio, ne, auc of the models that served
    histogram: Sequence[Row] = ()  # source, head, bin, rows of the scores
    movers: Sequence[Row] = ()  # head, since, campaign_id, before, after, change, impressions_before, impressions_after
    feature_shifts: Sequence[Shift] = ()
    score_shifts: Sequence[Shift] = ()
    max_psi: float = 0.0  # gate.max_psi
    min_psi_rows: int = 0  # gate.min_psi_rows
    calibrator_file: str = ""  # link
    card: str = ""  # link to the model card, without its ending


# For whom a part is, in the order of the page: id -> words of the link.
CONTENTS = {
    "operator": {"stages": "stages", "rows": "row account", "gates": "gates"},
    "engineer": {
        "training": "training",
        "candidate": "candidate",
        "calibrator": "calibrator",
        "metrics": "metrics",
        "nights": "last 30 nights",
        "reliability": "reliability",
        "gain": "lift and gain",
    },
    "analyst": {"segments": "segments", "scores": "scores", "movers": "largest changes", "drift": "drift", "card": "model card"},
}


def render(report: ReportData) -> str:
    """The page. Every value is escaped; the only markup let through is that of our own diagrams."""
    failed = [row for row in report.findings if not row["success"]]
    return (
        pages()
        .get_template("report.html")
        .render(
            night=report,
            blocks=_by_block(report.account),
            failed=sorted(failed, key=lambda row: row["severity"]),
            held=[row for row in report.findings if row["success"]],
            by_source=_side_by_side(row for row in report.metrics if row["tower"] == ALL),
            by_tower=_side_by_side(row for row in report.metrics if row["tower"] != ALL),
            diagrams=_diagrams(report.reliability),
            off=figures.off_segments(report.segments),
            fields=_by_field(report.segments),
            contents=CONTENTS,
            slowest=figures.slowest(report.stages, report.usual),
            nights=figures.nights(report.nights),
            gains=figures.gains(report.reliability),
            heat=figures.heat(report.segments),
            distribution=figures.distribution(report.histogram),
            quantiles=QUANTILES,
            feature_drift=figures.shifted(report.feature_shifts, report.max_psi, report.min_psi_rows),
            score_drift=figures.shifted(report.score_shifts, report.max_psi, report.min_psi_rows),
        )
    )


def _by_block(account: Sequence[Row]) -> list[dict[str, Any]]:
    """The row account summed over days, one line a block, with the days' own lines under `days`."""
    blocks: dict[str, dict[str, Any]] = {}
    for row in account:
        block = blocks.setdefault(
            str(row["block"]), {"block": row["block"], "source": row["source"], "days": [], **dict.fromkeys(COUNTS, 0)}
        )
        block["days"].append(row)
        for name in COUNTS:
            block[name] += row[name]
    for block in blocks.values():
        block["balances"] = all(row["rows_in"] == row["kept"] + row["duplicates"] + row["quarantined"] for row in block["days"])
    return list(blocks.values())


def _side_by_side(metrics: Iterable[Row]) -> list[dict[str, Any]]:
    """One line a head, source and tower: the two stages beside each other. `within`: relative 95% half-width of the number of positives."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in metrics:
        head, source, tower, positives = str(row["head"]), str(row["source"]), str(row["tower"]), row["positives"] or 0
        within = chance_share(positives) if positives else None
        fixed = {"head": head, "source": source, "tower": tower, "rows": row["rows"], "positives": positives, "within": within}
        lines.setdefault((head, source, tower), fixed)[row["stage"]] = row
    heads = list(dict.fromkeys(head for head, _, _ in lines))
    return sorted(lines.values(), key=lambda line: (heads.index(line["head"]), line["source"] != ALL, line["source"], line["tower"]))


def _diagrams(reliability: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Head -> one figure a tower, with its bins and their rows and positives."""
    found: dict[str, list[dict[str, Any]]] = {}
    for head, of in figures.by((row for row in reliability if row["rows"]), "head").items():
        for tower, bins in figures.by(of, "tower").items():
            counted = [row for row in bins if row["stage"] == bins[0]["stage"]]
            rows, positives = sum(row["rows"] for row in counted), sum(row["rows"] * row["observed"] for row in counted)
            svg = reliability_svg(bins, f"reliability of {head} in tower {tower}")
            found.setdefault(head, []).append({"tower": tower, "rows": rows, "positives": round(positives), "bins": bins, "svg": svg})
    return found


def _by_field(segments: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a head and column, over all its values and towers: sum of |predicted - observed| over what was observed, raw and calibrated.

    Field-level relative error (Pan et al., Field-aware Calibration, WWW 2020). `chance`: what right probabilities would have, of Poisson counts.
    """
    fields: dict[tuple[str, str], list[Row]] = {}
    for row in segments:
        fields.setdefault((row["head"], row["by"]), []).append(row)
    lines = []
    for (head, by), rows in fields.items():
        observed = sum(row["positives"] for row in rows)
        if observed:
            wrong = {name: sum(abs(row[name] - row["positives"]) for row in rows) / observed for name in ("predicted_raw", "predicted")}
            chance = sum(math.sqrt(2 * row["predicted"] / math.pi) for row in rows) / observed
            lines.append({"head": head, "by": by, "segments": len(rows), "positives": observed, "chance": chance, **wrong})
    return lines
