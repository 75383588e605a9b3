"""Why did scores change between two days? Sums of probabilities of segments under every mixture of the two days.

A score is made from four things: the model, its calibrator, the features known of users and ads, and the inventory itself (which candidates
there are, of which context: its mix). Each can be taken from either day, which makes sixteen scores of a segment, two of which were published.
A sum of engagements also follows from a fifth, the volume: for how many impressions the candidates stand. models/shapley.py parts the change among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf, Head
from conf.template import Template
from etl import schemas
from etl.candidates import with_features, with_features_of_either
from etl.scores import Numbers, mapped_numbers
from etl.tables import read_days
from etl.utility import UTILITY, price

#: What a mean follows from, and what a sum does too.
FACTORS = ("model", "calibrator", "features", "mix")
VOLUME = "volume"
EXPECTED = "expected_"
SEGMENT, FEATURES, INVENTORY, ALL_ROWS = "_segment", "_features", "_inventory", "(all)"
SAMPLED = 20_000  # rows that are scored once a feature


@dataclass(frozen=True)
class Chosen:
    """Which rows of inventory are explained: each value of the column `by` by itself, or all together; with `value` those alone that have it."""

    by: str | None = None
    value: str | None = None

    def rows(self, spark: SparkSession, conf: Conf, scored: date) -> DataFrame:
        """Of one day, with the segment that each belongs to."""
        rows = read_days(spark, conf.workdir, schemas.inventory(conf), scored, scored).withColumn(SEGMENT, self.segment)
        return rows if self.value is None else rows.where(F.col(SEGMENT) == F.lit(self.value))

    @property
    def segment(self) -> Column:
        return F.lit(ALL_ROWS) if self.by is None else F.coalesce(F.col(self.by), F.lit("(missing)"))


@dataclass(frozen=True)
class Side:
    """One of the two days. `under`: calibrators (JSON texts) and values of their segments -> the model's numbers [N, K * H] under each."""

    scored: date
    model: str
    template: Template
    towers: Sequence[str]
    calibrator: str
    under: Callable[[Sequence[str], Mapping[str, Sequence[str]]], Numbers]


