"""Log-odds and scores of rows, by predictors whose numbers can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from conf.training import ModelConf, Training
from etl import schemas
from etl.scores import score_inventory, served_rows, with_log_odds
from etl.snapshot import write_snapshot
from models.calibration import Calibrator, Cell
from models.predictor import load_predictor, predict, predict_probabilities
from models.trainer import TrainRequest, train
from tests.small import DAY, at, rows, small_conf
from validation.table_rules import rules_of

BASE = small_conf().model_dump(mode="json")["heads"]
WEIGHTS = {"click": 1.0, "good_click": 0.25, "scroll_up": -0.5}
CONF = small_conf(heads={name: {**head, "utility_weight": WEIGHTS[name]} for name, head in BASE.items()})
TOWERS = ["feed", "video"]
HEADS = ["click", "good_click", "scroll_up"]
Columns = Mapping[str, np.ndarray]


def age_tower_missing(columns: Columns) -> np.ndarray:
    """Log-odds [N, 3] that are plainly three of the encoded columns."""
    return np.stack([columns["ad_age_days"], columns["tower"], columns["ad_age_days__missing"]], axis=1)


MADE_FROM = {"model": "m1", "calibrator": "k1", "inventory_version": 4, "run_id": "r1", "scored_at": at("23:00")}


def probabilities(columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw: p_click = age / 100, the others half and a quarter of it. Calibrated: each times 0.8. Facts: an age of 30 is out of range."""
    click = columns["ad_age_days"].astype(np.float64) / 100
    raw = np.stack([click, click / 2, click / 4], axis=1)
    facts = np.stack([click / 2, columns["ad_age_days__missing"], click == 0.3], axis=1)
    return raw, raw * 0.8, facts


def inventory(spark: SparkSession, *given: dict[str, Any]) -> DataFrame:
    """Rows of inventory with the features of users and ads joined on."""
    table = schemas.inventory(CONF)
    joined = schemas.Table("joined", (*table.columns, *schemas.feature_columns(CONF.template, "user", "ad")), table.key)
    full = {
        "user_id": "u1",
        "campaign_id": "c1",
        "advertiser_id": "adv",
        "expected_impressions": 10.0,
        "ad_age_days": 50.0,
        "received_at": at("01:00"),
    }
    return rows(spark, joined, [{**full, **row} for row in given])


def scored(frame: DataFrame, probability: Callable = probabilities, segments: Mapping[str, Sequence[str]] | None = None) -> DataFrame:
    return score_inventory(
        frame,
        CONF,
        CONF.template,
        TOWERS,
        probability,
        made_from=MADE_FROM,
        segments=segments,
    )


def by_id(frame: DataFrame) -> dict[str, Row]:
    return {row["inventory_id"]: row for row in frame.collect()}


def test_log_odds_are_the_predictors_for_the_rows_own_encoding(spark: SparkSession) -> None:
    shown: list[dict[str, Any]] = [
        {"impression_id": "a", "ad_age_days": 3.5},
        {"impression_id": "b", "ad_age_days": None, "tower": "video"},
        {"impression_id": "c", "ad_age_days": -1.0, "tower": "radio"},
    ]
    frame = rows(spark, schemas.examples(CONF), shown, user_id="u1")
    # user_id and tower are encoded under these very names, and kept as they are all the same
    found = with_log_odds(frame, CONF.template, TOWERS, HEADS, age_tower_missing, keep=("impression_id", "user_id", "tower"))
    assert found.columns == ["impression_id", "user_id", "tower", "logit_click", "logit_good_click", "logit_scroll_up"]
    assert sorted(found.collect()) == [
        ("a", "u1", "feed", 3.5, 0.0, 0.0),
        ("b", "u1", "video", 0.0, 1.0, 1.0),
        ("c", "u1", "radio", -1.0, -1.0, 0.0),
    ]


def test_served_rows_are_the_tables_with_labels_as_in_examples(spark: SparkSession) -> None:
    shown = [
        {"impression_id": "a", "ad_age_days": 1.0, "label_click": 1, "label_good_click": None},
        {"impression_id": "b", "label_click": 0},
    ]
    found = served_rows(
        rows(spark, schemas.examples(CONF), shown, user_id="u1"), CONF, CONF.template, TOWERS, age_tower_missing, model_id="m1"
    )
    assert [(f.name, f.dataType) for f in found.schema] == [(f.name, f.dataType) for f in schemas.served(CONF).columns]
    assert sorted(found.collect()) == [
        ("a", "m1", "u1", "feed", "feed", 1.0, 0.0, 0.0, 1, None, None, DAY),
        ("b", "m1", "u1", "feed", "feed", 0.0, 0.0, 1.0, 0, None, None, DAY),
    ]


