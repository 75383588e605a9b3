"""What a gate counts: one pass of Spark over each table and question, a few thousand numbers to the driver, nothing cached.

Read from Delta: caching what is read two or three times costs more than it saves (240,000 rows of 45 columns on 2 busy cores: 6 s without,
18 s with).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.template import Feature
from etl.schemas import ALL, Table
from validation.checks import SAMPLE, Check
from validation.drift import Profile, cuts
from validation.expectations import KEY_WITHIN_DAY, Sums, value_of

DECILES = [n / 10 for n in range(1, 10)]
EPOCH = date(1970, 1, 1)


def sums_by_day(rows: DataFrame, sums: Mapping[str, str], days: Sequence[date]) -> Sums:
    """The sums of each day and source; a day without rows has no source, and other days than `days` are there if they have rows."""
    source = F.col("source") if "source" in rows.columns else F.lit(ALL)
    counted = rows.groupBy("day", source.alias("_source")).agg(*(F.expr(made).alias(name) for name, made in sums.items()))
    found: dict[str, dict[str, dict[str, float]]] = {day.isoformat(): {} for day in days}
    for row in counted.collect():
        found.setdefault(str(row["day"]), {})[str(row["_source"])] = {name: row[name] for name in sums}
    return found


@dataclass(frozen=True)
class IdCounts:
    """`repeated`: ids that are held more than once; `needed`: rows that refer to an id; `unknown`: those of them whose id is not held."""

    repeated: int = 0
    needed: int = 0
    unknown: int = 0


def id_counts(held: DataFrame, key: Sequence[str], needed: DataFrame | None = None) -> IdCounts:
    """Whether a key is unique, and whether the rows of `needed` refer to keys that are there (a null refers to nothing).

    By 64-bit hashes, which are far cheaper than strings. Among n ids two share one by chance with probability n^2 / 3.7e19 (3e-8 for a
    million); what looks repeated is looked up by its strings (repeated_keys).
    """
    hashed = _hashed(held, key, 1)
    if needed is not None:
        hashed = hashed.unionAll(_hashed(needed.where(F.col(key[0]).isNotNull()), key, 0))
    each = hashed.groupBy("hash").agg(F.sum("held").alias("held"), F.sum(1 - F.col("held")).alias("needed"))
    needed_rows, unknown = F.sum("needed"), F.sum(F.when(F.col("held") == 0, F.col("needed")).otherwise(0))
    (row,) = each.agg(F.count_if(F.col("held") > 1), needed_rows, unknown).collect()
    return IdCounts(*(int(count or 0) for count in row))


def _hashed(rows: DataFrame, key: Sequence[str], held: int) -> DataFrame:
    """xxhash64 skips nulls: in a key of several columns, which of them are null is hashed too."""
    nulls = [F.concat(*(F.col(name).isNull().cast("string") for name in key))] if len(key) > 1 else []
    return rows.select(F.xxhash64(*nulls, *key).alias("hash"), F.lit(held).alias("held"))


def key_of(table: Table) -> tuple[str, ...]:
    return ("day", *table.key) if table.name in KEY_WITHIN_DAY else table.key


def repeated_keys(rows: DataFrame, table: Table) -> tuple[str, ...]:
    """A few of the keys that stand more than once."""
    key = key_of(table)
    keys = rows.groupBy(*key).agg(F.count(F.lit(1)).alias("rows")).where("rows > 1").orderBy(*key).limit(SAMPLE)
    return tuple(told(row.asDict()) for row in keys.select(*(F.col(name).cast("string") for name in table.key), "rows").collect())


def unknown_ids(rows: DataFrame, column: str, known: DataFrame) -> tuple[str, ...]:
    """The ids that `known` lacks and that most rows refer to."""
    lost = rows.join(known.select(column), on=column, how="left_anti").where(F.col(column).isNotNull())
    most = lost.groupBy(column).agg(F.count(F.lit(1)).alias("rows")).orderBy(F.col("rows").desc(), column).limit(SAMPLE)
    return tuple(told(row.asDict()) for row in most.collect())


def offending(rows: DataFrame, table: Table, check: Check) -> tuple[str, ...]:
    """The first few offending rows by key: what one looks up in the logs, and the value that is wrong."""
    shown = [name for name in (*table.key, "source", "shown_at", check.column) if name in rows.columns]
    first = rows.where(F.expr(check.broken)).orderBy(*table.key, "day").limit(SAMPLE)
    return tuple(told(row.asDict()) for row in first.select(*(F.col(name).cast("string") for name in dict.fromkeys(shown))).collect())


def told(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={'null' if value is None else value}" for key, value in row.items())


def learned_cuts(rows: DataFrame, features: Sequence[Feature]) -> dict[str, Profile]:
    """Bins of continuous features from the deciles of these rows (approximate, within 1%)."""
    if not features:
        return {}
    asked = [
        F.percentile_approx(F.expr(f"CASE WHEN {_finite(feature)} THEN `{feature.column}` END"), DECILES, 1000) for feature in features
    ]
    (row,) = rows.agg(*(made.alias(str(number)) for number, made in enumerate(asked))).collect()
    return {feature.column: {"cuts": cuts(row[number] or [])} for number, feature in enumerate(features)}


def histograms(
    rows: DataFrame, features: Sequence[Feature], bins: Mapping[str, Profile], bits: int, days: Sequence[date]
) -> dict[str, dict[str, tuple[int, dict[int, int]]]]:
    """Day -> feature -> (rows without a value, rows by bin number of a continuous feature or by hash position of any other).

    Spark turns each value into a whole number, numpy counts those of a task, and the driver adds the tasks up: 240,000 rows of 25 features
    take 1.4 s on 2 cores, of which the numbers themselves are 1.0 s. (A grouping in Spark, one row a feature and row, takes twice that.)
    """
    if not days or not features:
        return {}
    codes = [F.expr(_position(feature, bins, bits)).alias(f"f{number}") for number, feature in enumerate(features)]
    part = rows.where(F.col("day").isin(list(days))).select(F.unix_date("day").alias("day"), *codes)
    counted = part.mapInArrow(_counter(bits), "day int, feature int, codes binary, rows binary").toArrow()
    tasks: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    for since, number, at, count in zip(*(counted[name].to_pylist() for name in counted.column_names), strict=True):
        tasks.setdefault((since, number), []).append((np.frombuffer(at, np.int32), np.frombuffer(count, np.int64)))
    found: dict[str, dict[str, tuple[int, dict[int, int]]]] = {}
    for (since, number), parts in tasks.items():
        distinct, place = np.unique(np.concatenate([at for at, _ in parts]), return_inverse=True)
        totals = np.zeros(len(distinct), np.int64)
        np.add.at(totals, place, np.concatenate([count for _, count in parts]))
        by_code: dict[int, int] = dict(zip(distinct.tolist(), totals.tolist(), strict=True))
        of_day = found.setdefault((EPOCH + timedelta(days=since)).isoformat(), {feature.column: (0, {}) for feature in features})
        of_day[features[number].column] = by_code.pop(bits, 0), by_code
    return found


def _counter(bits: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """For mapInArrow: day and codes, each at most `bits` -> which of them stand in the task's rows (int32) and how often (int64), as bytes.

    It needs no module of ours.
    """

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numpy as np
        import pyarrow as pa

        totals: dict[tuple[int, int], np.ndarray] = {}
        for batch in batches:
            days = batch.column(0).to_numpy()
            for day in np.unique(days):
                of_day = days == day
                for number in range(batch.num_columns - 1):
                    codes = np.bincount(batch.column(number + 1).to_numpy()[of_day], minlength=bits + 1)
                    key = (int(day), number)
                    totals[key] = totals[key] + codes if key in totals else codes
        rows = []
        for (day, number), codes in totals.items():
            taken = np.flatnonzero(codes)
            at, count = taken.astype(np.int32).tobytes(), codes[taken].astype(np.int64).tobytes()
            rows.append({"day": day, "feature": number, "codes": at, "rows": count})
        schema = pa.schema([("day", pa.int32()), ("feature", pa.int32()), ("codes", pa.binary()), ("rows", pa.binary())])
        yield pa.RecordBatch.from_pylist(rows, schema)

    return count


def _finite(feature: Feature) -> str:
    value = f"`{feature.column}`"
    return f"{value} IS NOT NULL AND NOT isnan({value}) AND abs({value}) < double('infinity')"


def _position(feature: Feature, bins: Mapping[str, Profile], bits: int) -> str:
    """SQL: the bin number of a continuous value, the hash position of any other (expectations.value_of); `bits` where there is none.

    As text, since a Column costs the driver .2 ms an operation: 1 s for the edges of 15 features.
    """
    value = value_of(feature)
    if feature.type != "continuous":
        return f"CASE WHEN {value} IS NULL THEN {bits} ELSE int(pmod(xxhash64({value}), {bits})) END"
    above = " + ".join(["0", *(f"int({value} > {edge!r}D)" for edge in bins[feature.column]["cuts"])])
    return f"CASE WHEN {_finite(feature)} THEN {above} ELSE {bits} END"