@dataclass(frozen=True)
class Sums:
    """Of each segment and mixture. `rows`, `impressions` [2, S]: of the inventory's day; the others [2, 2, 2, 2, S, H]: FACTORS, before and after."""

    segments: list[str]
    heads: list[str]
    rows: np.ndarray
    impressions: np.ndarray  # sum of expected_impressions
    probability: np.ndarray  # sum of p
    expected: np.ndarray  # sum of p x expected_impressions
    worth: np.ndarray  # sum of p, x bid where the head's part of the utility is

    def factors(self, quantity: str) -> tuple[str, ...]:
        return (*FACTORS, VOLUME) if quantity.startswith(EXPECTED) else FACTORS

    def of(self, quantity: str, weights: Mapping[str, float]) -> np.ndarray:
        """[2, ..., 2, S], an axis a factor: `expected_<head>` is a sum over rows, `p_<head>` and `utility` are means; NaN of no rows.

        A sum is the volume times the mean by impression. Where there are none on one day, the mix there counts as the other day's: what came
        or went is volume.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            if quantity.startswith(EXPECTED):
                expected = self.expected[..., self.heads.index(quantity.removeprefix(EXPECTED))]
                by_impression = expected / self.impressions
                by_impression = np.where(np.isfinite(by_impression), by_impression, by_impression[:, :, :, ::-1])
                return np.nan_to_num(by_impression[..., None, :]) * self.impressions
            mean = (self.worth if quantity == UTILITY else self.probability) / self.rows[None, None, None, :, :, None]
        return mean_of(quantity, mean, weights)

    def together(self) -> Sums:
        """Of all segments as one."""
        added = {name: getattr(self, name).sum(-1, keepdims=True) for name in ("rows", "impressions")}
        added |= {name: getattr(self, name).sum(-2, keepdims=True) for name in ("probability", "expected", "worth")}
        return replace(self, segments=[ALL_ROWS], **added)


def mean_of(quantity: str, mean_H: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """[...] from means [..., H], heads as in `weights`: utility of what they are worth, or of probabilities the head that `quantity` names."""
    if quantity == UTILITY:
        return mean_H @ np.array(list(weights.values()))
    return mean_H[..., list(weights).index(quantity.split("_", 1)[1])]


def sums_of(
    spark: SparkSession,
    conf: Conf,
    sides: tuple[Side, Side],
    values: Mapping[str, Sequence[str]],
    chosen: Chosen,
    say: Callable[[str], None],
) -> Sums:
    """Every mixture of the two days, which are not the same one. `values`: as `Side.under` takes them; `say` hears of each step."""
    one_model = sides[0].model == sides[1].model
    days = sides[0].scored, sides[1].scored
    rows = reduce(DataFrame.unionByName, (chosen.rows(spark, conf, day) for day in days))
    known = with_features_of_either(rows, spark, conf, days).withColumnRenamed("features", FEATURES)
    known = known.withColumn(INVENTORY, (F.col("day") == F.lit(days[1])).cast("int"))
    calibrators = [side.calibrator for side in sides]
    found = []
    for side in sides[:1] if one_model else sides:
        say(f"scoring the inventory of {days[0]} and {days[1]} by model {side.model}, under both days' calibrators and features")
        found.append(_summed(known, side, conf.heads, calibrators, values))
    return _joined(found * 2 if one_model else found, list(conf.heads))


def _summed(
    known: DataFrame, side: Side, heads: Mapping[str, Head], calibrators: Sequence[str], values: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """(features, inventory, segment) -> rows, impressions, and per calibrator and head the sums of p, of p x expected_impressions and of what p is worth."""
    outputs = {f"{calibrator}_{name}": head for calibrator in range(len(calibrators)) for name, head in heads.items()}
    keys, numbers = (FEATURES, INVENTORY, SEGMENT), side.under(calibrators, values)
    kept = (*keys, "expected_impressions", "bid_micros")
    scored = mapped_numbers(known, side.template, side.towers, kept, list(outputs), numbers, values)
    sums: list[Column] = [F.count(F.lit(1)).alias("rows"), F.sum("expected_impressions").alias("impressions")]
    for name, head in outputs.items():
        by = {"p": F.lit(1.0), "expected": F.col("expected_impressions"), "worth": F.expr(price(head))}
        sums += [F.sum(F.col(name) * factor).alias(f"{what}_{name}") for what, factor in by.items()]
    return scored.groupBy(*keys).agg(*sums).toPandas().set_index(list(keys))


def _joined(of_models: Sequence[pd.DataFrame], heads: Sequence[str]) -> Sums:
    segments = sorted(set(of_models[0].index.get_level_values(SEGMENT)))
    shape = (2, 2, 2, 2, len(segments), len(heads))
    sums = {what: np.zeros(shape) for what in ("p", "expected", "worth")}
    of_day = {what: np.zeros((2, len(segments))) for what in ("rows", "impressions")}
    for model, (features, inventory) in product((0, 1), product((0, 1), repeat=2)):
        wanted = pd.MultiIndex.from_product([[features], [inventory], segments])
        whole = of_models[model].reindex(wanted).fillna(0.0)
        for what, counted in of_day.items():
            counted[inventory] = whole[what]
        for calibrator, (h, head) in product((0, 1), enumerate(heads)):
            at = (model, calibrator, features, inventory, slice(None), h)
            for what, of in sums.items():
                of[at] = whole[f"{what}_{calibrator}_{head}"]
    return Sums(segments, list(heads), of_day["rows"], of_day["impressions"], sums["p"], sums["expected"], sums["worth"])


def published_sums(spark: SparkSession, conf: Conf, days: Sequence[date], chosen: Chosen) -> pd.DataFrame:
    """(day, segment) -> sums of each p, as the table `scores` has them."""
    table, parts = schemas.scores(conf), []
    for day in days:
        inventory = chosen.rows(spark, conf, day).select("inventory_id", SEGMENT)
        parts.append(read_days(spark, conf.workdir, table, day, day).join(inventory, on="inventory_id", how="inner"))
    sums = [F.sum(f"p_{head}").alias(head) for head in conf.heads]
    return reduce(DataFrame.unionByName, parts).groupBy("day", SEGMENT).agg(*sums).toPandas().set_index(["day", SEGMENT])


def feature_means(
    spark: SparkSession,
    conf: Conf,
    side: Side,
    numbers: Numbers,
    values: Mapping[str, Sequence[str]],
    features: int,
    chosen: Chosen,
    quantity: str,
) -> np.ndarray:
    """float64 [1 + features, H]: mean probabilities, for `utility` of what they are worth, of the chosen rows (of SAMPLED of them where there are
    more) as they are, and without each feature. `numbers` gives these side by side."""
    rows, heads = chosen.rows(spark, conf, side.scored), conf.heads
    share = min(1.0, SAMPLED / max(rows.count(), 1))
    some = rows.where(F.pmod(F.xxhash64("inventory_id"), F.lit(1_000_000)) < round(1_000_000 * share))
    outputs = {
        f"{without}_{name}": price(head) if quantity == UTILITY else "1D" for without in range(1 + features) for name, head in heads.items()
    }
    known = with_features(some, spark, conf, side.scored, side.scored)
    scored = mapped_numbers(known, side.template, side.towers, (SEGMENT, "bid_micros"), list(outputs), numbers, values)
    found = scored.agg(*(F.avg(F.col(name) * F.expr(factor)).alias(name) for name, factor in outputs.items())).first()
    assert found is not None
    return np.array([np.nan if mean is None else mean for mean in found]).reshape(1 + features, len(heads))
