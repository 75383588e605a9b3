"""Grouped AUC of served rows: scikit-learn's AUC of each user's rows, weighed by their number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import roc_auc_score

from conf.schema import Head
from etl.grouped import user_sums
from models.metrics import grouped_auc

HEADS = {"click": Head(action="click"), "good_click": Head(action="click", parent="click")}


def test_sums_over_users_are_those_of_scikit_learns_auc_of_each_in_every_slice(spark: SparkSession) -> None:
    random = np.random.default_rng(1)
    click = (random.random(600) < 0.4).astype(int)
    rows = pd.DataFrame(
        {
            "model": "m",
            "stage": "raw",
            "user_id": [None if place % 11 == 0 else f"u{place % 23}" for place in range(600)],
            "source": np.where(np.arange(600) % 2 == 0, "feed", "search"),
            "tower": np.where(np.arange(600) % 3 == 0, "video", "image"),
            "logit_click": random.normal(-1, 1, 600).round(1),  # ties
            "logit_good_click": random.normal(0, 1, 600),
            "label_click": click,
            "label_good_click": click * (random.random(600) < 0.5),
        }
    )
    staged = spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False)).repartition(5)
    found = {tuple(row[1:5]): tuple(row[5:]) for row in user_sums(staged, HEADS, grouped_auc).itertuples(index=False)}

    known = rows[rows["user_id"].notna()]
    slices = {("(all)", "(all)"): known}
    slices |= {(source, "(all)"): known[known["source"] == source] for source in ("feed", "search")}
    slices |= {("(all)", tower): known[known["tower"] == tower] for tower in ("image", "video")}
    assert len(found) == len(HEADS) * len(slices)
    for head in HEADS:
        for (source, tower), part in slices.items():
            of_head = part[part["label_click"] == 1] if head == "good_click" else part
            groups = [group for _, group in of_head.groupby("user_id")]
            both = [group for group in groups if group[f"label_{head}"].nunique() == 2]
            numerator = sum(roc_auc_score(group[f"label_{head}"], group[f"logit_{head}"]) * len(group) for group in both)
            wanted = (numerator, sum(map(len, both)), len(both), len(groups) - len(both))
            assert found[(head, "raw", source, tower)] == pytest.approx(wanted), (head, source, tower)
