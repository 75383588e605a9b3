"""The night's model becomes the current one, in the registry. A stage of jobs/nightly.py.

Every candidate is published; comparing it with production first is what the verdict column is for.
"""

from __future__ import annotations

from datetime import date

from etl.registry import calibrator_file, publish, register
from etl.schemas import MODELS, RUNS
from jobs.calibrate import candidate
from jobs.common import Outcome, Run, Stage
from jobs.gate import judged_alone, of_this_night


def inputs(run: Run) -> dict[str, str]:
    chosen = candidate(run)
    day = run.night.day
    file = run.contents.of_file(calibrator_file(chosen.model, day))
    return {"model": chosen.model} | file | run.contents.of_days("metrics", day, day)


def work(run: Run) -> Outcome:
    chosen, made, day = candidate(run), run.counts_of("train"), run.night.day
    row = {
        "model": chosen.model,
        "parent": made["parent"],
        "trained_from": date.fromisoformat(made["trained_from"]),
        "trained_to": chosen.trained_to,
        "verdict": "publish",
        "reason": "published without a comparison: every candidate that reached this stage is",
        "examples_version": made["examples_version"],
        "path": f"models/{chosen.model}",
    }
    register(run.spark, run.conf, day, run.run_id, row)
    judged = judged_alone(run, of_this_night(run, MODELS), of_this_night(run, RUNS))
    publish(run.spark, run.conf, day, run.run_id, "model", chosen.model)
    return Outcome((f"models/{day}", f"publications/{day}"), judged, f"model {chosen.model} is current")


STAGE = Stage(name="publish_model", packages=("etl", "validation"), reads=lambda conf: [], inputs=inputs, work=work)
