"""A predictor mapped over rows: log-odds of served impressions, and the table of scores that analysts read.

Rows travel to Python as Arrow batches, encoded columns only (plus what the result keeps), and come back as numbers. The predictor is
handed in as a picklable callable of numpy arrays, so this package needs no torch; it loads its model once a Python worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial, reduce
from operator import add

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType

from conf.schema import Conf
from conf.segments import code_column
from conf.template import Template
from etl.encoding import encoded, encoded_columns, with_codes
from etl.ordering import with_global_index
from etl.schemas import scores, segment_columns, served

#: Encoded columns, each [N] -> numbers [N, columns].
Numbers = Callable[[Mapping[str, np.ndarray]], np.ndarray]
#: Encoded columns and codes, each [N] -> probabilities before and after calibration, each [N, H], products with the parent's formed.
Probabilities = Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]
#: Feature -> the values that codes count.
Values = Mapping[str, Sequence[str]]

KEPT = "__kept_"  # a kept column may share its name with an encoded one (source, tower)


class ScoringError(RuntimeError):
    """The predictor gave what no score can be."""


def with_log_odds(
    frame: DataFrame, template: Template, towers: Sequence[str], heads: Iterable[str], predict: Numbers, keep: Sequence[str]
) -> DataFrame:
    """The columns `keep`, then `logit_<head>` (double): log-odds of each head given its parent, before calibration. One row in, one out.

    `predict` gives [N, H] in the order of `heads`. Each use of the result runs it again: checkpoint, persist or write it once.
    """
    return _mapped(frame, template, towers, keep, [f"logit_{head}" for head in heads], partial(_finite, predict), segments={})


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
    model_id: str,
    calibrator_id: str,
    inventory_version: int,
    run_id: str,
    scored_at: datetime,
    segments: Values | None = None,
) -> DataFrame:
    """Rows of the `scores` table for one day's inventory. Grain: inventory_id. `scored_at` carries its offset (UTC).

    `inventory` holds rows of `inventory` with the users' and ads' features joined on; `template`, `towers` are the model's own. `segments`:
    feature -> the values that its calibrator has weights for; `predict` gets each row's as a code beside the encoded columns. Each row is
    scored once, in this call: the result is checkpointed before rows are ranked, for as long as the frame is held, so a rank belongs to the
    very probabilities beside it.
    """
    scored = _scored(inventory, conf, template, towers, predict, segments or {}).localCheckpoint()
    ranked, rows = with_global_index(scored, "utility", "inventory_id", descending=True)
    # Share of the day's other rows ranked below: 1 for the best, 0 for the last; a row without others is the best.
    percentile = (F.lit(rows - 1) - F.col("index")) / F.lit(rows - 1) if rows > 1 else F.lit(1.0)
    literals = {
        "model": F.lit(model_id),
        "calibrator": F.lit(calibrator_id),
        "inventory_version": F.lit(inventory_version).cast("bigint"),
        "run_id": F.lit(run_id),
        "scored_at": F.lit(scored_at),
        "rank": F.col("index") + 1,
        "percentile": percentile,
    }
    return ranked.withColumns(literals).select(*(field.name for field in scores(conf).columns))


def _scored(
    inventory: DataFrame, conf: Conf, template: Template, towers: Sequence[str], predict: Probabilities, segments: Values
) -> DataFrame:
    """Probabilities and what follows from them row by row: utility, expected engagements, flags."""
    heads = list(conf.heads)
    keep = ("inventory_id", "source", "tower", "campaign_id", "advertiser_id", "expected_impressions", "day", "__unknown_user")
    outputs = [*(f"p_{head}_raw" for head in heads), *(f"p_{head}" for head in heads)]
    rows = inventory.withColumn("__unknown_user", F.col("user_id").isNull())
    scored = _mapped(rows, template, towers, keep, outputs, partial(_raw_and_calibrated, predict), segments)
    utility = reduce(add, (F.col(f"p_{name}") * head.utility_weight for name, head in conf.heads.items()))
    expected = {f"expected_{head}": F.col(f"p_{head}") * F.col("expected_impressions") for head in heads}
    known_tower = F.col("tower").isin(list(towers))
    told = F.when(F.col("__unknown_user"), "unknown_user").otherwise(""), F.when(known_tower, "").otherwise("unknown_tower")
    flags = F.array_remove(F.array(*told), "")
    return scored.withColumns({"utility": utility, **expected, "flags": flags}).drop("__unknown_user")


def _mapped(
    frame: DataFrame,
    template: Template,
    towers: Sequence[str],
    keep: Sequence[str],
    outputs: Sequence[str],
    numbers: Numbers,
    segments: Values,
) -> DataFrame:
    aside, codes = {name: f"{KEPT}{name}" for name in keep}, [code_column(feature) for feature in segments]
    rows = with_codes(frame.withColumns({alias: F.col(name) for name, alias in aside.items()}), segments)
    needed = encoded(rows, template, towers, keep=[*aside.values(), *codes])
    schema = StructType([*(frame.schema[name] for name in keep), *(StructField(name, DoubleType(), False) for name in outputs)])
    inputs = [*encoded_columns(template), *codes]
    work = partial(_with_numbers, inputs=inputs, aside=list(aside.values()), names=schema.names, width=len(outputs), numbers=numbers)
    return needed.mapInArrow(work, schema)


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
    found = np.hstack(predict(columns))
    bad = int((~((found > 0) & (found < 1))).any(axis=1).sum())  # NaN is neither
    if bad:
        raise ScoringError(
            f"probabilities of {bad} of {len(found)} rows are not inside (0, 1); the model or its calibrator is broken: train it again"
        )
    return found
