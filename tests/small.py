"""A small configuration and full default rows, so that a test states only the field that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from conf.load import load_text
from conf.schema import Conf
from etl.schemas import Table
from etl.tables import frame_of

DAY = date(2026, 5, 10)


def at(text: str, day: date = DAY) -> datetime:
    """A moment of `day`, UTC."""
    return datetime.fromisoformat(f"{day}T{text}").replace(tzinfo=UTC)


def small_conf(workdir: str = "unused", **over: Any) -> Conf:
    base: dict[str, Any] = {
        "name": "small",
        "workdir": workdir,
        "heads": {
            "click": {"action": "click", "utility_weight": 1},
            "good_click": {"action": "click", "min_dwell_seconds": 30, "parent": "click"},
            "scroll_up": {"action": "scroll_up", "applies_to": "source <> 'video'"},
        },
        "sources": {
            "feed": {
                "kind": "impressions",
                "source": "feed",
                "files": "{landing}/feed/{day}/*.json",
                "format": "json",
                "raw_schema": "id STRING, user STRING, ad STRING, shown STRING, received STRING, hour STRING",
                "columns": {
                    "impression_id": "id",
                    "user_id": "user",
                    "ad_id": "ad",
                    "shown_at": "try_to_timestamp(shown)",
                    "received_at": "try_to_timestamp(received)",
                    "hour": "hour",
                },
            }
        },
        "template": {
            "features": [
                {"column": "user_id", "family": "user", "type": "hashed", "buckets": 100},
                {"column": "country", "family": "user", "type": "hashed", "buckets": 10},
                {"column": "ad_age_days", "family": "ad", "type": "continuous"},
                {"column": "hour", "family": "context", "type": "hashed", "buckets": 30},
            ]
        },
    }
    return load_text("small", {**base, **over})


def rows(spark: SparkSession, table: Table, given: Sequence[Mapping[str, Any]], **every: Any) -> DataFrame:
    """Rows of `table`: what is given, `every` value on each, and null (or a stand-in where null is not allowed) elsewhere."""
    stand_ins: dict[str, Any] = {"day": DAY, "source": "feed", "tower": "feed", "ad_id": "a1", "action": "click", "impression_id": "i"}
    stand_ins |= {
        "shown_at": at("10:00"),
        "received_at": at("10:01"),
        "acted_at": at("10:02"),
        "valid_from": at("00:00"),
        "labels_as_of": at("23:00"),
    }

    def value(name: str, nullable: bool, row: Mapping[str, Any]) -> Any:
        return row.get(name, every.get(name, None if nullable else stand_ins.get(name)))

    return frame_of(spark, [{f.name: value(f.name, f.nullable, row) for f in table.columns} for row in given], table)
