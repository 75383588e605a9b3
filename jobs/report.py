"""One HTML page a night: status, row account, gate, metrics, diagrams, scores. A stage of jobs/nightly.py; a failed night has one too.

The page shows the queries that this job runs (validation/queries.py). Beside it stands the card of the model that serves.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from etl.order_change import OrderChange
from etl.registry import calibrator_file
from etl.session import side_by_side
from jobs.common import NotYet, Outcome, Run, Stage, write_whole
from jobs.contenders import Contender, candidate, serving
from jobs.depends import NEVER_DONE
from jobs.gate import history_of
from jobs.model_card import write_card
from jobs.publish_model import status_of
from models.metrics import chance_share
from validation.drift import Shift, shift_of
from validation.queries import Asked, queries
from validation.report import ReportData, Scores, Training, render

GATED = ("gate", "calibrate", "evaluate", "publish_model", "score")  # stages that judge tables


def work(run: Run) -> Outcome:
    decided = run.counts_of("publish_model")
    data = data_of(run, *((status_of(decided), "warning") if decided.get("refused") else ("done", "good")))
    with contextlib.suppress(NotYet):  # no model serves
        data = replace(data, card=write_card(run, serving(run), data))
    # Later nights hold their scores beside these.
    return Outcome((), {"scored": run.night.scored.isoformat(), "histogram": data.histogram}, str(write_page(run, data)))


def write_failed(run: Run, reason: str) -> Path:
    """The page of a night that failed."""
    return write_page(run, data_of(run, f"failed: {reason}", "bad"))


def write_page(run: Run, data: ReportData) -> Path:
    return write_whole(run.run_dir / "report.html", render(data))


def data_of(run: Run, status: str, level: Any) -> ReportData:
    """What the ledger and the tables hold of this night; a stage that was not reached leaves its part empty."""
    conf, night, made = run.conf, run.night, run.counts_of("train")
    gates = {stage: counts for stage in GATED if (counts := run.counts_of(stage)).get("docs")}
    findings = [finding for counts in gates.values() for finding in counts["findings"]]
    if level == "good" and any(not finding["success"] for finding in findings):
        level, status = "warning", f"{status}, with warnings of the gate"
    shown, decided = shown_model(run), run.counts_of("publish_model")
    fitted = calibrator_of(run, shown)
    asked = queries(Asked(conf.workdir, run.run_id, night.day, night.scored, shown.model if shown else "", tuple(conf.heads)))
    rows = found_by(run, asked)
    metrics, histogram = rows["metrics"], rows.get("distribution", [])
    return ReportData(
        name=conf.name,
        status=status,
        level=level,
        simulated=conf.simulation is not None,
        run_id=run.run_id,
        day=night.day.isoformat(),
        as_of=f"{night.as_of:%Y-%m-%d %H:%M}",
        held_out=night.held_out.isoformat(),
        notes=[
            *notes_of(fitted, metrics, conf.calibration.min_positives),
            *(row["message"] for row in run.records if row["status"] == "skipped" and not made),
        ],
        stages=[{**row, "why": "" if row["why"] == NEVER_DONE else row["why"]} for row in run.records],
        usual=rows["usual"],
        account=run.counts_of("ingest").get("account", []),
        findings=findings,
        docs={stage: os.path.relpath(counts["docs"], run.run_dir) for stage, counts in gates.items()},
        training=training_of(made) if made else None,
        fit_days=f"{shown.fit_from(run)} to {night.calibrate_to}" if fitted and shown else "",
        shown=shown.model if shown else "",
        decision=decided if "verdict" in decided else None,
        calibrator=fitted,
        calibrator_file=link(run, calibrator_file(shown.model, night.day)) if fitted and shown else "",
        judged_positives=conf.publication.min_positives,
        min_positives=conf.calibration.min_positives,
        metrics=metrics,
        nights=rows["nights"],
        reliability=rows["reliability"],
        segments=rows["segments"],
        scores=scores_of(run, rows["scores"]) if histogram else None,
        histogram=histogram,
        movers=rows.get("movers", []),
        feature_shifts=feature_shifts(run),
        score_shifts=score_shifts(run, histogram),
        max_psi=conf.gate.max_psi,
        min_psi_rows=conf.gate.min_psi_rows,
        queries=asked,
    )


def found_by(run: Run, asked: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What each query of a table finds, heads in the order of the configuration; those of scores only where there are any."""
    heads = list(run.conf.heads)

    def rows_of(name: str) -> list[dict[str, Any]]:
        found = [row.asDict(recursive=True) for row in run.spark.sql(asked[name]).collect()]
        return sorted(found, key=lambda row: heads.index(row["head"]) if row.get("head") in heads else len(heads))

    scored = ("scores", "distribution", "movers") if run.counts_of("score") else ()
    names = (*scored, "segments", "metrics", "nights", "reliability", "usual")
    return dict(zip(names, side_by_side(rows_of, names), strict=True))


