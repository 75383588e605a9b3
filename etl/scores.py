"""A predictor mapped over rows: log-odds of served impressions, and the table of scores that analysts read.

Rows travel to Python as Arrow batches, encoded columns only (plus what the result keeps), and come back as numbers. The predictor is
handed in as a picklable callable of numpy arrays, so this package needs no torch; it loads its model once a Python worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from operator import add

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType

from conf.schema import Conf
from conf.segments import code_column
from conf.template import Template
from etl.encoding import encoded, encoded_columns, with_codes
from etl.ordering import with_global_index
from etl.schemas import MADE_FROM, scores, segment_columns, served
from etl.utility import UTILITY, asks_for_bids, utility

#: Encoded columns, each [N] -> numbers [N, columns].
Numbers = Callable[[Mapping[str, np.ndarray]], np.ndarray]
#: Encoded columns and codes, each [N] -> probabilities before and after calibration, each [N, H], products with the parent's formed, and FACTS [N, 3].
Probabilities = Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray, np.ndarray]]
#: Feature -> the values that codes count.
Values = Mapping[str, Sequence[str]]

#: What a model says of a row beside its probabilities: the share of its ids that training never met, how many of its numbers are missing, and
#: how many lie beyond what training clipped at.
FACTS = ("unseen_share", "imputed", "out_of_range")
KEPT = "__kept_"  # a kept column may share its name with an encoded one (source, tower)
ABOUT = ("inventory_id", "source", "tower", "campaign_id", "advertiser_id", "bid_micros", "expected_impressions", "day", "__unknown_user")


class ScoringError(RuntimeError):
    """The predictor gave what no score can be."""


def with_log_odds(
    frame: DataFrame, template: Template, towers: Sequence[str], heads: Iterable[str], predict: Numbers, keep: Sequence[str]
) -> DataFrame:
    """The columns `keep`, then `logit_<head>` (double): log-odds of each head given its parent, before calibration. One row in, one out.

    `predict` gives [N, H] in the order of `heads`. Each use of the result runs it again: checkpoint, persist or write it once.
    """
    return mapped_numbers(frame, template, towers, keep, [f"logit_{head}" for head in heads], partial(_finite, predict))


def mapped_numbers(
    frame: DataFrame,
    template: Template,
    towers: Sequence[str],
    keep: Sequence[str],
    outputs: Sequence[str],
    numbers: Numbers,
    segments: Values | None = None,
) -> DataFrame:
    """The columns `keep`, then the columns `outputs` (double), which `numbers` [N, outputs] makes of the encoded columns and the codes of `segments`."""
    rows = _encoded_beside(frame, template, towers, keep, segments or {})
    return mapped_encoded(rows, _inputs(template, segments or {}), keep, outputs, numbers)


def served_rows(
    examples: DataFrame, conf: Conf, template: Template, towers: Sequence[str], predict: Numbers, *, model_id: str
) -> DataFrame:
    """Rows of the `served` table: what model `model_id` gives to `examples`, beside their labels. Grain: impression_id.

    `template`, `towers`: the model's own, which may be older than the configuration's.
    """
    table = served(conf)
    keep = ("impression_id", "user_id", "source", "tower", *segment_columns(conf), *(f"label_{head}" for head in conf.heads), "day")
    rows = with_log_odds(examples, template, towers, conf.heads, predict, keep)
    return rows.withColumn("model", F.lit(model_id)).select(*(field.name for field in table.columns))


def score_inventory(
    inventory: DataFrame,
    conf: Conf,
    template: Template,
    towers: Sequence[str],
    predict: Probabilities,
    *,
    made_from: Mapping[str, object],
    segments: Values | None = None,
) -> DataFrame:
    """Rows of the `scores` table for one day's inventory. Grain: inventory_id.

    `inventory` holds rows of `inventory` with the users' and ads' features joined on; `template`, `towers` are the model's own. `segments`:
    feature -> the values that its calibrator has weights for; `predict` gets each row's as a code beside the encoded columns. `made_from`: the
    columns MADE_FROM, alike in all rows.
    """
    rows = encoded_inventory(inventory, template, towers, segments or {})
    return score_encoded(rows, conf, template, towers, predict, made_from=made_from, segments=segments)


def encoded_inventory(inventory: DataFrame, template: Template, towers: Sequence[str], segments: Values) -> DataFrame:
    """What `score_encoded` reads: numbers for the model, codes for its calibrator, and what the result keeps of a row. One row in, one out."""
    return _encoded_beside(inventory.withColumn("__unknown_user", F.col("user_id").isNull()), template, towers, ABOUT, segments)


def score_encoded(
    rows: DataFrame,
    conf: Conf,
    template: Template,
    towers: Sequence[str],
    predict: Probabilities,
    *,
    made_from: Mapping[str, object],
    segments: Values | None = None,
) -> DataFrame:
    """Rows of the `scores` table from those of `encoded_inventory`.

    Each row is scored once, in this call: the result is checkpointed before rows are ranked, for as long as the frame is held, so a rank
    belongs to the very probabilities beside it.
    """
    table = scores(conf)
    heads = list(conf.heads)
    outputs = [*(f"p_{head}_raw" for head in heads), *(f"p_{head}" for head in heads), *FACTS]
    found = mapped_encoded(rows, _inputs(template, segments or {}), ABOUT, outputs, partial(_raw_and_calibrated, predict))
    scored = found.withColumn(UTILITY, F.expr(utility(conf.heads))).localCheckpoint()
    ranked, count = with_global_index(scored, UTILITY, "inventory_id", descending=True)
    # Share of the day's other rows ranked below: 1 for the best, 0 for the last; a row without others is the best.
    percentile = (F.lit(count - 1) - F.col("index")) / F.lit(count - 1) if count > 1 else F.lit(1.0)
    alike = {name: F.lit(made_from[name]).cast(table.schema[name].dataType) for name in MADE_FROM}
    # What follows row by row comes last, so that it is neither kept nor sorted.
    expected = {f"expected_{head}": F.col(f"p_{head}") * F.col("expected_impressions") for head in heads}
    beside = {"rank": F.col("index") + 1, "percentile": percentile, **expected, "flags": _flags(conf, towers), **alike}
    return ranked.withColumns(beside).select(*(field.name for field in table.columns))


def _flags(conf: Conf, towers: Sequence[str]) -> Column:
    """array<string>: those that hold for a row, looked up among all their combinations, since a filter of an array is not compiled."""
    holds = {
        "unknown_user": F.col("__unknown_user"),
        "unknown_tower": ~F.col("tower").isin(list(towers)),
        "imputed": F.col("imputed") > 0,
        "out_of_range": F.col("out_of_range") > 0,
        "unknown_bid": F.lit(asks_for_bids(conf.heads)) & F.col("bid_micros").isNull(),
    }
    names = list(holds)
    combinations = [[name for place, name in enumerate(names) if number >> place & 1] for number in range(1 << len(names))]
    bits = (F.when(holds[name], F.lit(1 << place)).otherwise(F.lit(0)) for place, name in enumerate(names))
    return F.get(F.lit(combinations), reduce(add, bits))


def _encoded_beside(frame: DataFrame, template: Template, towers: Sequence[str], keep: Sequence[str], segments: Values) -> DataFrame:
    """The encoded columns and codes, and under other names the columns `keep` as they are."""
    aside = {f"{KEPT}{name}": F.col(name) for name in keep}
    rows = with_codes(frame.withColumns(aside), segments)
    return encoded(rows, template, towers, keep=[*aside, *(code_column(feature) for feature in segments)])


def _inputs(template: Template, segments: Values) -> list[str]:
    return [*encoded_columns(template), *(code_column(feature) for feature in segments)]


def mapped_encoded(rows: DataFrame, inputs: Sequence[str], keep: Sequence[str], outputs: Sequence[str], numbers: Numbers) -> DataFrame:
    """The kept columns under their own names, then the columns `outputs` (double) that `numbers` makes of the columns `inputs`."""
    aside = [f"{KEPT}{name}" for name in keep]
    kept = [StructField(name, rows.schema[alias].dataType, rows.schema[alias].nullable) for name, alias in zip(keep, aside, strict=True)]
    schema = StructType([*kept, *(StructField(name, DoubleType(), False) for name in outputs)])
    work = partial(_with_numbers, inputs=list(inputs), aside=aside, names=schema.names, width=len(outputs), numbers=numbers)
    return rows.select(*aside, *inputs).mapInArrow(work, schema)


def _with_numbers(
    batches: Iterator[pa.RecordBatch], inputs: list[str], aside: list[str], names: list[str], width: int, numbers: Numbers
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if not batch.num_rows:
            continue
        # No nulls in these columns, so the arrays are views of the batch (and read-only).
        found = numbers({name: batch.column(name).to_numpy(zero_copy_only=False) for name in inputs})
        if found.shape != (batch.num_rows, width):
            raise ScoringError(f"the predictor gave shape {found.shape}; columns {names[-width:]} need ({batch.num_rows}, {width})")
        columns = [pa.array(column) for column in np.ascontiguousarray(found.T, dtype=np.float64)]
        yield pa.RecordBatch.from_arrays([*(batch.column(name) for name in aside), *columns], names=names)


def _finite(predict: Numbers, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    log_odds = np.asarray(predict(columns))
    bad = int((~np.isfinite(log_odds)).any(axis=1).sum())
    if bad:
        raise ScoringError(f"log-odds of {bad} of {len(log_odds)} rows are not finite; the model is broken: train it again")
    return log_odds


def _raw_and_calibrated(predict: Probabilities, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    raw, calibrated, facts = predict(columns)
    found = np.hstack([raw, calibrated])
    bad = int((~((found > 0) & (found < 1))).any(axis=1).sum())  # NaN is neither
    if bad:
        raise ScoringError(
            f"probabilities of {bad} of {len(found)} rows are not inside (0, 1); the model or its calibrator is broken: train it again"
        )
    return np.hstack([found, facts])
