"""Models and publications: which model and which scored day are current. What is current is the newest night's row, so an older night
that is run again never moves it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl.schemas import MODELS, PUBLICATIONS
from etl.tables import frame_of, overwrite_days, read


@dataclass(frozen=True)
class Registered:
    """A registered model: its id and what it was trained on."""

    model: str
    trained_from: date
    trained_to: date


def model_dir(conf: Conf, model: str) -> Path:
    return Path(conf.workdir).resolve() / "models" / model


def checkpoints_dir(conf: Conf, model: str) -> Path:
    """Where a model that is being trained keeps its checkpoints; gone once its bundle is there."""
    return Path(conf.workdir).resolve() / "checkpoints" / model


def tensorboard_dir(conf: Conf, model: str) -> Path:
    """The curves of a model's training; they stay, so that nights can be laid side by side."""
    return Path(conf.workdir).resolve() / "tensorboard" / model


def calibrator_file(model: str, day: date) -> str:
    """The calibrator fitted by the night of `day`, relative to the working folder."""
    return f"models/{model}/calibrators/{day.isoformat()}.json"


def card_file(model: str, day: date) -> str:
    """The model card written by the night of `day`, relative to the working folder, without its ending (.json, .md)."""
    return f"models/{model}/cards/{day.isoformat()}"


def published_before(spark: SparkSession, conf: Conf, day: date) -> Registered | None:
    """The model that was current when the night of `day` began; the same answer when that night is run again."""
    current = read(spark, conf.workdir, PUBLICATIONS).where((F.col("what") == "model") & (F.col("day") < F.lit(day)))
    row = current.orderBy(F.col("day").desc()).select("model").first()
    return registered(spark, conf, row["model"]) if row else None


def registered(spark: SparkSession, conf: Conf, model: str) -> Registered | None:
    """A model that was a night's candidate, whatever its verdict; None of an id that never was."""
    rows = read(spark, conf.workdir, MODELS).where(F.col("model") == model).orderBy("day")
    row = rows.select("model", "trained_from", "trained_to").first()
    return Registered(row["model"], row["trained_from"], row["trained_to"]) if row else None


def last_published_day(spark: SparkSession, conf: Conf) -> date | None:
    """The newest night that published a model."""
    row = read(spark, conf.workdir, PUBLICATIONS).where("what = 'model'").agg(F.max("day")).first()
    return row[0] if row else None


def ordered(spark: SparkSession, conf: Conf, day: date) -> str | None:
    """The model that a person ordered to serve from the night of `day` on (jobs/rollback.py)."""
    row = read(spark, conf.workdir, PUBLICATIONS).where((F.col("what") == "rollback") & (F.col("day") == F.lit(day))).first()
    return row["model"] if row else None


def register(spark: SparkSession, conf: Conf, day: date, run_id: str, row: dict[str, object]) -> None:
    """Write the night's candidate with its verdict."""
    frame = frame_of(spark, [{**row, "run_id": run_id, "day": day}], MODELS)
    overwrite_days(frame, conf.workdir, MODELS, day, day)


def publish(spark: SparkSession, conf: Conf, day: date, run_id: str, what: str, model: str | None, scored_day: date | None = None) -> None:
    """Flip what is current; the last thing a stage does. Without a model the night leaves what was current before it."""
    row = {"what": what, "model": model, "scored_day": scored_day, "published_at": datetime.now(UTC), "run_id": run_id, "day": day}
    frame = frame_of(spark, [row] if model else [], PUBLICATIONS)
    overwrite_days(frame, conf.workdir, PUBLICATIONS, day, day, also={"what": what})
