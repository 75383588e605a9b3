"""The training window's examples -> a description of every column that a model may read. Nothing is fitted, nothing collected but sums.

What is read: the columns of `examples`, that is what the tables hold under this configuration: the fixed ones that scoring knows too (ids,
source, bid), position, and every column of the template; no key, clock, label or lineage. A column that a source gives and no table has yet
is etl/drafts.py's. Rows are counted; then two passes: each column is summed up (quantiles from at most QUANTILE_ROWS rows), and its values are
counted with their labels (at most VALUE_ROWS rows; of more, distinct values are estimated over all, and elements of lists and tokens of
sentences are those of the rows counted). A row is among those by a hash of its impression_id, sums are of whole numbers and the sketch of
distinct values merges in any order: the same rows are described alike however they are partitioned.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, NumericType, StringType

from conf.schema import Conf
from conf.template import Family
from etl.description import Described, Kind, Parts
from etl.encoding import tokens
from etl.ordering import cuts_below
from etl.proposal import LIST_COVERED, LONGEST_LIST, LONGEST_READ, MOST_WORDS
from etl.univariate import univariate

FIXED: dict[str, Family] = {
    **{"user_id": "user", "ad_id": "ad", "campaign_id": "ad", "advertiser_id": "ad"},
    **{"source": "context", "bid_micros": "context", "position": "serving"},
}
QUANTILE_ROWS = 50_000
VALUE_ROWS = 2_000_000
BITS = 53  # of a hash, as many as a double holds exactly
LEVELS = (0.0, 0.01, *(n / 20 for n in range(1, 20)), 0.99, 1.0)
DISTINCT_ERROR = 0.02
PARTS = "[]"  # after a column's name: the elements of its lists, the tokens of its sentences
INFINITY = float("inf")


def candidates(conf: Conf) -> dict[str, Family]:
    """Columns of `examples` that a model may read, with their family: the template's in its order, then the others."""
    named = {feature.column: feature.family for feature in conf.template.features}
    return named | {name: family for name, family in FIXED.items() if name not in named}


def described(examples: DataFrame, conf: Conf) -> list[Described]:
    """Every candidate column, in the order of `candidates`; none where there are no rows. `examples`: of the table of that name."""
    rows = examples.count()
    if not rows:
        return []
    columns, base = _summed_up(examples, candidates(conf), list(conf.heads), rows)
    counted = _by_value(examples, columns, list(base), rows).persist()
    try:
        top, alone = _most_frequent(counted), univariate(counted.where(~F.endswith("column", F.lit(PARTS))), base)
    finally:
        counted.unpersist()
    return [replace(_with_values(column, top), heads=alone.get(column.column, {})) for column in columns]


def _with_values(column: Described, top: Mapping[str, Sequence[Row]]) -> Described:
    values, parts = top[column.column], top[column.column + PARTS]
    if column.parts and parts:
        counted = replace(column.parts, counted=parts[0]["filled"], distinct=parts[0]["distinct"], top=_shares(parts))
        column = replace(column, parts=counted, sampled=column.rows > VALUE_ROWS)
    if column.kind != "text" or not values:
        return column
    return replace(column, top=_shares(values), distinct=max(column.distinct, values[0]["distinct"]), sampled=column.rows > VALUE_ROWS)


def _shares(top: Sequence[Row]) -> tuple[tuple[str, float], ...]:
    return tuple((row["value"], row["rows"] / row["filled"]) for row in top)


def kind_of(stored: DataType) -> Kind:
    if isinstance(stored, NumericType):
        return "number"
    if isinstance(stored, ArrayType) and isinstance(stored.elementType, NumericType):
        return "numbers"
    if isinstance(stored, ArrayType) and isinstance(stored.elementType, StringType):
        return "texts"
    return "text" if isinstance(stored, StringType) else "other"


def _summed_up(
    examples: DataFrame, families: Mapping[str, Family], heads: Sequence[str], rows: int
) -> tuple[list[Described], dict[str, float]]:
    """One pass: how many rows have a value, about how many values there are, quantiles, words, lengths; and head -> share of positives.

    Heads without both classes are left out, since nothing can tell them apart.
    """
    sums, few = [], _chance("quantiles") < QUANTILE_ROWS / rows
    for place, name in enumerate(families):
        value, kind = _value(examples, name), kind_of(examples.schema[name].dataType)
        found = {"filled": F.count(value)}
        if kind == "number":
            found["quantiles"] = F.percentile(F.when(few, value), list(LEVELS))
            found["ends"] = F.array(F.min(value), F.max(value))
        if kind == "text" and rows > VALUE_ROWS:
            found["distinct"] = F.approx_count_distinct(value, DISTINCT_ERROR)
        if kind == "text":
            found["words"] = F.avg(F.length(value) - F.length(F.replace(value, F.lit(" "), F.lit(""))) + 1)
        if kind == "texts":
            found["words"] = F.avg(F.size(value))
        if kind in ("text", "texts"):
            found["length"] = F.percentile(F.when(few, F.size(value if kind == "texts" else tokens(value))), LIST_COVERED)
        if kind == "numbers":
            found["ends"] = F.array(F.min(F.size(value)), F.max(F.size(value)))
        sums += [made.alias(f"{place}_{what}") for what, made in found.items()]
    (row,) = examples.agg(*sums, *(F.avg(f"label_{head}").alias(f"label_{head}") for head in heads)).collect()
    rates = {head: row[f"label_{head}"] for head in heads}
    columns = [_described(examples, name, family, rows, row, place) for place, (name, family) in enumerate(families.items())]
    return columns, {head: rate for head, rate in rates.items() if rate and rate < 1}


