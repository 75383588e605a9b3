"""Another model serves, from the newest night on: the one before it, or the one named. Its calibrator is of that night, and the scores are made anew.

python jobs/rollback.py --conf-file conf/demo.yaml
python jobs/rollback.py --conf-file conf/demo.yaml --to 3f0c9a7be1d24c55

Writes the order into `publications`, then runs that night's last stages again: publish_model, score, report. The order stands above the gate's
verdict whenever the night is run again; the next night trains from the model that serves and is judged beside it. `--to` the newer model
takes a rollback back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.registry import last_published_day, publish, published_before, registered
from etl.session import start
from etl.tables import TableError, create_tables
from jobs import publish_model, report, score
from jobs.common import Outcome, Run, Stage, conf_of, main, parser
from jobs.nightly import run_night


def rollback(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--to", help="id of the model that is to serve; the one that was current before the newest night, if not given")
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    spark = start(conf.spark, f"adtower {conf.name} rollback")
    try:
        create_tables(spark, conf)
        day, model = night_and_model(spark, conf, arguments.to)
        return run_night(spark, conf, day, day, stages(model))
    finally:
        spark.stop()


def night_and_model(spark: SparkSession, conf: Conf, asked: str | None) -> tuple[date, str]:
    """The newest night that published, and the model to serve from it on; TableError where there is none."""
    day = last_published_day(spark, conf)
    if day is None:
        raise TableError("no night has published a model yet; there is nothing to go back from")
    if asked:
        if registered(spark, conf, asked) is None:
            raise TableError(f"no night has registered a model {asked}; the table models lists those that can serve")
        return day, asked
    before = published_before(spark, conf, day)
    if before is None:
        raise TableError(f"no model was current before the night of {day}; name one with --to")
    return day, before.model


def stages(model: str) -> tuple[Stage, ...]:
    """Write down which model is to serve, then what follows from it."""

    def work(run: Run) -> Outcome:
        publish(run.spark, run.conf, run.night.day, run.run_id, "rollback", model)
        return Outcome(
            (f"publications/{run.night.day}",), {"model": model}, f"model {model} is to serve from the night of {run.night.day} on"
        )

    order = Stage("rollback", packages=(), reads=lambda conf: {}, inputs=lambda run: {"model": model, "run": run.run_id}, work=work)
    return order, publish_model.STAGE, score.STAGE, report.STAGE


if __name__ == "__main__":
    main(rollback)