@pytest.fixture(scope="module")
def scores(spark: SparkSession) -> dict[str, Row]:
    """Five rows of one day, scored."""
    return by_id(
        scored(
            inventory(
                spark,
                {"inventory_id": "a", "ad_age_days": 50.0, "expected_impressions": 10.0},
                {"inventory_id": "b", "ad_age_days": 30.0, "tower": "radio"},
                {"inventory_id": "c", "ad_age_days": 30.0, "user_id": None},
                {"inventory_id": "d", "ad_age_days": 90.0, "user_id": None, "tower": "radio"},
                {"inventory_id": "e", "ad_age_days": 20.0, "expected_impressions": None, "tower": "video"},
            )
        )
    )


def test_a_score_row_holds_both_probabilities_and_what_follows_from_them(scores: dict[str, Row]) -> None:
    row = scores["a"]
    assert list(row.asDict()) == [field.name for field in schemas.scores(CONF).columns]
    assert [row[f"p_{head}_raw"] for head in HEADS] == [0.5, 0.25, 0.125]
    assert [row[f"p_{head}"] for head in HEADS] == [0.4, 0.2, 0.1]
    assert [row[f"expected_{head}"] for head in HEADS] == [4.0, 2.0, 1.0]
    assert row["utility"] == 0.4 + 0.2 / 4 - 0.1 / 2
    assert (row["model"], row["calibrator"], row["inventory_version"], row["run_id"], row["day"]) == ("m1", "k1", 4, "r1", DAY)
    assert (row["source"], row["tower"], row["campaign_id"], row["advertiser_id"]) == ("feed", "feed", "c1", "adv")
    assert row["scored_at"].timestamp() == at("23:00").timestamp()


def test_what_a_row_stands_for_may_be_unknown(scores: dict[str, Row]) -> None:
    assert (scores["e"]["expected_impressions"], scores["e"]["p_click"], scores["e"]["expected_click"]) == (None, 0.2 * 0.8, None)


def test_rows_are_ranked_by_utility_then_id_and_a_percentile_is_the_share_of_others_below(scores: dict[str, Row]) -> None:
    assert {name: (row["rank"], row["percentile"]) for name, row in scores.items()} == {
        "d": (1, 1.0),
        "a": (2, 0.75),
        "b": (3, 0.5),
        "c": (4, 0.25),
        "e": (5, 0.0),
    }


def test_flags_name_what_a_score_rests_on_less_than_others(scores: dict[str, Row]) -> None:
    assert {name: row["flags"] for name, row in scores.items()} == {
        "a": [],
        "b": ["unknown_tower", "out_of_range"],
        "c": ["unknown_user", "out_of_range"],
        "d": ["unknown_user", "unknown_tower"],
        "e": [],
    }
    assert {name: row["unseen_share"] for name, row in scores.items()} == {"a": 0.25, "b": 0.15, "c": 0.15, "d": 0.45, "e": 0.1}


def test_where_a_head_asks_for_it_its_part_of_utility_is_multiplied_by_the_bid(spark: SparkSession) -> None:
    heads = {name: {**head, "utility_weight": WEIGHTS[name], "utility_times_bid": name == "click"} for name, head in BASE.items()}
    conf = small_conf(heads=heads)
    given = inventory(spark, {"inventory_id": "a", "bid_micros": 2_500_000}, {"inventory_id": "b", "bid_micros": 0}, {"inventory_id": "c"})
    found = by_id(score_inventory(given, conf, conf.template, TOWERS, probabilities, made_from=MADE_FROM))
    others = 0.2 / 4 - 0.1 / 2
    assert {name: (row["utility"], row["bid_micros"], row["flags"]) for name, row in found.items()} == {
        "a": (pytest.approx(0.4 * 2.5 + others), 2_500_000, []),
        "b": (pytest.approx(others), 0, []),
        "c": (pytest.approx(others), None, ["unknown_bid"]),
    }
    changed = spark.createDataFrame(found.values(), schemas.scores(conf).schema)
    (rule,) = (rule for rule in rules_of(schemas.scores(conf), conf) if rule.column == "utility")
    assert changed.where(rule.broken).count() == 0
    assert changed.withColumn("bid_micros", F.lit(1_000_000).cast("long")).where(rule.broken).count() == 3


def test_a_row_alone_is_the_best_and_no_rows_are_no_scores(spark: SparkSession) -> None:
    alone = scored(inventory(spark, {"inventory_id": "i1"}))
    assert [(field.name, field.dataType) for field in alone.schema] == [
        (field.name, field.dataType) for field in schemas.scores(CONF).columns
    ]
    assert [(row["rank"], row["percentile"]) for row in alone.collect()] == [(1, 1.0)]
    assert scored(inventory(spark)).collect() == []


