"""DeskDrop, read by configuration alone, against the counts that its description and pandas give."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.load import load
from conf.schema import Conf
from conf.source import Kind
from etl.labels import with_labels
from etl.raw import Block
from etl.schemas import all_tables
from etl.sources import settled
from validation.rules import row_rules

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ADTOWER_DATA") or ROOT.parent / "shared" / "data") / "deskdrop" / "users_interactions.csv.gz"
FIRST, LAST, NIGHT = date(2016, 3, 14), date(2017, 2, 28), date(2017, 3, 2)  # by then every window has closed


@pytest.fixture(scope="module")
def conf() -> Conf:
    assert DATA.is_file(), f"no {DATA}: set ADTOWER_DATA to the folder that holds deskdrop/users_interactions.csv.gz"
    return load(ROOT / "conf" / "deskdrop.yaml")


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    events = pd.read_csv(DATA, dtype={name: str for name in ("contentId", "personId", "sessionId")})
    events["key"] = events.personId + "/" + events.sessionId + "/" + events.contentId
    first = events[events.eventType == "VIEW"].groupby("key").timestamp.min().rename("first_view")
    return events.join(first, on="key")


def kept(spark: SparkSession, conf: Conf, kind: Kind) -> DataFrame:
    blocks = [Block(name, source, (str(DATA),)) for name, source in conf.sources.items() if source.kind == kind]
    rows, account = settled(spark, conf, blocks, all_tables(conf)[kind], row_rules(kind), FIRST, LAST, NIGHT)
    assert all(row["rows_in"] == row["kept"] + row["duplicates"] + row["quarantined"] and not row["quarantined"] for row in account)
    return rows.where("verdict = 'kept'")


@pytest.fixture(scope="module")
def examples(spark: SparkSession, conf: Conf) -> pd.DataFrame:
    rows = with_labels(kept(spark, conf, "impressions"), kept(spark, conf, "engagements"), conf, NIGHT)
    return rows.select("impression_id", "client", "tower", *(f"label_{head}" for head in conf.heads)).toPandas()


def test_an_impression_is_the_first_view_of_an_article_in_a_session(examples: pd.DataFrame, events: pd.DataFrame) -> None:
    assert len(examples) == 45_510
    assert set(examples.impression_id) == set(events.key[events.first_view.notna()])
    clients = {"desktop_web": 40_478, "mobile_web": 413, "android_app": 4_559, "ios_app": 60}
    assert examples.client.value_counts().to_dict() == clients
    assert set(examples.tower) == {"desktop_web", "mobile_web", "android_app"}  # 60 rows are no tower


def test_reactions_count_from_the_first_view_on_and_by_last_touch(examples: pd.DataFrame, events: pd.DataFrame) -> None:
    described = {"like": 5_292, "save": 1_692, "comment": 1_448, "follow": 1_322}
    named = {"like": "LIKE", "save": "BOOKMARK", "comment": "COMMENT CREATED", "follow": "FOLLOW"}
    after = events[events.timestamp >= events.first_view]
    for head, name in named.items():
        labels = examples[f"label_{head}"]
        assert after.key[after.eventType == name].nunique() == labels.sum() == described[head]
        assert labels.notna().all()  # an engagement before its impression makes no label, and masks none


def test_reading_on_is_masked_where_the_next_view_is_not_known(examples: pd.DataFrame, events: pd.DataFrame) -> None:
    views = events[events.timestamp == events.first_view].drop_duplicates("key").sort_values("timestamp")
    times = views.groupby(["personId", "sessionId"]).timestamp
    assert times.shift(-1).notna().sum() == 16_994  # as described: the next row, even of the same second
    seconds = views[["personId", "sessionId", "timestamp"]].drop_duplicates()
    seconds["next"] = seconds.groupby(["personId", "sessionId"]).timestamp.shift(-1)
    known = views.merge(seconds, on=["personId", "sessionId", "timestamp"]).dropna(subset="next")
    labels = examples.label_long_view.dropna()
    assert (len(labels), labels.sum()) == (len(known), (known.next - known.timestamp >= 60).sum())
    assert 0 < 16_994 - len(known) < 100  # of two views in one second, which came first is not known
