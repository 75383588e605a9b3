"""Spark's sums of two models on the same rows, against pandas on the same rows."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Head
from etl.comparison import RowsDiffer, pair_bins, pair_sums, paired_rows, require_same_rows
from models.calibration import Cell
from models.metrics import sigmoid
from models.verdict import influence

HEADS = {"click": Head(action="click"), "good_click": Head(action="click", parent="click")}
PLATT = {("click", "video"): Cell("platt", 0.3, -0.2)}
NONE: dict[tuple[str, str], Cell] = {}


def served(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False))


def made_up(seed: int, rows: int = 400) -> pd.DataFrame:
    """One model's rows of `served`: every tenth without a user, clicks of a quarter, a good click only under a click."""
    random = np.random.default_rng(seed)
    click = (random.random(rows) < 0.25).astype(int)
    good = np.where(click == 1, (random.random(rows) < 0.5).astype(int), 0)
    return pd.DataFrame(
        {
            "impression_id": [f"i{place}" for place in range(rows)],
            "user_id": [None if place % 10 == 0 else f"u{place % 37}" for place in range(rows)],
            "tower": np.where(np.arange(rows) % 3 == 0, "video", "feed"),
            "logit_click": random.normal(-1, 1, rows).round(2),  # ties
            "logit_good_click": random.normal(0, 1, rows).round(2),
            "label_click": click,
            "label_good_click": good,
        }
    )


@pytest.fixture(scope="module")
def both() -> tuple[pd.DataFrame, pd.DataFrame]:
    ours, theirs = made_up(1), made_up(1)
    theirs["logit_click"] = made_up(2)["logit_click"]
    return ours, theirs


def test_sums_by_cell_and_of_the_whole_are_those_of_each_users_rows(spark: SparkSession, both: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ours, theirs = both
    paired = paired_rows(served(spark, ours), served(spark, theirs), HEADS, (PLATT, NONE)).persist()
    bins = pair_bins(paired)
    effects = influence(bins)
    found = pair_sums(paired, effects)

    lines = []
    for head in HEADS:
        rows = pd.DataFrame({"head": head, "tower": ours["tower"], "user": ours["user_id"].fillna("alone " + ours["impression_id"])})
        z = ours[f"logit_{head}"]
        rows["a"] = np.where((head == "click") & (ours["tower"] == "video"), z * 0.8 + 0.3, z)
        rows["b"], rows["label"] = theirs[f"logit_{head}"], ours[f"label_{head}"].astype(float)
        lines.append(rows[ours["label_click"] == 1] if head == "good_click" else rows)
    pairs = pd.concat(lines, ignore_index=True)
    for side in "ab":
        pairs[f"loss_{side}"] = np.logaddexp(0, pairs[side]) - pairs["label"] * pairs[side]
        pairs[f"p_{side}"] = sigmoid(pairs[side].to_numpy())
        pairs[f"bin_{side}"] = np.floor(pairs[side] / 0.001).astype(int)
        one = effects[effects["side"] == side].rename(columns={"bin": f"bin_{side}"})
        joined = pairs.merge(one, on=["head", "tower", f"bin_{side}"], how="left")
        pairs[f"effect_{side}"] = np.where(joined["label"] == 1, joined["if_positive"], joined["if_negative"])
    pairs["auc"] = pairs["effect_a"] - pairs["effect_b"]
    names = ["loss_a", "loss_b", "p_a", "p_b", "auc", "label"]
    cells: list[tuple[str, str, pd.DataFrame]] = [(str(head), str(tower), part) for (head, tower), part in pairs.groupby(["head", "tower"])]
    for row, (head, tower, part) in zip(found.to_dict("records"), [*cells, ("(all)", "(all)", pairs)], strict=True):
        by_user = part.groupby("user")[names].sum()
        wanted: dict[str, Any] = {"head": head, "tower": tower, "rows": len(part), "positives": part["label"].sum(), "users": len(by_user)}
        wanted |= {f"sum_{name}": by_user[name].sum() for name in names}
        wanted |= {f"sq_{x}_{y}": (by_user[x] * by_user[y]).sum() for x, y in combinations_with_replacement(sorted(names), 2)}
        assert (row.pop("head"), row.pop("tower")) == (wanted.pop("head"), wanted.pop("tower"))
        assert row == pytest.approx(wanted, rel=1e-9, abs=1e-12), (head, tower)
    of_click = bins[(bins["head"] == "click") & (bins["side"] == "a")]
    assert of_click["rows"].sum() == len(ours) and of_click["positives"].sum() == ours["label_click"].sum()


def test_models_that_were_not_given_the_same_impressions_are_not_compared(
    spark: SparkSession, both: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    ours, theirs = both
    require_same_rows(served(spark, ours), served(spark, theirs))
    with pytest.raises(RowsDiffer, match="400 rows and production 399, together 400 impressions"):
        require_same_rows(served(spark, ours), served(spark, theirs.iloc[1:]))


def test_a_head_that_one_model_does_not_know_is_left_out(spark: SparkSession, both: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ours, theirs = both
    unknown = theirs.assign(logit_good_click=pd.Series([None] * len(theirs), dtype="float64"))
    paired = paired_rows(served(spark, ours), served(spark, unknown), HEADS, (NONE, NONE))
    assert {row["head"] for row in paired.select("head").distinct().collect()} == {"click"}
