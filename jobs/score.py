"""The next day's inventory, scored and calibrated by the model that serves -> `scores`, then published. A stage of jobs/nightly.py."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from pyspark.errors import PythonException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.template import Template
from etl import schemas
from etl.candidates import with_features
from etl.entities import first_state_day
from etl.history import first_history_day, wanted
from etl.landing import InputMissing, pattern
from etl.order_change import order_change
from etl.registry import calibrator_file, publish
from etl.runs import fingerprint
from etl.scores import ScoringError, score_inventory
from etl.tables import overwrite_days, pin, read_days
from jobs.common import SCORING, Outcome, Run, Stage, StageFailed
from jobs.contenders import Contender, candidate, serving
from jobs.gate import judged_alone, of_this_night
from models.bundle import read_meta
from models.calibration import Calibrator
from models.logs import named
from models.predictor import predict_probabilities
from validation.gate import Judged


def inputs(run: Run) -> dict[str, str]:
    scored = run.night.scored
    found = {"models": ", ".join(one.model for one in scorers(run))}
    for one in scorers(run):
        found |= run.contents.of_file(calibrator_file(one.model, run.night.day))
    for table in ("users", "ads"):
        found |= run.contents.of_days(table, first_state_day(scored, run.conf), run.night.day)
    if wanted(run.conf):
        found |= run.contents.of_days("history", first_history_day(scored, run.conf), run.night.day)
    return found | run.contents.of_days("inventory", scored, scored)


def scorers(run: Run) -> list[Contender]:
    """The model that serves, and where asked for the candidate that does not."""
    first, other = serving(run), candidate(run)
    return [first, other] if run.conf.publication.challenger and other != first else [first]


def work(run: Run) -> Outcome:
    conf, day, scored = run.conf, run.night.day, run.night.scored
    rows, version = inventory_rows(run)
    serves, *others = scorers(run)
    score_with(run, serves, rows, version, schemas.scores(conf))
    count, table = require_balance(run), schemas.scores(conf)
    written = read_days(run.spark, conf.workdir, table, scored, scored)
    features = sampled(rows, count, conf.gate.skew_rows)
    judged = judged_alone(
        run, Judged(table, written, scored, scored, usual=False, features=features), of_this_night(run, schemas.PUBLICATIONS)
    )
    for challenger in others:
        score_with(run, challenger, rows, version, schemas.challenger_scores(conf))
    publish(run.spark, conf, day, run.run_id, "scores", serves.model, scored)
    outputs = (f"scores/{scored}", f"publications/{day}", *(f"challenger_scores/{scored}" for _ in others))
    beside = "".join(f", and by the challenger {one.model}" for one in others)
    counts = {"rows": count, "scored": scored.isoformat(), "model": serves.model, **order_change(written, conf.heads)._asdict(), **judged}
    return Outcome(outputs, counts, f"{count:,} rows of {scored} scored by {serves.model}{beside}")


def inventory_rows(run: Run) -> tuple[DataFrame, int]:
    """The day's candidates with the features known for them, and the version of `inventory` that they come from."""
    conf, spark, scored = run.conf, run.spark, run.night.scored
    table = schemas.inventory(conf)
    source = pin(spark, conf.workdir, table)
    rows = read_days(spark, conf.workdir, table, scored, scored, source.version)
    if rows.isEmpty():
        wanted = [pattern(conf, block, scored) for block in conf.sources.values() if block.kind == "inventory"]
        raise InputMissing(f"no inventory for {scored}; deliver {' or '.join(wanted) or 'one: no block of kind inventory is configured'}")
    return with_features(rows, spark, conf, scored, scored), source.version


def sampled(rows: DataFrame, count: int, wanted: int) -> DataFrame:
    """About `wanted` of the day's rows, the same ones each time: enough to see that scoring meets other values than training did."""
    of_a_million = round(1_000_000 * min(1.0, wanted / max(count, 1)))
    return rows.where(F.pmod(F.xxhash64(F.lit("skew"), "inventory_id"), F.lit(1_000_000)) < of_a_million)


def score_with(run: Run, one: Contender, rows: DataFrame, version: int, table: schemas.Table) -> None:
    """The day's rows by one model and its calibrator of this night, into `table`."""
    conf, bundle, calibrator = run.conf, one.bundle(run), one.calibrator_text(run)
    meta = read_meta(bundle)
    try:
        scores = score_inventory(
            rows,
            conf,
            Template.model_validate(meta["template"]),
            meta["towers"],
            named(partial(predict_probabilities, str(bundle), calibrator)),
            made_from={
                "model": one.model,
                "calibrator": fingerprint(calibrator),
                "inventory_version": version,
                "run_id": run.run_id,
                "scored_at": datetime.now(UTC),
            },
            segments=Calibrator.from_json(calibrator).values,
        )
        overwrite_days(scores, conf.workdir, table, run.night.scored, run.night.scored)
    except (PythonException, ScoringError) as error:
        raise StageFailed(str(error), SCORING) from error


def require_balance(run: Run) -> int:
    """Every inventory row is scored exactly once."""
    scored = run.night.scored
    counts = [
        int(next(iter(run.contents.of_days(table, scored, scored).values()), "0:").split(":")[0]) for table in ("inventory", "scores")
    ]
    if counts[0] != counts[1]:
        raise StageFailed(f"{scored}: {counts[0]} inventory rows became {counts[1]} scores; one each is promised", SCORING)
    return counts[1]


STAGE = Stage(
    name="score",
    packages=("etl", "models", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "template", "clock", "history", "publication"}),
    inputs=inputs,
    work=work,
)