def _described(examples: DataFrame, name: str, family: Family, rows: int, row: Row, place: int) -> Described:
    stored = examples.schema[name].dataType
    found: dict[str, Any] = {what.partition("_")[2]: value for what, value in row.asDict().items() if what.partition("_")[0] == str(place)}
    made = Described(name, family, kind_of(stored), stored.simpleString(), rows, found["filled"], found.get("distinct", 0))
    if not made.filled:
        return made
    if made.kind == "number":
        # A column filled in so few rows that none of them is among those for quantiles has its two ends alone.
        low, high = found["ends"]
        quantiles = found["quantiles"] or [low if level < 0.5 else high for level in LEVELS]
        return replace(made, quantiles={**dict(zip(LEVELS, quantiles, strict=True)), 0.0: low, 1.0: high})
    if made.kind == "numbers":
        return replace(made, lengths=tuple(found["ends"]))
    if made.kind == "texts" or (made.kind == "text" and found["words"] > MOST_WORDS):
        # Filled in so few rows that none of them is among those for quantiles: the average, then.
        length = math.ceil(found["words"] if found["length"] is None else found["length"])
        made = replace(made, parts=Parts(min(max(length, 1), LONGEST_READ)))
    return replace(made, words=found["words"]) if made.kind in ("text", "texts") else made


def _value(examples: DataFrame, name: str) -> Column:
    """The value as encoding takes it: what is no finite number is missing, and so is a list without an element."""
    value, kind = F.col(name), kind_of(examples.schema[name].dataType)
    if kind == "texts":
        return F.when(F.size(F.array_compact(value)) > 0, value)
    if kind != "number":
        return value
    number = value.cast("double")
    return F.when(F.abs(number) < INFINITY, number)  # Spark orders NaN above infinity


def _chance(what: str) -> Column:
    """A number in [0, 1) that a row has for itself."""
    return F.shiftrightunsigned(F.xxhash64("impression_id", F.lit(what)), 64 - BITS) / F.lit(float(2**BITS))


def _by_value(examples: DataFrame, columns: Sequence[Described], heads: Sequence[str], rows: int) -> DataFrame:
    """Grain (column, value), null among the values: rows, and of each head the labelled rows and positives of either half.

    A number stands for its place among twenty quantiles, a vector and a list for being there. What a list or a sentence is made of stands under
    the column's name and PARTS.
    """
    values = F.array(
        *(F.struct(F.lit(column.column).alias("column"), _grouped(examples, column).alias("value")) for column in columns if column.filled)
    )
    parts = [_parts(examples, column) for column in columns if column.parts]
    if parts:
        values = F.flatten(F.array(values, *parts))
    used = examples.where(_chance("values") < VALUE_ROWS / rows)
    labels = [f"label_{head}" for head in heads]
    long = used.select((_chance("half") < 0.5).alias("learned"), *labels, F.inline(values))
    # Counted by their labels first: one count a row and column, where sums over each head and half would be twenty.
    cells = long.groupBy("column", "value", "learned", *labels).agg(F.count(F.lit(1)).alias("rows"))
    sums = [
        F.sum(F.when(inside & counts, F.col("rows")).otherwise(0)).alias(f"{what}_{half}_{head}")
        for head in heads
        for half, inside in (("learned", F.col("learned")), ("measured", ~F.col("learned")))
        for what, counts in (("seen", F.col(f"label_{head}").isNotNull()), ("engaged", F.col(f"label_{head}") == 1))
    ]
    return cells.groupBy("column", "value").agg(F.sum("rows").alias("rows"), *sums)


def _grouped(examples: DataFrame, column: Described) -> Column:
    value = _value(examples, column.column)
    if column.kind == "text":
        return value
    if column.kind == "number":
        cuts = sorted(set(column.quantiles.values()))[:-1]
        return F.when(value.isNotNull(), cuts_below(value, cuts).cast("string"))
    return F.when(value.isNotNull(), F.lit("filled"))


def _parts(examples: DataFrame, column: Described) -> Column:
    value = _value(examples, column.column)
    found = F.array_distinct(F.array_compact(value if column.kind == "texts" else tokens(value)))
    named = F.lit(column.column + PARTS).alias("column")
    return F.transform(F.coalesce(found, F.array().cast("array<string>")), lambda part: F.struct(named, part.alias("value")))


def _most_frequent(counted: DataFrame) -> dict[str, list[Row]]:
    """Column -> its most frequent values, ties by name, one more than a closed list may have: value, rows, and the column's filled, distinct."""
    filled = counted.where("value IS NOT NULL").select("column", "value", "rows")
    totals = filled.groupBy("column").agg(F.sum("rows").alias("filled"), F.count(F.lit(1)).alias("distinct"))
    place = F.row_number().over(Window.partitionBy("column").orderBy(F.desc("rows"), "value"))
    ranked = filled.withColumn("place", place).where(F.col("place") <= LONGEST_LIST + 1)
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(ranked.join(F.broadcast(totals), on="column", how="inner").collect(), key=lambda row: row["place"]):
        found[row["column"]].append(row)
    return found
