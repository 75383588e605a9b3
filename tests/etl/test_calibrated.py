"""A calibrator on rows of `served` in Spark: the same numbers as on rows that are scored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.segments import FIXED, code_column
from etl import schemas
from etl.calibrated import calibrated, in_both_stages
from etl.scores import score_inventory, served_rows
from models.calibration import Calibrator, Cell, probabilities
from tests.small import at, rows, small_conf

CONF = small_conf(calibration={"method": "featured", "features": ["country", "source", "hour"]})
HEADS, TOWERS, PARENTS = list(CONF.heads), ["feed", "video"], [-1, 0, -1]
WEIGHTS = {"country=US": 0.40517362811, "country=B\"R='": -0.7, "country=": 0.2, "hour=7": 1e-7, "hour=\u00e9": -1 / 3, "source=feed": 0.05}
CALIBRATOR = Calibrator(
    tuple(HEADS),
    {
        "click": {"feed": Cell("featured", 0.3, -0.2, WEIGHTS), "video": Cell("featured", -0.1, 0.4, {"country=US": -1.25})},
        "good_click": {"feed": Cell("platt", 0.2, 0.1), "video": Cell("identity")},
        "scroll_up": {"feed": Cell("identity"), "video": Cell("featured", 0.0, 0.0, {"hour=7": 2.5})},
    },
)


def log_odds(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log-odds [N, 3] of the ad's age."""
    return np.stack([columns["ad_age_days"] * factor for factor in (0.01, 0.02, -0.03)], axis=1).astype(np.float64)


def scored(calibrator: str, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fitted, z = Calibrator.from_json(calibrator), log_odds(columns)
    codes = {feature: columns[code_column(feature)] for feature in fitted.values}
    calibrated_z = fitted.calibrated_log_odds(z, columns["tower"], TOWERS, codes)
    return probabilities(z, PARENTS), probabilities(calibrated_z, PARENTS), np.zeros((len(z), 3))


def shown() -> list[dict[str, Any]]:
    """Every country with every hour, seen in the fit, unseen and missing, in both towers and in one that is unknown."""
    countries, hours = ["US", "B\"R='", "", "JP", None], ["7", "\u00e9", "23", None]
    return [
        {"country": country, "hour": hour, "tower": tower, "source": "feed" if number % 2 else "video", "ad_age_days": number * 7.0 - 150}
        for number, (country, hour, tower) in enumerate((c, h, t) for c in countries for h in hours for t in ("feed", "video", "radio"))
    ]


def test_a_calibrator_gives_served_rows_the_log_odds_that_it_gives_scored_ones(spark: SparkSession) -> None:
    given = shown()
    examples = rows(spark, schemas.examples(CONF), [{"impression_id": f"i{n:02d}", **row} for n, row in enumerate(given)])
    served = served_rows(examples, CONF, CONF.template, TOWERS, log_odds, model_id="m1")
    cells = CALIBRATOR.by_cell
    ours = served.select("impression_id", *(calibrated(F.col(f"logit_{head}"), head, cells).alias(head) for head in HEADS))
    in_spark = np.array([row[1:] for row in sorted(ours.collect())])

    table = schemas.inventory(CONF)
    joined = schemas.Table("joined", (*table.columns, *schemas.feature_columns(CONF.template, "user", "ad")), table.key)
    inventory = rows(spark, joined, [{"inventory_id": f"i{n:02d}", "received_at": at("01:00"), **row} for n, row in enumerate(given)])
    scores = score_inventory(
        inventory,
        CONF,
        CONF.template,
        TOWERS,
        partial(scored, CALIBRATOR.to_json()),
        made_from={"model": "m1", "calibrator": "k1", "inventory_version": 1, "run_id": "r1", "scored_at": at("23:00")},
        segments=CALIBRATOR.values,
    )
    p = np.array([row[1:] for row in sorted(scores.select("inventory_id", *(f"p_{head}" for head in HEADS)).collect())])
    p[:, 1] /= p[:, 0]  # a child's given its parent
    assert np.abs(np.log(p) - np.log1p(-p) - in_spark).max() < 1e-9

    # By hand: seen and unseen values, a missing one, a tower without a cell.
    by_hand = {
        ("US", "23", "feed"): lambda z, source: 0.8 * z + 0.3 + 0.40517362811 + 0.05 * source,
        ("JP", None, "feed"): lambda z, source: 0.8 * z + 0.3 + 0.05 * source,
        (None, "7", "video"): lambda z, source: 1.4 * z - 0.1,
        ("US", "7", "radio"): lambda z, source: z,
    }
    for number, row in enumerate(given):
        formula = by_hand.get((row["country"], row["hour"], row["tower"]))
        if formula:
            z = np.float32(row["ad_age_days"]) * 0.01
            assert in_spark[number, 0] == pytest.approx(formula(z, row["source"] == "feed"), abs=1e-6)


def test_served_keeps_the_columns_that_the_calibrator_reads_and_no_other(spark: SparkSession) -> None:
    plain, featured = (schemas.served(conf) for conf in (small_conf(), CONF))
    assert [field.name for field in featured.columns if field.name not in plain.schema.names] == ["country", "hour"]
    examples = rows(spark, schemas.examples(CONF), [{"impression_id": "a", "country": "US", "hour": None, "ad_age_days": 1.0}])
    found = served_rows(examples, CONF, CONF.template, TOWERS, log_odds, model_id="m1")
    assert found.columns == featured.schema.names
    assert found.select("country", "source", "hour").collect() == [("US", "feed", None)]


def test_each_served_row_stands_in_both_stages(spark: SparkSession) -> None:
    row = {"impression_id": "a", "model": "m1", "country": "US", "source": "feed", "logit_click": 1.0, "logit_good_click": None}
    served = rows(spark, schemas.served(CONF), [row], tower="video", logit_scroll_up=-1.0)
    found = in_both_stages(served, CONF.heads, CALIBRATOR.by_cell)
    logits = [f"logit_{head}" for head in HEADS]
    assert sorted(found.select("stage", *logits).collect()) == [
        ("calibrated", pytest.approx(1.4 - 0.1 - 1.25), None, -1.0),
        ("raw", 1.0, None, -1.0),
    ]


def test_a_column_that_a_calibrator_may_read_whatever_the_template_is_a_string_of_impressions_and_inventory() -> None:
    for columns in (schemas.IMPRESSION_COLUMNS, schemas.INVENTORY_COLUMNS):
        assert set(FIXED) <= {field.name for field in columns if field.dataType == schemas.STRING}
