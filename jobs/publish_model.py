"""The candidate against production on the held-out day: a verdict, and the registry says which model serves. A stage of jobs/nightly.py.

Refused, or with too little data to tell, the night goes on with production and its new calibrator. A person's order (jobs/rollback.py) stands
above the verdict.
"""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from pyspark.sql import DataFrame

from conf.schema import Conf
from etl.calibrated import Cells
from etl.comparison import pair_bins, pair_sums, paired_rows, require_same_rows
from etl.registry import calibrator_file, ordered, publish, register, registered
from etl.schemas import MODELS, RUNS
from jobs.calibrate import fit, replay, served_by
from jobs.common import USAGE, Outcome, Run, Stage, StageFailed
from jobs.contenders import Contender, candidate, cannot_serve, contenders, production
from jobs.gate import judged_alone, of_this_night
from models.verdict import Decision, influence, judge


def inputs(run: Run) -> dict[str, str]:
    day, held_out = run.night.day, run.night.held_out
    found = {"order": ordered(run.spark, run.conf, day) or "none"} | run.contents.of_days("metrics", day, day)
    for one in contenders(run):
        found |= run.contents.of_file(calibrator_file(one.model, day)) | run.contents.of_days("served", held_out, held_out, one.model)
    return found


def work(run: Run) -> Outcome:
    chosen, beside, made, day = candidate(run), production(run), run.counts_of("train"), run.night.day
    decision, order = decide(run, chosen, beside.model), ordered(run.spark, run.conf, day)
    reason = decision.reason if beside.model else f"compared with none, since {beside.missing}: {decision.reason}"
    serves = by_order(run, order) if order else chosen if decision.verdict == "publish" else beside.model
    if order:
        reason += f"; by a person's order {order} serves"
    row = {
        "model": chosen.model,
        "parent": made["parent"],
        "trained_from": date.fromisoformat(made["trained_from"]),
        "trained_to": chosen.trained_to,
        "verdict": decision.verdict,
        "reason": reason,
        "production": beside.model.model if beside.model else None,
        "comparison": json.dumps(decision.numbers(), sort_keys=True),
        "examples_version": made["examples_version"],
        "path": f"models/{chosen.model}",
    }
    register(run.spark, run.conf, day, run.run_id, row)
    judged = judged_alone(run, of_this_night(run, MODELS), of_this_night(run, RUNS))
    publish(run.spark, run.conf, day, run.run_id, "model", serves.model if serves else None)
    counts = {
        "verdict": decision.verdict,
        "reason": reason,
        "production": row["production"],
        "serves": serves.model if serves else None,
        "trained_to": serves.trained_to.isoformat() if serves else None,
        "refused": decision.verdict == "refuse" and not order,
        **decision.numbers(),
        **judged,
    }
    return Outcome((f"models/{day}", f"publications/{day}"), counts, told(chosen, serves, decision, reason))


def decide(run: Run, chosen: Contender, beside: Contender | None) -> Decision:
    """The verdict, from what both gave to M, each through the calibrator that this night fitted."""
    held_out = run.night.held_out
    (ours, fitted), (theirs, beside_fitted) = (
        (served_by(run, one.model, held_out, held_out), one.calibrator(run).by_cell) for one in (chosen, beside or chosen)
    )
    return verdict_on(ours, theirs, (fitted, beside_fitted), run.conf, first=beside is None)


def verdict_on(ours: DataFrame, theirs: DataFrame, fitted: tuple[Cells, Cells], conf: Conf, *, first: bool = False) -> Decision:
    """The verdict on a candidate's rows of `served` beside production's of the same day; `first`: there is no production, both are the candidate's."""
    if not first:
        require_same_rows(ours, theirs)
    paired = paired_rows(ours, theirs, conf.heads, fitted).persist()
    try:
        bins = pair_bins(paired)
        return judge(pair_sums(paired, influence(bins)), bins, conf.publication, first=first)
    finally:
        paired.unpersist()


def by_order(run: Run, model: str) -> Contender:
    """The model that a person ordered; its calibrator is fitted now where this night did not fit one."""
    known = next((one for one in contenders(run) if one.model == model), None)
    if known:
        return known
    found = registered(run.spark, run.conf, model)
    if found is None:
        raise StageFailed(f"model {model} is ordered to serve, and no night has registered it", USAGE)
    if lacking := cannot_serve(found, run):
        raise StageFailed(f"model {model} is ordered to serve, but it {lacking}; name another with jobs/rollback.py --to", USAGE)
    chosen = Contender.of(found)
    replay(run, chosen)
    fit(run, chosen)
    return chosen


def told(chosen: Contender, serves: Contender | None, decision: Decision, reason: str) -> str:
    verdict = {"publish": "passes", "refuse": "is refused", "too little": "waits"}[decision.verdict]
    after = f"model {serves.model} serves" if serves else "no model serves"
    return f"{after}; candidate {chosen.model} {verdict}: {reason}"


def status_of(decided: dict[str, Any]) -> str:
    """What a refusal means for the night, in words; `decided`: what this stage counted."""
    after = f"model {decided['serves']} serves on" if decided["serves"] else "no model serves, nothing is scored"
    return f"candidate refused, {after}: {decided['reason']}"


STAGE = Stage(
    name="publish_model",
    packages=("etl", "models", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "publication"}),
    inputs=inputs,
    work=work,
)
