"""How right a model is in level on a day it was not fitted on: engagements predicted and observed, by segment.

Unlike etl/segments.py, which judges each head given its parent, of what `scores` publishes: a child's probability includes its parent's.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Head
from etl.calibrated import Cells, calibrated


def level_sums(served: DataFrame, head: str, heads: Mapping[str, Head], cells: Cells, segment: Column) -> pd.DataFrame:
    """(segment) -> rows, predicted (sum of probabilities), observed (positives), of the rows whose label of `head` is known.

    `served`: one model's rows, with the columns that `segment` reads and those of the calibrator's features.
    """
    probability: Column = F.lit(1.0)
    name: str | None = head
    while name is not None:
        probability = probability / (1 + F.exp(-calibrated(F.col(f"logit_{name}"), name, cells)))
        name = heads[name].parent
    labelled = served.where(F.col(f"label_{head}").isNotNull()).select(
        segment.alias("segment"), probability.alias("p"), F.col(f"label_{head}").alias("label")
    )
    sums = F.count(F.lit(1)).alias("rows"), F.sum("p").alias("predicted"), F.sum("label").alias("observed")
    return labelled.groupBy("segment").agg(*sums).toPandas().set_index("segment").astype(float)
