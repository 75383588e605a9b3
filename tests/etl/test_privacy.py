"""User ids as keyed hashes: of what nothing can be told without the key, and by which people can be kept out."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from conf.load import ConfError
from conf.schema import Conf
from etl import schemas
from etl.privacy import KEPT_DIGITS, KEY_VARIABLE, WITHHELD, hashed, user_key, with_hashed
from etl.raw import Block
from etl.sources import account, classified
from tests.small import DAY, small_conf
from validation.rules import row_rules

KEY = "a key of more than sixteen bytes"
LONG_KEY = KEY * 3  # longer than a block of SHA-256, which HMAC hashes first


@pytest.mark.parametrize("key", [KEY, LONG_KEY])
def test_an_id_is_hashed_by_spark_as_by_pythons_hmac_and_nothing_stays_nothing(spark: SparkSession, key: str) -> None:
    ids = ["u1", "", " ", "ü-✓", None]
    frame = spark.createDataFrame([(number, one) for number, one in enumerate(ids)], "number INT, user_id STRING")
    found = [row["user_id"] for row in with_hashed(frame, key.encode(), "user_id").orderBy("number").collect()]
    theirs = [hmac.new(key.encode(), one.encode(), hashlib.sha256).hexdigest()[:KEPT_DIGITS] for one in ("u1", "ü-✓")]
    assert found == [theirs[0], "", " ", theirs[1], None]
    assert hashed(key.encode(), "u1") == theirs[0]


def test_no_plan_shows_the_key(spark: SparkSession) -> None:
    frame = with_hashed(spark.createDataFrame([("u1",)], "user_id STRING"), KEY.encode(), "user_id")
    plans = frame._jdf.queryExecution().toString() + frame._jdf.queryExecution().executedPlan().toString()
    padded = KEY.encode().ljust(64, b"\0")
    for mask in (0, 0x36, 0x5C):
        shown = bytes(byte ^ mask for byte in padded)
        assert shown.hex().upper()[:16] not in plans.upper() and shown.decode("latin1")[:16] not in plans
    assert "sha2" in plans


@pytest.mark.parametrize(("value", "found"), [(None, "is not set"), ("short", "has 5 bytes")])
def test_without_a_key_the_configuration_is_refused_and_names_the_variable(monkeypatch: Any, value: str | None, found: str) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if value:
        monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(ConfError, match=f"privacy.hash_user_ids is on.*{KEY_VARIABLE} {found}"):
        user_key(private())
    assert user_key(small_conf()) is None


def private() -> Conf:
    return small_conf(privacy={"hash_user_ids": True})


def judged(spark: SparkSession, conf: Conf, folder: Path, lines: Sequence[str], forgotten: Sequence[str] = ()) -> tuple[list[Row], Any]:
    """Rows by their order in the file, and their account."""
    path = folder / "part.json"
    path.write_text("\n".join(lines) + "\n")
    blocks = [Block("feed", conf.sources["feed"], (str(path),))]
    gone = spark.createDataFrame([(one,) for one in forgotten], "user_id STRING") if forgotten else None
    rows = classified(spark, conf, blocks, schemas.impressions(conf), row_rules("impressions"), DAY, DAY, DAY, gone)
    return rows.collect(), account(rows)


def line(number: int, user: str, **over: str) -> str:
    clocks = {"shown": f"{DAY}T10:00:00Z", "received": f"{DAY}T10:00:05Z"}
    return json.dumps({"id": f"i{number}", "user": user, "ad": "a1", "hour": "10", **clocks, **over})


def test_tables_and_quarantine_hold_hashes_alone(spark: SparkSession, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    lines = [line(1, "person-1"), line(2, "person-2", shown="never"), '{"id": "i3", "user": "person-3", ']
    rows, counted = judged(spark, private(), tmp_path, lines)
    assert "person" not in str(rows)
    (kept,) = [row for row in rows if row["verdict"] == "kept"]
    assert kept["user_id"] == hashed(KEY.encode(), "person-1")
    told = {tuple(row["reasons"]): row["raw"] for row in rows if row["verdict"] == "quarantined"}
    assert told[("unreadable",)] == WITHHELD
    (broken,) = [json.loads(raw) for reasons, raw in told.items() if reasons != ("unreadable",)]
    assert broken["user"] == WITHHELD and broken["id"] == "i2" and broken["shown"] == "never"
    assert [(row["rows_in"], row["kept"], row["quarantined"], row["forgotten"]) for row in counted] == [(3, 1, 2, 0)]


def test_a_column_from_which_the_user_is_derived_is_withheld_too(spark: SparkSession, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    feed = private().sources["feed"].model_dump(mode="json", exclude_defaults=True)
    by_cookie = feed | {"derive": {"cookie": "concat('c-', hour)"}, "columns": feed["columns"] | {"user_id": "coalesce(user, cookie)"}}
    conf = small_conf(privacy={"hash_user_ids": True}, sources={"feed": by_cookie})
    rows, _ = judged(spark, conf, tmp_path, [line(1, "person-1", shown="never")])
    raw = json.loads(rows[0]["raw"])
    assert (raw["user"], raw["hour"], raw["ad"]) == (WITHHELD, WITHHELD, "a1")


def test_rows_of_someone_who_was_forgotten_are_set_aside_and_nothing_of_them_stays(spark: SparkSession, tmp_path: Path) -> None:
    lines = [line(1, "stays"), line(2, "gone"), line(3, "gone", shown="never")]
    rows, counted = judged(spark, small_conf(), tmp_path, lines, forgotten=["gone", "gone-too"])
    assert [(row["reasons"], row["raw"]) for row in rows if row["verdict"] == "quarantined"] == [(["forgotten_user"], None)] * 2
    assert [(row["rows_in"], row["kept"], row["quarantined"], row["forgotten"]) for row in counted] == [(3, 1, 2, 2)]
