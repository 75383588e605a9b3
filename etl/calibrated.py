"""A calibrator on rows of `served`, as Spark expressions: what models/calibration.py does to rows that are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.segments import feature_and_value

STAGES = ("raw", "calibrated")


class Cell(Protocol):
    """logit(q) = z + b0 + b1 z + w . x of one head in one tower; `w`: weights by "feature=value"."""

    @property
    def b0(self) -> float: ...
    @property
    def b1(self) -> float: ...
    @property
    def w(self) -> Mapping[str, float]: ...


#: By (head, tower); one that is not named stays as it is.
Cells = Mapping[tuple[str, str], Cell]


def calibrated(z: Column, head: str, cells: Cells) -> Column:
    """Log-odds `z` of a head after calibration, by the column `tower` and those of the features that have weights."""
    result = z
    for (name, tower), cell in cells.items():
        if name == head:
            result = F.when(F.col("tower") == tower, z * (1 + cell.b1) + cell.b0 + _weight(cell.w)).otherwise(result)
    return result


def _weight(w: Mapping[str, float]) -> Column:
    by_feature: dict[str, dict[str, float]] = {}
    for key, weight in sorted(w.items()):
        feature, value = feature_and_value(key)
        by_feature.setdefault(feature, {})[value] = weight
    total = F.lit(0.0)
    for feature, weights in by_feature.items():
        # As one text, which Spark reads once a query, since a Column a value costs the driver 1.4 ms.
        known = F.from_json(F.lit(json.dumps(weights)), "map<string,double>")
        total = total + F.coalesce(known[F.col(feature)], F.lit(0.0))
    return total


def in_both_stages(served: DataFrame, heads: Mapping[str, object], cells: Cells) -> DataFrame:
    """Each row of `served` twice: with `stage` raw and its log-odds as they are, and with stage calibrated and those after calibration."""

    def stage(name: str, cells: Cells) -> Column:
        logits = (calibrated(F.col(f"logit_{head}"), head, cells).alias(f"logit_{head}") for head in heads)
        return F.struct(F.lit(name).alias("stage"), *logits)

    raw, after = STAGES
    others = [name for name in served.columns if name not in {f"logit_{head}" for head in heads}]
    return served.select(*others, F.explode(F.array(stage(raw, {}), stage(after, cells))).alias("at")).select(*others, "at.*")
