"""examples of the training days -> a snapshot of one Delta version -> a model. A stage of jobs/nightly.py.

Cold: the last `clock.train_days` days up to M-2. Warm: the published model's weights, trained on the days after its training end up to M-2;
where none of these days has rows, cold.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from conf.schema import Conf
from etl import schemas
from etl.registry import checkpoints_dir, model_dir, published_before, tensorboard_dir
from etl.runs import code_hash, fingerprint
from etl.snapshot import write_snapshot
from etl.splits import ONE_DAY, first_training_night
from etl.tables import pin, read_days
from jobs.common import AGAIN, TRAINING, USAGE, NotYet, Outcome, Run, Stage, StageFailed
from models.errors import RanksLost, SlotsMissing, TrainingFailed
from models.tracking import Record, tell_mlflow
from models.trainer import TrainRequest, TrainResult, train

PACKAGES = ("etl", "models")


@dataclass(frozen=True)
class Plan:
    """What a night trains on, and from which model it starts (None: from nothing)."""

    first: date
    last: date
    parent: str | None


def plan(run: Run) -> Plan:
    """The training days of this night; NotYet, naming the night that will train, while there are none."""
    night = run.night
    published = published_before(run.spark, run.conf, night.day) if run.conf.training.warm_start else None
    if published and published.trained_to < night.train_to and (model_dir(run.conf, published.model) / "bundle.json").is_file():
        first = published.trained_to + ONE_DAY
        if run.contents.of_days("examples", first, night.train_to):
            return Plan(first, night.train_to, published.model)
    days = [name.split("/")[1] for name in run.contents.of_days("examples", night.train_from, night.train_to)]
    if not days:
        known = run.contents.of_days("examples", night.train_from, night.day)
        first = min((date.fromisoformat(name.split("/")[1]) for name in known), default=night.day)
        begins = first_training_night(first, run.conf)
        raise NotYet(f"no day to train on yet: it needs labels of {night.train_to} or earlier; the night of {begins} will train")
    return Plan(date.fromisoformat(min(days)), night.train_to, None)


def inputs(run: Run) -> dict[str, str]:
    chosen = plan(run)
    return run.contents.of_days("examples", chosen.first, chosen.last) | {"parent": chosen.parent or "none"}


def reads(conf: Conf) -> dict[str, Any]:
    # Without `tracking`, ranks and timeouts: a training killed on two ranks goes on as the same model on one.
    settings = conf.model_dump(mode="json", include={"heads", "template", "model", "sampling", "seed"})
    return settings | {"training": conf.training.deciding, "clock": {"train_days": conf.clock.train_days}}


def work(run: Run) -> Outcome:
    chosen = plan(run)
    model = fingerprint(inputs(run), reads(run.conf), code_hash("conf", *PACKAGES))
    bundle = model_dir(run.conf, model)
    made = {"model": model, "parent": chosen.parent, "trained_from": chosen.first.isoformat(), "trained_to": chosen.last.isoformat()}
    snapshot = Path(run.conf.workdir).resolve() / "snapshots" / model
    version, rows = write_training_snapshot(run, chosen, snapshot)
    result = fit(run.conf, chosen, model, bundle, snapshot)
    if run.conf.tracking.mlflow_uri:
        tell_mlflow(record_of(run.conf, chosen, result), run.conf.tracking.mlflow_seconds)
    for folder in (snapshot, checkpoints_dir(run.conf, model)):
        forget_others(folder)
    counts = made | {
        "examples_version": version,
        "code": code_hash("conf", *PACKAGES),
        "distribution": metadata.version("adtower"),
        "rows": rows,
        "epochs": result.rows // max(rows, 1),
        "loss": result.loss,
        "ratio": result.ratio,
        "rows_per_second": round(result.rows_per_second),
        "seconds": round(result.seconds, 1),
        "ranks": result.ranks,
        "carried": len(result.carried),
        "fresh": result.fresh,
    }
    start = f"from {chosen.parent}" if chosen.parent else "from nothing"
    days = f"{chosen.first} to {chosen.last}"
    message = f"model {model} {start} on {rows:,} rows of {days}, {result.ranks} ranks, {result.rows_per_second:,.0f} rows/s"
    return Outcome((f"models/{model}/bundle.json",), counts, message)


def write_training_snapshot(run: Run, chosen: Plan, directory: Path) -> tuple[int, int]:
    """The training days of one pinned version of `examples`, as Petastorm reads them; the version and the number of rows."""
    table = schemas.examples(run.conf)
    source = pin(run.spark, run.conf.workdir, table)
    rows = read_days(run.spark, run.conf.workdir, table, chosen.first, chosen.last, source.version)
    manifest = write_snapshot(
        rows, run.conf, directory, examples_version=source.version, table_id=source.table_id, days=(chosen.first, chosen.last)
    )
    return source.version, int(manifest["rows"])


def fit(conf: Conf, chosen: Plan, model: str, bundle: Path, snapshot: Path) -> TrainResult:
    request = TrainRequest(
        snapshot=str(snapshot),
        bundle_dir=str(bundle),
        model_id=model,
        model=conf.model,
        training=conf.training,
        epochs=conf.training.warm_epochs if chosen.parent else conf.training.epochs,
        seed=conf.seed,
        parent=str(model_dir(conf, chosen.parent)) if chosen.parent else None,
        checkpoints=str(checkpoints_dir(conf, model)),
        tensorboard=str(tensorboard_dir(conf, model)) if conf.tracking.tensorboard else None,
    )
    try:
        return train(request)
    except SlotsMissing as error:
        raise StageFailed(str(error), USAGE) from error
    except RanksLost as error:
        raise StageFailed(str(error), AGAIN) from error
    except TrainingFailed as error:
        raise StageFailed(str(error), TRAINING) from error


def record_of(conf: Conf, chosen: Plan, result: TrainResult) -> Record:
    """What MLflow is told: all that decided, and what came of it."""
    parameters: dict[str, object] = {
        "parent": chosen.parent or "none",
        "trained_from": chosen.first,
        "trained_to": chosen.last,
        "seed": conf.seed,
        "ranks": result.ranks,
        "left_out": ", ".join(result.left_out) or "none",
    }
    for block, knobs in (("model", conf.model.model_dump(mode="json")), ("training", conf.training.deciding)):
        parameters |= {f"{block}.{name}": value for name, value in knobs.items()}
    figures = {f"loss/{head}": loss for head, loss in result.loss.items()} | {
        f"ratio/{head}": ratio for head, ratio in result.ratio.items()
    }
    figures |= {"rows": result.rows, "steps": result.steps, "seconds": result.seconds, "rows_per_second": result.rows_per_second}
    return Record(
        conf.tracking.mlflow_uri,
        experiment=f"adtower-{conf.name}",
        name=result.model_id,
        bundle_dir=result.bundle_dir,
        artifacts=str(Path(conf.workdir).resolve() / "mlflow"),
        parameters={name: str(value) for name, value in parameters.items()},
        figures=figures,
    )


def forget_others(kept: Path) -> None:
    """Of the folders beside `kept`: a snapshot can be made again from its Delta version, checkpoints of an abandoned model are no use."""
    for folder in kept.parent.glob("*"):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)


STAGE = Stage(name="train", packages=PACKAGES, reads=reads, inputs=inputs, work=work)
