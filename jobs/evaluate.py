"""The held-out day by candidate and production, before and after calibration -> `metrics` and `calibration_daily`. A stage of jobs/nightly.py.

A child head stands for p(child | parent), on rows whose parent's label is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from etl.calibrated import STAGES, in_both_stages
from etl.calibration_stats import binned
from etl.registry import calibrator_file
from etl.schemas import ALL, CALIBRATION_DAILY, METRICS
from etl.tables import frame_of, overwrite_days
from jobs.calibrate import served_by
from jobs.common import Outcome, Run, Stage
from jobs.contenders import candidate, contenders
from jobs.gate import judged_alone, of_this_night
from models import metrics
from models.metrics import Bins


def inputs(run: Run) -> dict[str, str]:
    held_out = run.night.held_out
    found: dict[str, str] = {}
    for one in contenders(run):
        found |= run.contents.of_days("served", held_out, held_out, one.model) | run.contents.of_file(
            calibrator_file(one.model, run.night.day)
        )
    return found


def work(run: Run) -> Outcome:
    conf, day, held_out, groups = run.conf, run.night.day, run.night.held_out, run.conf.calibration.ece_bins
    found, diagram = [], []
    for one in contenders(run):
        stamp = {"model": one.model, "measured_day": held_out, "run_id": run.run_id, "day": day}
        rows = in_both_stages(served_by(run, one.model, held_out, held_out), conf.heads, one.calibrator(run).by_cell)
        counted = binned(rows, conf.heads, by=("stage", "tower", "source"))
        found += [stamp | row for row in metric_rows(counted, groups)]
        diagram += [stamp | row for row in reliability_rows(counted, groups)]
    overwrite_days(frame_of(run.spark, found, METRICS), conf.workdir, METRICS, day, day)
    overwrite_days(frame_of(run.spark, diagram, CALIBRATION_DAILY), conf.workdir, CALIBRATION_DAILY, day, day)
    judged = judged_alone(run, of_this_night(run, METRICS), of_this_night(run, CALIBRATION_DAILY))
    newest = [row for row in found if row["model"] == candidate(run).model]
    overall = {row["head"]: row for row in newest if row["stage"] == "calibrated" and row["source"] == row["tower"] == ALL}
    told = ", ".join(
        f"{head} NE {row['ne']:.3f} AUC {row['auc']:.3f}"
        for head, row in overall.items()
        if row["ne"] is not None and row["auc"] is not None
    )
    return Outcome((f"metrics/{day}", f"calibration_daily/{day}"), judged, f"held-out {held_out}: {told or 'no head has both classes'}")


def slices(counted: pd.DataFrame) -> Iterator[tuple[dict[str, str], Bins]]:
    """(head, source, tower and stage, bins): of everything, of each source, of each tower, before and after calibration."""
    for head, rows in counted.groupby("head", sort=False):
        parts = [(ALL, ALL, rows)]
        parts += [(str(source), ALL, part) for source, part in rows.groupby("source")]
        parts += [(ALL, str(tower), part) for tower, part in rows.groupby("tower")]
        for source, tower, part in parts:
            for stage in STAGES:
                of = part[part["stage"] == stage]
                bins = Bins.of((of["z_sum"] / of["rows"]).to_numpy(), of["rows"].to_numpy(), of["positives"].to_numpy())
                yield {"head": str(head), "source": source, "tower": tower, "stage": stage}, bins


def metric_rows(counted: pd.DataFrame, groups: int) -> Iterator[dict[str, Any]]:
    for names, bins in slices(counted):
        yield {
            **names,
            "rows": int(bins.rows.sum()),
            "positives": int(bins.positives.sum()),
            "predicted": metrics.predicted(bins),
            "ratio": metrics.ratio(bins),
            "ne": metrics.normalized_entropy(bins),
            "auc": metrics.auc(bins),
            "ece": metrics.ece_equal_mass(bins, groups),
        }


def reliability_rows(counted: pd.DataFrame, groups: int) -> Iterator[dict[str, Any]]:
    for names, bins in slices(counted):
        if names["tower"] == ALL:
            continue
        diagram = metrics.reliability(bins, groups)
        for place, (count, predicted, observed) in enumerate(zip(*diagram, strict=True)):
            yield {
                "head": names["head"],
                "tower": names["tower"],
                "stage": names["stage"],
                "bin": place,
                "rows": int(count),
                "predicted": float(predicted),
                "observed": float(observed),
            }


STAGE = Stage(
    name="evaluate",
    packages=("etl", "models", "validation"),
    reads=lambda conf: [conf.model_dump(mode="json", include={"heads", "calibration"})],
    inputs=inputs,
    work=work,
)
