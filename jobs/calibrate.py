"""Candidate and production on later days -> `served`, and a calibrator for each, fitted on them. A stage of jobs/nightly.py.

A model is replayed on days after its training end, up to M. Fit rows are those up to M-1; M only reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import partial
from pathlib import Path
from typing import cast

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.template import Template
from etl import schemas
from etl.calibration_stats import binned, faded, segmented
from etl.registry import calibrator_file
from etl.scores import served_rows
from etl.splits import days_between
from etl.tables import overwrite_days, read_days
from jobs.common import Outcome, Run, Stage, write_whole
from jobs.contenders import Contender, candidate, contenders
from jobs.gate import judged_alone
from models.bundle import read_meta
from models.calibration import NO_SEGMENTS, Calibrator, Segments
from models.calibration_fit import Bin, fit_calibrator
from models.logs import named
from models.predictor import predict
from validation.gate import Judged

BY = ("tower", "day")


def inputs(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in contenders(run):
        found |= run.contents.of_file(f"models/{one.model}/bundle.json")
        found |= run.contents.of_days("examples", one.fit_from(run), run.night.held_out)
    return found


def work(run: Run) -> Outcome:
    chosen, held_out = contenders(run), run.night.held_out
    for one in chosen:
        replay(run, one)
    first, table = min(one.fit_from(run) for one in chosen), schemas.served(run.conf)
    rows = read_days(run.spark, run.conf.workdir, table, first, held_out).where(F.col("model").isin([one.model for one in chosen]))
    judged = judged_alone(run, Judged(table, rows, first, held_out, usual=False))
    fitted = {one.model: fit(run, one) for one in chosen}
    files = tuple(calibrator_file(one.model, run.night.day) for one in chosen)
    days = tuple(f"served@{one.model}/{day}" for one in chosen for day in days_between(one.fit_from(run), held_out))
    newest = candidate(run)
    return Outcome((*files, *days), judged, told(fitted[newest.model], newest.fit_from(run), run.night.calibrate_to))


def replay(run: Run, one: Contender) -> None:
    """What the model gives to the days that fit its calibrator, and to M."""
    conf, first, last = run.conf, one.fit_from(run), run.night.held_out
    meta = read_meta(one.bundle(run))
    template = Template.model_validate(meta["template"])
    examples = read_days(run.spark, conf.workdir, schemas.examples(conf), first, last)
    served = served_rows(examples, conf, template, meta["towers"], named(partial(predict, str(one.bundle(run)))), model_id=one.model)
    overwrite_days(served, conf.workdir, schemas.served(conf), first, last, also={"model": one.model})


def fit(run: Run, one: Contender) -> Calibrator:
    conf, how = run.conf, run.conf.calibration
    rows, segments = served_by(run, one.model, one.fit_from(run), run.night.calibrate_to), NO_SEGMENTS
    if how.method == "featured":
        bins, values = segmented(rows, conf.heads, how.features, how.segment_values, by=BY)
        segments = Segments(values, how.ridge)
    else:
        bins = binned(rows, conf.heads, BY)
    towers = read_meta(one.bundle(run))["towers"]
    found = cast(Iterable[Bin], faded(bins, run.night.calibrate_to, how.half_life_days).itertuples(index=False))
    calibrator = fit_calibrator(found, list(conf.heads), towers, how.min_positives, segments, how.pooling)
    write_whole(Path(conf.workdir).resolve() / calibrator_file(one.model, run.night.day), calibrator.to_json())
    return calibrator


def served_by(run: Run, model: str, first: date, last: date) -> DataFrame:
    """What `model` gave to days first..last."""
    rows = read_days(run.spark, run.conf.workdir, schemas.served(run.conf), first, last)
    return rows.where(rows["model"] == model)


def told(calibrator: Calibrator, first: date, last: date) -> str:
    # A head that does not apply to a tower has no rows there, and nothing to fit.
    cells = [cell for towers in calibrator.cells.values() for cell in towers.values() if cell.rows]
    fitted = sum(cell.method != "identity" for cell in cells)
    weights = f", with weights for values of {', '.join(calibrator.values)}" if calibrator.values else ""
    return f"{fitted} of {len(cells)} head x tower cells fitted on {first} to {last}{weights}, the others are the identity"


STAGE = Stage(
    name="calibrate",
    packages=("etl", "models", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "template", "calibration"}),
    inputs=inputs,
    work=work,
)
