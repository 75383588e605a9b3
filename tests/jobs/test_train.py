"""Which days a night trains on, where some of them have no rows."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from etl import schemas
from etl.registry import model_dir, publish, register
from etl.splits import Night
from etl.tables import create_table, overwrite_days
from jobs.common import NotYet, Run, open_run
from jobs.nightly import configured, options
from jobs.train import Plan, plan
from tests.jobs.nights import ROOT, day
from tests.small import rows, small_conf


def on(number: int) -> date:
    return date.fromisoformat(day(number))


def night_of(spark: SparkSession, workdir: Path, number: int) -> Run:
    """The night of that day; it trains up to five days before."""
    conf = small_conf(str(workdir))
    return open_run(spark, conf, Night.of(on(number), conf), on(number))


def published(run: Run, night: int, trained_to: int) -> None:
    """A model of that name, current from the night on."""
    model = {"model": f"m{night}", "parent": None, "trained_from": on(1), "trained_to": on(trained_to), "verdict": "publish"}
    register(run.spark, run.conf, on(night), "run", {**model, "reason": "", "examples_version": 1, "path": f"models/m{night}"})
    publish(run.spark, run.conf, on(night), "run", "model", f"m{night}")
    model_dir(run.conf, f"m{night}").mkdir(parents=True)
    (model_dir(run.conf, f"m{night}") / "bundle.json").write_text("{}")


def test_days_without_rows_are_passed_over_and_a_night_without_any_says_when_there_will_be(spark: SparkSession, tmp_path: Path) -> None:
    table = schemas.examples(small_conf())
    for one in (table, schemas.MODELS, schemas.PUBLICATIONS, schemas.RUNS):
        create_table(spark, tmp_path, one)
    run = night_of(spark, tmp_path, 15)
    made = rows(spark, table, [{"impression_id": f"i{number}", "day": on(number)} for number in (3, 5)])
    overwrite_days(made, run.conf.workdir, table, on(1), on(10))

    assert plan(run) == Plan(on(3), on(10), None)
    with pytest.raises(NotYet, match=f"needs labels of {day(2)} or earlier; the night of {day(8)} will train"):
        plan(night_of(spark, tmp_path, 7))
    published(run, night=13, trained_to=4)
    assert plan(run) == Plan(on(5), on(10), "m13")
    published(run, night=14, trained_to=9)  # nothing is new since this one: day 10 has no rows
    assert plan(run) == Plan(on(3), on(10), None)


def test_a_night_can_be_told_to_train_from_nothing() -> None:
    given = ["--conf-file", str(ROOT / "conf" / "tiny.yaml"), "--day", day(7)]
    warm, full = (configured(options().parse_args(given + more)) for more in ([], ["--full"]))
    assert warm.training.warm_start and not full.training.warm_start
    assert full.training == warm.training.model_copy(update={"warm_start": False})
