"""Predicted and observed engagements by segment of the held-out day: which country, device or ad format the calibrator leaves behind.

A segment is a value of one column, within a tower. Rows of `served` know their log-odds, those of `examples` their values. Beside the features of
a closed list there are others, in brackets: the hour (UTC), the advertiser's size and whether the ad is new, which every log has; and whether the ad
was drawn to explore, where a source says so: of rows that no policy chose, the model's own selection is no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from conf.schema import Head
from conf.template import Template
from etl.calibration_stats import FIXED_POINT, labelled

MISSING = "(missing)"
HOUR, ADVERTISER, AD, EXPLORED = "(hour)", "(advertiser)", "(ad)", "(explored)"


def closed_lists(template: Template) -> list[str]:
    """Features whose values a person can name: of a closed list, one string a row."""
    return [feature.column for feature in template.features if feature.type == "one_hot" and not feature.length]


def with_common_segments(examples: DataFrame, earlier: DataFrame) -> DataFrame:
    """Add what logs can be told apart by. One row in, one row out.

    (hour): of being shown, 00 to 23. (advertiser): which tenth of all impressions, those of the largest advertisers first. (ad): new where
    `earlier`, examples of earlier days, do not hold it, else known. (explored): drawn to explore, or chosen by the policy; null where unknown.
    """
    sizes = examples.where("advertiser_id IS NOT NULL").groupBy("advertiser_id").agg(F.count(F.lit(1)).alias("_rows"))
    larger = Window.orderBy(F.col("_rows").desc(), "advertiser_id").rowsBetween(Window.unboundedPreceding, -1)
    before, total = F.coalesce(F.sum("_rows").over(larger), F.lit(0)), F.sum("_rows").over(Window.partitionBy())
    tenth = F.format_string("tenth %02d", (F.floor(before * 10 / total) + 1).cast("int"))
    advertisers = sizes.select("advertiser_id", tenth.alias(ADVERTISER))
    known = earlier.select("ad_id").distinct().withColumn(AD, F.lit("known"))
    joined = examples.join(advertisers, on="advertiser_id", how="left").join(known, on="ad_id", how="left")
    explored = F.when(F.col("explored"), "drawn to explore").when(~F.col("explored"), "chosen by the policy")
    return joined.withColumns({HOUR: F.date_format("shown_at", "HH"), AD: F.coalesce(AD, F.lit("new")), EXPLORED: explored})


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
