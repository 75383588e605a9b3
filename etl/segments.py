"""Predicted and observed engagements by segment of the held-out day: which country, device or ad format the calibrator leaves behind.

A segment is a value of one column, within a tower. Rows of `served` know their log-odds, those of `examples` their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.schema import Head
from conf.template import Template
from etl.calibration_stats import FIXED_POINT, labelled

MISSING = "(missing)"


def closed_lists(template: Template) -> list[str]:
    """Features whose values a person can name: of a closed list, one string a row."""
    return [feature.column for feature in template.features if feature.type == "one_hot" and not feature.length]


def segment_sums(staged: DataFrame, examples: DataFrame, heads: Mapping[str, Head], columns: Sequence[str]) -> pd.DataFrame:
    """Labelled rows by model, head, tower, column (`by`) and `value`: rows, positives, predicted_raw, predicted (sums of probabilities). Sorted.

    `staged`: rows of `served` in both stages (etl/calibrated.py); `examples`: the same impressions with `columns`. A child head
    has the rows whose parent's label is 1.
    """
    values = F.array(*(F.struct(F.lit(name).alias("by"), _value(name).alias("value")) for name in columns))
    joined = staged.join(examples.select("impression_id", values.alias("values")), on="impression_id", how="inner")
    kept = ("model", "stage", "tower")
    known = labelled(joined, heads, (*kept, "values")).select(*kept, "head", "z", "label", F.explode("values").alias("at"))
    # In whole multiples of a billionth, since those have the same sum in any order of rows.
    p, raw = F.round(FIXED_POINT / (1 + F.exp(-F.col("z")))).cast("bigint"), F.col("stage") == "raw"
    keys = ["model", "head", "tower", "by", "value"]
    counted = known.select(*kept, "head", "z", "label", "at.*").groupBy(*keys)
    sums = (
        F.count_if(raw).alias("rows"),
        F.sum(F.when(raw, F.col("label"))).alias("positives"),
        (F.sum(F.when(raw, p)) / FIXED_POINT).alias("predicted_raw"),
        (F.sum(F.when(~raw, p)) / FIXED_POINT).alias("predicted"),
    )
    return counted.agg(*sums).toPandas().sort_values(keys, ignore_index=True)


def _value(name: str) -> Column:
    return F.coalesce(F.col(name).cast("string"), F.lit(MISSING))
