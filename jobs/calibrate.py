"""The night's model on later days -> `served`, and a calibrator fitted on them. A stage of jobs/nightly.py.

The model is replayed on the days after its training end up to M. Fit rows are those up to M-1; M only reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import cast

from pyspark.sql import DataFrame

from etl import schemas
from etl.calibration_stats import binned
from etl.registry import calibrator_file, model_dir
from etl.scores import served_rows
from etl.splits import ONE_DAY, days_between
from etl.tables import overwrite_days, read_days
from jobs.common import NotYet, Outcome, Run, Stage, write_whole
from jobs.gate import judged_alone
from models.bundle import read_meta
from models.calibration import Bin, Calibrator, fit_calibrator
from models.predictor import predict
from validation.gate import Judged


@dataclass(frozen=True)
class Candidate:
    """The model that this night trained."""

    model: str
    trained_to: date

    @property
    def fit_from(self) -> date:
        return self.trained_to + ONE_DAY


def candidate(run: Run) -> Candidate:
    """NotYet where this night has no model."""
    made = run.counts_of("train")
    if not made:
        raise NotYet("no model yet")
    return Candidate(made["model"], date.fromisoformat(made["trained_to"]))


def inputs(run: Run) -> dict[str, str]:
    chosen = candidate(run)
    bundle = run.contents.of_file(f"models/{chosen.model}/bundle.json")
    return bundle | run.contents.of_days("examples", chosen.fit_from, run.night.held_out)


def work(run: Run) -> Outcome:
    conf, chosen, held_out = run.conf, candidate(run), run.night.held_out
    bundle = model_dir(conf, chosen.model)
    towers = read_meta(bundle)["towers"]
    examples = read_days(run.spark, conf.workdir, schemas.examples(conf), chosen.fit_from, held_out)
    served = served_rows(examples, conf, towers, partial(predict, str(bundle)), model_id=chosen.model)
    overwrite_days(served, conf.workdir, schemas.served(conf), chosen.fit_from, held_out, also={"model": chosen.model})
    table, rows = schemas.served(conf), served_by(run, chosen.model, chosen.fit_from, held_out)
    judged = judged_alone(run, Judged(table, rows, chosen.fit_from, held_out, usual=False))
    bins = binned(served_by(run, chosen.model, chosen.fit_from, run.night.calibrate_to), conf.heads)
    calibrator = fit_calibrator(cast(Iterable[Bin], bins.itertuples(index=False)), list(conf.heads), towers, conf.calibration.min_positives)
    file = calibrator_file(chosen.model, run.night.day)
    write_whole(Path(conf.workdir).resolve() / file, calibrator.to_json())
    outputs = (file, *(f"served@{chosen.model}/{day}" for day in days_between(chosen.fit_from, held_out)))
    return Outcome(outputs, {"calibrator": file, **judged}, told(calibrator, chosen.fit_from, run.night.calibrate_to))


def served_by(run: Run, model: str, first: date, last: date) -> DataFrame:
    """What `model` gave to days first..last."""
    rows = read_days(run.spark, run.conf.workdir, schemas.served(run.conf), first, last)
    return rows.where(rows["model"] == model)


def told(calibrator: Calibrator, first: date, last: date) -> str:
    # A head that does not apply to a tower has no rows there, and nothing to fit.
    cells = [cell for towers in calibrator.cells.values() for cell in towers.values() if cell.rows]
    fitted = sum(cell.method != "identity" for cell in cells)
    return f"{fitted} of {len(cells)} head x tower cells fitted on {first} to {last}, the others are the identity"


STAGE = Stage(
    name="calibrate",
    packages=("etl", "models", "validation"),
    reads=lambda conf: [conf.model_dump(mode="json", include={"heads", "template", "calibration"})],
    inputs=inputs,
    work=work,
)
