"""One HTML page a night: status, row account, gate, metrics, diagrams, scores. A stage of jobs/nightly.py; a failed night has one too."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from etl import schemas
from etl.order_change import OrderChange
from etl.schemas import CALIBRATION_DAILY, CALIBRATION_SEGMENTS, METRICS, Table
from etl.tables import read_days, table_path
from jobs.common import NotYet, Outcome, Run, Stage, write_whole
from jobs.contenders import Contender, candidate, serving
from jobs.publish_model import status_of
from validation.report import ReportData, Scores, Training, render

GATED = ("gate", "calibrate", "evaluate", "publish_model", "score")  # stages that judge tables


def work(run: Run) -> Outcome:
    decided = run.counts_of("publish_model")
    path = write_report(run, *((status_of(decided), "warning") if decided.get("refused") else ("done", "good")))
    return Outcome((), {}, str(path))


def write_report(run: Run, status: str, level: Any) -> Path:
    """Write `report.html` and return its path."""
    return write_whole(run.run_dir / "report.html", render(data_of(run, status, level)))


def data_of(run: Run, status: str, level: Any) -> ReportData:
    """What the ledger and the tables hold of this night; a stage that was not reached leaves its part empty."""
    conf, night, made = run.conf, run.night, run.counts_of("train")
    gates = {stage: counts for stage in GATED if (counts := run.counts_of(stage)).get("docs")}
    findings = [finding for counts in gates.values() for finding in counts["findings"]]
    if level == "good" and any(not finding["success"] for finding in findings):
        level, status = "warning", f"{status}, with warnings of the gate"
    shown, decided = shown_model(run), run.counts_of("publish_model")
    fitted = calibrator_of(run, shown)
    metrics = night_rows(run, METRICS, shown)
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
        stages=run.records,
        account=run.counts_of("ingest").get("account", []),
        findings=findings,
        docs={stage: os.path.relpath(counts["docs"], run.run_dir) for stage, counts in gates.items()},
        training=training_of(made) if made else None,
        fit_days=f"{shown.fit_from(run)} to {night.calibrate_to}" if fitted and shown else "",
        shown=shown.model if shown else "",
        decision=decided if "verdict" in decided else None,
        calibrator=fitted,
        judged_positives=conf.publication.min_positives,
        min_positives=conf.calibration.min_positives,
        metrics=metrics,
        reliability=night_rows(run, CALIBRATION_DAILY, shown),
        segments=night_rows(run, CALIBRATION_SEGMENTS, shown),
        scores=scores_of(run),
    )


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


def night_rows(run: Run, table: Table, shown: Contender | None) -> list[dict[str, Any]]:
    """This night's rows of the model that is shown."""
    day, model = run.night.day, shown.model if shown else ""
    return [row.asDict() for row in read_days(run.spark, run.conf.workdir, table, day, day).where(F.col("model") == model).collect()]


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
            within = f", so a ratio is uncertain by {1.96 / row['positives'] ** 0.5:.0%}" if row["positives"] else ""
            notes.append(f"The held-out day has only {row['positives']:,} positives of {row['head']} in {row['rows']:,} rows{within}.")
    return notes


def scores_of(run: Run) -> Scores | None:
    counts = run.counts_of("score")
    if not counts:
        return None
    order = {name: counts[name] for name in OrderChange._fields if name in counts}
    conf, day = run.conf, run.night.scored
    table = schemas.scores(conf)
    heads = [F.avg(f"p_{head}").alias(head) for head in conf.heads]
    rows = read_days(run.spark, conf.workdir, table, day, day)
    found = (
        rows.groupBy("source")
        .agg(F.count(F.lit(1)).alias("rows"), F.min("utility").alias("low"), F.max("utility").alias("high"), *heads)
        .collect()
    )
    total = sum(row["rows"] for row in found)
    mean_p = {head: sum(row[head] * row["rows"] for row in found) / total for head in conf.heads}
    utility = (min(row["low"] for row in found), max(row["high"] for row in found))
    by_source = {row["source"]: row["rows"] for row in sorted(found, key=lambda row: row["source"])}
    return Scores(day.isoformat(), table_path(conf.workdir, table.name), by_source, mean_p, utility, **order)


# The page says how this run went, so it is written anew by every run.
STAGE = Stage(name="report", packages=("etl", "validation"), reads=lambda conf: [], inputs=lambda run: {"run": run.run_id}, work=work)