def link(run: Run, file: str) -> str:
    """A file of the working folder, as seen from the page."""
    return os.path.relpath(Path(run.conf.workdir).resolve() / file, run.run_dir)


def training_of(made: dict[str, Any]) -> Training:
    names = ("model", "parent", "trained_from", "trained_to", "rows", "seconds", "rows_per_second", "ranks", "epochs")
    return Training(**{name: made[name] for name in names}, loss={head: loss for head, loss in made["loss"].items() if loss is not None})


def shown_model(run: Run) -> Contender | None:
    """The model that serves; where none does yet, this night's candidate."""
    for which in (serving, candidate):
        with contextlib.suppress(NotYet):
            return which(run)
    return None


def calibrator_of(run: Run, shown: Contender | None) -> dict[str, dict[str, Any]]:
    if shown is None or not run.counts_of("calibrate"):
        return {}
    with contextlib.suppress(FileNotFoundError):  # a night that failed before it was fitted
        return json.loads(shown.calibrator_text(run))["cells"]
    return {}


def notes_of(calibrator: dict[str, dict[str, Any]], metrics: list[dict[str, Any]], needed: int) -> list[str]:
    """What a reader must know before a number: how few positives there are, and where nothing was calibrated."""
    notes = []
    for head, cells in calibrator.items():
        left = {tower: cell["positives"] for tower, cell in cells.items() if cell["method"] == "identity" and cell["rows"]}
        if left:
            told = ", ".join(f"{tower} has {positives:,}" for tower, positives in left.items())
            notes.append(f"The calibrator of {head} is the identity where its fit rows hold fewer than {needed} positives: {told}.")
    for row in metrics:
        if row["stage"] == "raw" and row["source"] == row["tower"] == "(all)" and row["positives"] < needed:
            within = f", so a ratio is uncertain by {chance_share(row['positives']):.0%}" if row["positives"] else ""
            notes.append(f"The held-out day has only {row['positives']:,} positives of {row['head']} in {row['rows']:,} rows{within}.")
    return notes


def scores_of(run: Run, found: list[dict[str, Any]]) -> Scores:
    """`found`: a row a source."""
    counts = run.counts_of("score")
    order = {name: counts[name] for name in OrderChange._fields if name in counts}
    total, heads = sum(row["rows"] for row in found), run.conf.heads
    return Scores(
        run.night.scored.isoformat(),
        f"{run.conf.workdir}/tables/scores",
        {row["source"]: row["rows"] for row in found},
        {head: sum(row[f"mean_{head}"] * row["rows"] for row in found) / total for head in heads},
        (min(row["low"] for row in found), max(row["high"] for row in found)),
        **order,
        quantiles={head: {row["source"]: row[f"quantiles_{head}"] for row in found} for head in heads},
    )


def feature_shifts(run: Run) -> list[Shift]:
    """Of what the gates counted up to this night; nothing where this night's gate did not pass."""
    history, night = history_of(run, run.night.day), run.night
    by_feature: dict[str, dict[str, list[int]]] = {}
    for day, of in history.profiles.items():
        for feature, profile in of.items():
            by_feature.setdefault(feature, {})[day] = profile["counts"]
    shifts = (shift_of(name, days, night.train_from.isoformat(), night.train_to.isoformat()) for name, days in by_feature.items())
    return [shift for shift in shifts if shift and shift.day == night.day.isoformat()]


def score_shifts(run: Run, histogram: list[dict[str, Any]]) -> list[Shift]:
    """Of the probabilities of this night and of what earlier nights' reports counted, all sources together."""
    earlier = [record.counts for record in run.ledger.done if record.stage == "report" and record.day < run.night.day]
    by_day = {counts["scored"]: counts["histogram"] for counts in earlier if counts.get("histogram")}
    by_day[run.night.scored.isoformat()] = histogram
    shifts = []
    for head in run.conf.heads if histogram else ():
        counted = {day: Counter[int]() for day in by_day}
        for day, rows in by_day.items():
            for row in rows:
                if row["head"] == head:
                    counted[day][row["bin"]] += row["rows"]
        bins = sorted(set().union(*counted.values()))
        shifts.append(shift_of(head, {day: [of[n] for n in bins] for day, of in counted.items()}, "", ""))
    return [shift for shift in shifts if shift]


# The page says how this run went, so it is written anew by every run.
STAGE = Stage(name="report", packages=("etl", "validation"), reads=lambda conf: {}, inputs=lambda run: {"run": run.run_id}, work=work)
