"""impressions, engagements, users, ads -> examples: features as known then, labels with windows and masks. A stage of jobs/nightly.py."""

from __future__ import annotations

from datetime import date

from pyspark.sql import functions as F

from etl import schemas
from etl.entities import first_state_day, with_entity
from etl.labels import with_labels
from etl.schemas import ENGAGEMENTS
from etl.splits import days_between
from etl.tables import overwrite_days, read_days
from jobs.common import VALIDATION, NotYet, Outcome, Run, Stage, StageFailed


def bounds(run: Run) -> tuple[date, date]:
    """First and last day to build: those of the range, less what a later night built, from the first day that has impressions."""
    last = run.last_writable("build_examples", "examples")
    days = [name.split("/")[1] for name in run.contents.of_days("impressions", run.first, last)]
    return (date.fromisoformat(min(days)) if days else run.first), last


def inputs(run: Run) -> dict[str, str]:
    first, last = bounds(run)
    found = run.contents.of_days("impressions", first, last) | run.contents.of_days("engagements", first, run.night.day)
    for table in ("users", "ads"):
        found |= run.contents.of_days(table, first_state_day(first, run.conf), last)
    return found


def work(run: Run) -> Outcome:
    conf, spark = run.conf, run.spark
    first, last = bounds(run)
    if first > last:
        raise NotYet("a later night built these days")
    examples = schemas.examples(conf)
    impressions = read_days(spark, conf.workdir, schemas.impressions(conf), first, last)
    engagements = read_days(spark, conf.workdir, ENGAGEMENTS, first, run.night.day)
    rows = with_labels(impressions, engagements, conf, run.night.day)
    for family in ("user", "ad"):
        states = read_days(spark, conf.workdir, schemas.entity(conf, family), first_state_day(first, conf), last)
        rows = with_entity(rows, states, conf, family, first, last, F.col("shown_at"))
    overwrite_days(rows, conf.workdir, examples, first, last)
    made = run.contents.of_days("examples", first, last)
    require_balance(run, first, last, made)
    count = sum(int(value.split(":")[0]) for value in made.values())
    outputs = tuple(f"examples/{day}" for day in days_between(first, last))
    return Outcome(
        outputs,
        {"rows": count, "first": first, "last": last},
        f"{count:,} examples of {first} to {last}; labels are final up to {min(last, run.night.held_out)}",
    )


def require_balance(run: Run, first: date, last: date, made: dict[str, str]) -> None:
    """One example an impression, day by day."""
    shown = run.contents.of_days("impressions", first, last)
    for day in days_between(first, last):
        before, after = shown.get(f"impressions/{day}", "0:").split(":")[0], made.get(f"examples/{day}", "0:").split(":")[0]
        if before != after:
            raise StageFailed(f"{day}: {before} impressions became {after} examples; one each is promised", VALIDATION)


STAGE = Stage(
    name="build_examples",
    packages=("etl",),
    reads=lambda conf: [conf.model_dump(mode="json", include={"heads", "clock", "template"})],
    inputs=inputs,
    work=work,
)
