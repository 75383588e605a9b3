"""impressions, engagements, users, ads -> examples: features as known then, labels with windows and masks. A stage of jobs/nightly.py."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from etl import schemas
from etl.entities import first_state_day, with_entity
from etl.history import daily_counts, first_history_day, first_impression_day, wanted, with_history
from etl.labels import too_late, with_labels
from etl.schemas import ENGAGEMENTS
from etl.splits import ONE_DAY, days_between
from etl.tables import overwrite_days, read_days
from jobs.common import VALIDATION, NotYet, Outcome, Run, Stage, StageFailed


def bounds(run: Run) -> tuple[date, date]:
    """First and last day to build: those of the range, less what a later night built, from the first day that has impressions."""
    last = run.last_writable("build_examples", "examples")
    days = [name.split("/")[1] for name in run.contents.of_days("impressions", run.first, last)]
    return (date.fromisoformat(min(days)) if days else run.first), last


def inputs(run: Run) -> dict[str, str]:
    first, last = bounds(run)
    found = run.contents.of_days("impressions", first, shown_to(run, last))
    found |= run.contents.of_days("engagements", first_engagement_day(run, first), run.night.day)
    for table in ("users", "ads"):
        found |= run.contents.of_days(table, first_state_day(first, run.conf), last)
    if wanted(run.conf):
        found |= run.contents.of_days("examples", first_impression_day(first, run.conf), first - ONE_DAY)
        found |= run.contents.of_days("history", first_history_day(first, run.conf), first - ONE_DAY)
    return found


def shown_to(run: Run, last: date) -> date:
    """Last day of impressions to look at: by last touch, one that a later night built may take the credit for an engagement."""
    return run.night.day if any(head.attribution == "last_touch" for head in run.conf.heads.values()) else last


def first_engagement_day(run: Run, first: date) -> date:
    return first_impression_day(first, run.conf) if wanted(run.conf) else first


def work(run: Run) -> Outcome:
    conf, spark = run.conf, run.spark
    first, last = bounds(run)
    if first > last:
        raise NotYet("a later night built these days")
    impressions = read_days(spark, conf.workdir, schemas.impressions(conf), first, shown_to(run, last))
    engagements = read_days(spark, conf.workdir, ENGAGEMENTS, first_engagement_day(run, first), run.night.day)
    rows = with_labels(impressions, engagements, conf, run.night.day).where(F.col("day") <= F.lit(last))
    for family in ("user", "ad"):
        states = read_days(spark, conf.workdir, schemas.entity(conf, family), first_state_day(first, conf), last)
        rows = with_entity(rows, states, conf, family, first, last, F.col("shown_at"))
    if not wanted(conf):
        overwrite_days(rows, conf.workdir, schemas.examples(conf), first, last)
    else:
        write_with_history(run, rows.persist(), engagements, first, last)
    made = run.contents.of_days("examples", first, last)
    require_balance(run, first, last, made)
    count = sum(int(value.split(":")[0]) for value in made.values())
    late = late_engagements(run)
    tables = ("examples", "history") if wanted(conf) else ("examples",)
    told = f"{count:,} examples of {first} to {last}; labels are final up to {min(last, run.night.held_out)}"
    return Outcome(
        tuple(f"{table}/{day}" for table in tables for day in days_between(first, last)),
        {"rows": count, "first": first, "last": last, "too_late": late},
        told + (f"; {sum(late.values()):,} engagements came too late to count" if late else ""),
    )


def write_with_history(run: Run, rows: DataFrame, engagements: DataFrame, first: date, last: date) -> None:
    """The days' counts -> `history`; the rows, with the counts of the days before each -> `examples`. `rows` are cached, and let go."""
    conf, spark, examples, history = run.conf, run.spark, schemas.examples(run.conf), schemas.history(run.conf)
    try:
        # Earlier examples bear the same keys: what is engaged with today may have been shown before `first`.
        earlier = read_days(spark, conf.workdir, examples, first_impression_day(first, conf), first - ONE_DAY)
        shown = rows.unionByName(earlier.select(*rows.columns))
        overwrite_days(daily_counts(shown, engagements, conf, first, last), conf.workdir, history, first, last)
        known = read_days(spark, conf.workdir, history, first_history_day(first, conf), last - ONE_DAY)
        overwrite_days(with_history(rows, known, conf, first, last), conf.workdir, examples, first, last)
    finally:
        rows.unpersist()


def late_engagements(run: Run) -> dict[str, int]:
    """Source -> engagements received on the asked days, too late for any label."""
    received = read_days(run.spark, run.conf.workdir, ENGAGEMENTS, run.asked, run.night.day)
    counted = too_late(received, run.conf).groupBy("source").count().collect()
    return {row["source"]: row["count"] for row in sorted(counted)}


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
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "clock", "template", "history"}),
    inputs=inputs,
    work=work,
)
