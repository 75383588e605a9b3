"""A source's landing files -> canonical rows, duplicates and broken rows told apart, every row accounted for.

Grain of `classified`: one row a line or record of the files. `verdict` is one of
  kept         the row goes to its table
  duplicate    a row with its key is kept already (the first received one; ties by content)
  quarantined  breaks a row rule, or could not be parsed (`unreadable`)
  late         received after the last night that rebuilds its day had closed
  not_due      received after as_of: a later night's row
  other_day    belongs to a day outside the range
rows in = kept + duplicate + quarantined, for each block and day; the other three are counted beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from conf.schema import Conf
from conf.source import Source
from etl.canonical import canonical
from etl.faults import without_faulty_file
from etl.landing import day_of
from etl.privacy import FORGOTTEN_REASON, is_forgotten
from etl.raw import Block
from etl.schemas import Table
from etl.splits import end_of
from validation.rules import Rule

#: Most of a broken row's text that the quarantine keeps, characters.
LONGEST_RAW = 65_536


def classified(
    spark: SparkSession,
    conf: Conf,
    blocks: Sequence[Block],
    table: Table,
    rules: Sequence[Rule],
    first: date,
    last: date,
    night: date,
    forgotten: DataFrame | None = None,
) -> DataFrame:
    """Every row of the blocks' files: canonical columns of `table`, and block, source, file, reasons,
    raw (of a broken row, null else), verdict.

    `first` and `last` bound the table's days; `night` is the night whose close is as_of. All blocks are of one kind. `forgotten`: user_id, as
    tables have it, of people whose rows are set aside.
    """
    forgotten = forgotten if "user_id" in table.schema.names else None
    frames = [
        canonical(spark, conf, block, table).transform(_with_reasons, rules, forgotten).transform(_with_day, block.source, first, last)
        for block in blocks
    ]
    union = reduce(DataFrame.unionByName, frames)
    kind, as_of = blocks[0].source.kind, F.lit(end_of(night))
    # What is received at midnight belongs to the day that begins; only the inventory of that day may be received with its first moment.
    not_due = F.col("received_at") > as_of if kind == "inventory" else F.col("received_at") >= as_of
    inside = F.col("day").between(F.lit(first), F.lit(last))
    standing = (
        # A broken row of a file whose day a later night has built is that night's to quarantine.
        F.when(F.size("reasons") > 0, F.when(inside, "quarantined").otherwise("other_day"))
        .when(not_due, "not_due")
        .when(~inside, "other_day")
        .when(F.col("received_at") >= _close(conf, kind), "late")
        .otherwise("kept")
    )
    # Duplicates are looked for among the rows that would be kept; which one stays does not depend on the order of arrival.
    values = [field.name for field in table.columns if field.name not in ("day", "received_at")]
    # A row that is not kept has no place to take, and many broken ones may share a null key: those are spread by their text.
    spread = F.when(F.col("standing") != "kept", F.xxhash64("raw"))
    same_key = Window.partitionBy("standing", "day", *table.key, spread).orderBy("received_at", F.xxhash64(*values), "block", "file")
    place = F.when(F.col("standing") == "kept", F.row_number().over(same_key)).otherwise(1)
    return (
        union.withColumn("standing", standing)
        .withColumn("verdict", F.when(place > 1, "duplicate").otherwise(F.col("standing")))
        .drop("standing")
    )


def settled(
    spark: SparkSession,
    conf: Conf,
    blocks: Sequence[Block],
    table: Table,
    rules: Sequence[Rule],
    first: date,
    last: date,
    night: date,
    forgotten: DataFrame | None = None,
) -> tuple[DataFrame, list[dict[str, Any]]]:
    """The rows of `classified`, cached, and their account. A file that turns out to be damaged on the way is set aside or stops the night.

    Raises InputUnreadable, with block, file and knob in its message.
    """
    while True:
        rows = classified(spark, conf, blocks, table, rules, first, last, night, forgotten).persist()
        try:
            return rows, account(rows)
        except Exception as error:  # py4j and pyspark have several classes for what a task can raise
            rows.unpersist()
            blocks = without_faulty_file(blocks, error)


def account(rows: DataFrame) -> list[dict[str, Any]]:
    """Counts by block and day: rows_in = kept + duplicates + quarantined, and late, not_due, other_day beside them; `forgotten`: how many of
    the quarantined are of people who were forgotten, and so not broken."""

    def count(verdict: str) -> Column:
        return F.sum(F.when(F.col("verdict") == verdict, 1).otherwise(0))

    inside = F.col("verdict").isin("kept", "duplicate", "quarantined")
    counted = rows.groupBy("block", "source", "day").agg(
        F.sum(inside.cast("int")).alias("rows_in"),
        count("kept").alias("kept"),
        count("duplicate").alias("duplicates"),
        count("quarantined").alias("quarantined"),
        F.sum((F.array_contains("reasons", FORGOTTEN_REASON) & (F.col("verdict") == "quarantined")).cast("int")).alias("forgotten"),
        count("late").alias("late"),
        count("not_due").alias("not_due"),
        count("other_day").alias("other_day"),
    )
    found = [row.asDict() for row in counted.collect()]
    return sorted(({**row, "day": row["day"].isoformat()} for row in found), key=lambda row: (row["block"], row["day"]))


def _close(conf: Conf, kind: str) -> Column:
    """An impression may be received until the last night that rebuilds its day; other kinds have their receipt as their day."""
    if kind != "impressions":
        return F.lit("9999-12-31").cast("timestamp")
    return F.col("day").cast("timestamp") + F.lit(timedelta(days=conf.label_days))


def _with_reasons(rows: DataFrame, rules: Sequence[Rule], forgotten: DataFrame | None) -> DataFrame:
    """Add `reasons`, the faults of the row and the names of the broken rules (an unreadable line has that one reason, as has a row of
    someone who was forgotten), and `raw` for the rows that have any; of the forgotten nothing is kept."""
    rows, gone = is_forgotten(rows, forgotten)

    def breaks(rule: Rule) -> Column:
        misfit = F.array_contains(F.split("faults", ","), f"{rule.column}_of_type")  # that reason says it all
        return F.when(~F.coalesce(F.expr(rule.holds), F.lit(False)) & ~misfit, F.lit(rule.name))

    broken = F.concat_ws(",", F.when(F.col("faults") != "", F.col("faults")), *(breaks(rule) for rule in rules))
    # By way of text: a lambda such as array_compact's is not compiled, and takes all that is computed beside it out of compiled code.
    told = F.when(F.col("unreadable").isNotNull(), F.col("unreadable_as")).when(gone, FORGOTTEN_REASON).otherwise(broken)
    reasons = F.array_remove(F.split(told, ","), "")
    text = F.left(F.coalesce(F.col("unreadable"), F.to_json("raw_columns")), F.lit(LONGEST_RAW))
    raw = F.when((F.size("reasons") > 0) & ~gone, text)
    return rows.withColumn("reasons", reasons).withColumn("raw", raw).drop("raw_columns", "faults", "unreadable_as", "__forgotten")


def _with_day(rows: DataFrame, source: Source, first: date, last: date) -> DataFrame:
    """Add `day`. A broken row whose own day is unreadable or outside the range is accounted on its file's day, else on the last one."""
    inside = F.coalesce(F.col("stated_day").between(F.lit(first), F.lit(last)), F.lit(False))
    own = F.when((F.size("reasons") == 0) | inside, F.col("stated_day"))
    # The path is looked at only where the row does not say.
    return rows.withColumn("day", F.coalesce(own, day_of(source, F.col("path")), F.lit(last))).drop("stated_day", "path", "unreadable")
