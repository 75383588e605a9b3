"""Measures of each user's own rows, added up over users: rows travel to Python by user, sums come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.schema import Head
from etl.calibration_stats import labelled
from etl.schemas import ALL

SUMS = ("numerator", "weight", "groups", "one_class")
#: group, score, label and weight of rows, each [N] -> SUMS over groups; those of other groups add up (models.metrics.grouped_auc).
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[float, float, int, int]]
KEYS = ("model", "head", "stage", "source", "tower")
SCHEMA = (
    "model STRING, head STRING, stage STRING, source STRING, tower STRING, numerator DOUBLE, weight DOUBLE, groups BIGINT, one_class BIGINT"
)


def user_sums(staged: DataFrame, heads: Mapping[str, Head], measure: Measure) -> pd.DataFrame:
    """SUMS by model, head, stage, source and tower: of all rows, of each source and of each tower, with ALL for what is not told apart.

    `staged`: rows of `served` in both stages (etl/calibrated.py); a child head has the rows whose parent's label is 1, and rows of unknown
    users are left out. All rows of a user are in one task, which holds its share of the users in memory: about 50 bytes a row and head.
    """
    of_users = staged.where("user_id IS NOT NULL").withColumn("user", F.xxhash64("user_id"))
    known = labelled(of_users, heads, ("user", "model", "stage", "source", "tower"))
    # A given number of partitions, which Spark leaves alone: other ones would add the same sums up in another order.
    partitions = int(staged.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    parts = known.repartition(partitions, "user").mapInArrow(partial(_summed, measure=measure), SCHEMA).toPandas()
    return parts.sort_values([*KEYS, *SUMS]).groupby(list(KEYS), as_index=False).sum()


def _summed(batches: Iterator[pa.RecordBatch], measure: Measure) -> Iterator[pa.RecordBatch]:
    held = [batch for batch in batches if batch.num_rows]
    if not held:
        return
    rows = pa.Table.from_batches(held)
    named = {name: rows[name].combine_chunks().dictionary_encode() for name in KEYS}
    values = {name: column.dictionary.to_pylist() for name, column in named.items()}
    places = {name: column.indices.to_numpy() for name, column in named.items()}
    user, z, label = (rows[name].to_numpy() for name in ("user", "z", "label"))
    found = []
    for names in product(*(values[name] for name in KEYS[:3])):
        of_head = np.logical_and.reduce([places[key] == values[key].index(name) for key, name in zip(KEYS, names, strict=False)])
        slices = [(ALL, ALL, of_head)]
        slices += [(source, ALL, of_head & (places["source"] == place)) for place, source in enumerate(values["source"])]
        slices += [(ALL, tower, of_head & (places["tower"] == place)) for place, tower in enumerate(values["tower"])]
        for source, tower, chosen in slices:
            if chosen.any():
                sums = measure(user[chosen], z[chosen], label[chosen], np.ones(chosen.sum()))
                found.append(dict(zip((*KEYS, *SUMS), (*names, source, tower, *sums), strict=True)))
    yield pa.RecordBatch.from_pylist(found)