def test_each_row_is_scored_once(spark: SparkSession, tmp_path: Path) -> None:
    def counting(columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with (tmp_path / "seen").open("a") as file:
            file.write(f"{len(columns['tower'])}\n")
        return probabilities(columns)

    frame = inventory(spark, *({"inventory_id": f"i{number}"} for number in range(40))).repartition(3)
    result = scored(frame, counting)
    assert result.count() == 40 and len(result.collect()) == 40
    assert sum(map(int, (tmp_path / "seen").read_text().split())) == 40


def test_numbers_that_no_score_can_be_are_refused(spark: SparkSession) -> None:
    frame = inventory(spark, {"inventory_id": "i1", "ad_age_days": 100.0}, {"inventory_id": "i2", "ad_age_days": 50.0})
    with pytest.raises(PythonException, match=r"probabilities of 1 of \d rows are not inside \(0, 1\)"):
        scored(frame)  # the first has a raw p_click of 1

    def log_of_age(columns: Columns) -> np.ndarray:
        return np.stack([np.log(columns["ad_age_days"] - 50)] * 3, axis=1)

    with pytest.raises(PythonException, match=r"log-odds of 1 of \d rows are not finite"):
        with_log_odds(frame, CONF.template, TOWERS, HEADS, log_of_age, keep=("inventory_id",)).collect()
    with pytest.raises(PythonException, match=r"gave shape \(\d, 3\).*need \(\d, 2\)"):
        with_log_odds(frame, CONF.template, TOWERS, HEADS[:2], age_tower_missing, keep=("inventory_id",)).collect()


def test_a_trained_model_scores_in_spark_as_it_does_on_the_snapshot_it_learned_from(spark: SparkSession, tmp_path: Path) -> None:
    shown = [
        {
            "impression_id": f"i{n}",
            "ad_age_days": float(n),
            "user_id": f"u{n % 9}",
            "hour": str(n % 24),
            "tower": TOWERS[n % 2],
            "label_click": n % 2,
        }
        for n in range(64)
    ]
    examples = rows(spark, schemas.examples(CONF), shown, label_good_click=0, label_scroll_up=1)
    write_snapshot(examples, CONF, tmp_path / "snapshot", examples_version=0, table_id="t", days=(DAY, DAY))
    bundle = str(tmp_path / "bundle")
    small = ModelConf(embedding_width=4, bottom_widths=(8,), tower_widths=(4,))
    train(
        TrainRequest(str(tmp_path / "snapshot"), bundle, "m1", small, Training(backend="single", ranks=1, batch_size=16), epochs=1, seed=1)
    )

    learned = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "snapshot").glob("*.parquet")))
    log_odds = load_predictor(bundle).log_odds({name: learned[name].to_numpy() for name in learned.column_names})
    wanted = dict(zip(learned["ad_age_days"].to_pylist(), log_odds, strict=True))
    found = with_log_odds(examples, CONF.template, TOWERS, HEADS, partial(predict, bundle), keep=("ad_age_days", "tower")).collect()
    assert len(found) == 64
    for row in found:
        assert [row[f"logit_{head}"] for head in HEADS] == pytest.approx(wanted[row["ad_age_days"]], abs=1e-5)

    cells = {head: {"video": Cell("featured", b0=1.0, w={"country=US": 0.5, "country=BR": -2.0})} for head in HEADS}
    shifted = Calibrator(tuple(HEADS), cells)
    candidates = inventory(
        spark,
        {"inventory_id": "i1", "tower": "feed", "country": "US"},
        {"inventory_id": "i2", "tower": "video"},
        {"inventory_id": "i3", "tower": "video", "country": "US"},
        {"inventory_id": "i4", "tower": "radio", "user_id": None, "ad_age_days": None},
    )
    calibrated = by_id(scored(candidates, partial(predict_probabilities, bundle, shifted.to_json()), shifted.values))
    feed, video, american = calibrated["i1"], calibrated["i2"], calibrated["i3"]
    assert feed["p_click"] == feed["p_click_raw"]
    for row, moved in ((video, 1.0), (american, 1.5)):  # log-odds of video are one higher, of its US half as much again
        odds = [p / (1 - p) for p in (row["p_click_raw"], row["p_click"])]
        assert odds[1] / odds[0] == pytest.approx(math.exp(moved))
        assert row["p_good_click"] <= row["p_click"]
    assert calibrated["i4"]["flags"] == ["unknown_user", "unknown_tower", "imputed"] and calibrated["i4"]["unseen_share"] == 0.0
    # Users were trained on, countries were not.
    assert {name: row["unseen_share"] for name, row in calibrated.items()} == {"i1": 0.5, "i2": 0.0, "i3": 0.5, "i4": 0.0}
