"""200 real rows of KuaiRand through conf/kuairand.yaml, counted by hand with pandas.

The sample joins the log with the features of users and videos, and has neither times nor reactions beside the click; so the download's
three files are made of it, each row a second after the one before, and the reactions by a rule that is stated here.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import Row, SparkSession

from conf.load import load
from conf.schema import Conf
from conf.source import Kind
from etl import schemas
from etl.landing import files_by_day
from etl.raw import Block
from etl.sources import account, settled
from validation.rules import row_rules

ROOT = Path(__file__).parents[2]
DAY = date(2022, 4, 20)
START = int(datetime(2022, 4, 20, 23, 58, tzinfo=UTC).timestamp() * 1000)  # so that 120 rows are of the 20th, 80 of the 21st


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    path = Path(os.environ.get("ADTOWER_DATA", ROOT / "../shared/data")) / "kuairand" / "kuairand_sample_200rows.csv"
    if not path.exists():
        pytest.fail(f"no {path.resolve()}; set ADTOWER_DATA to the folder that holds kuairand/{path.name}")
    rows = pd.read_csv(path, dtype=str)
    rows["time_ms"] = [START + 1000 * place for place in range(len(rows))]
    played, length = rows["play_time_ms"].astype(float), rows["duration_ms"].astype(float)
    rows["long_view"] = (played >= length.clip(upper=18_000)).astype(int)
    rows["is_comment"] = (rows["comment_stay_time"] != "0").astype(int)
    rows["is_like"] = [int(place % 10 == 0) for place in range(len(rows))]
    return rows.assign(is_follow=0, is_forward=[int(place % 50 == 0) for place in range(len(rows))], is_hate=0)


@pytest.fixture(scope="module")
def conf(sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    landing = tmp_path_factory.mktemp("kuairand")
    users = [name for name in sample.columns[8:38]]
    sample.drop(columns=users).to_csv(landing / "log_standard_4_08_to_4_21_1k.csv", index=False)
    sample.drop_duplicates("user_id")[["user_id", *users]].to_csv(landing / "user_features_1k.csv", index=False)
    videos = ["video_id", "video_type", "visible_status", "server_width", "server_height"]
    sample.drop_duplicates("video_id")[videos].to_csv(landing / "video_features_basic_1k.csv", index=False)
    return load(ROOT / "conf" / "kuairand.yaml").model_copy(update={"landing": str(landing)})


def ingested(spark: SparkSession, conf: Conf, kind: Kind, first: date, last: date, night: date) -> list[Row]:
    blocks = [
        Block(name, source, tuple(file.path for file in files_by_day(spark, conf, source, first, last)[first]))
        for name, source in conf.sources.items()
        if source.kind == kind
    ]
    rows, counted = settled(spark, conf, blocks, schemas.all_tables(conf)[kind], row_rules(kind), first, last, night)
    assert all(row["rows_in"] == row["kept"] + row["duplicates"] + row["quarantined"] for row in counted)
    assert counted == account(rows)
    return list(rows.collect())


def test_impressions_are_the_rows_of_the_log_each_in_the_tower_of_its_tab(spark: SparkSession, conf: Conf, sample: pd.DataFrame) -> None:
    rows = ingested(spark, conf, "impressions", DAY, DAY, DAY)
    assert Counter(row["verdict"] for row in rows) == {"kept": 120, "not_due": 80}  # the 21st is received after this night
    assert {row["tower"] for row in rows} == {"tab_1"} == {f"tab_{tab}" for tab in sample["tab"]}
    given = sample.iloc[0]
    first = next(row for row in rows if row["impression_id"] == f"{given['user_id']}-{given['video_id']}-{START}")
    assert (first["shown_at"], first["hour"], first["duration_ms"]) == (datetime(2022, 4, 20, 23, 58), "7", float(given["duration_ms"]))


def test_engagements_are_counted_as_pandas_counts_them(spark: SparkSession, conf: Conf, sample: pd.DataFrame) -> None:
    rows = [row for row in ingested(spark, conf, "engagements", DAY, DAY + timedelta(days=1), DAY + timedelta(days=1))]
    marks = {"click": "is_click", "like": "is_like", "comment": "is_comment", "forward": "is_forward", "long_view": "long_view"}
    by_hand = {action: int(sample[column].astype(int).sum()) for action, column in marks.items()}
    assert Counter(row["action"] for row in rows) == by_hand  # no one followed or hated
    assert {row["verdict"] for row in rows} == {"kept"}
    dwell = sample.loc[sample["is_click"] == "1", "play_time_ms"].astype(int).sum()
    assert sum(row["dwell_ms"] for row in rows if row["action"] == "click") == dwell


def test_users_videos_and_the_inventory_of_the_next_day(spark: SparkSession, conf: Conf, sample: pd.DataFrame) -> None:
    before = date(2022, 4, 7)
    for kind, key in (("users", "user_id"), ("ads", "video_id")):
        rows = ingested(spark, conf, kind, before, DAY, DAY)  # type: ignore[arg-type]
        assert [row["verdict"] for row in rows] == ["kept"] * sample[key].nunique()
    inventory = ingested(spark, conf, "inventory", DAY + timedelta(days=1), DAY + timedelta(days=1), DAY)
    assert Counter(row["verdict"] for row in inventory) == {"kept": 80, "other_day": 120}
