"""A small configuration and rows of `examples` that satisfy every expectation: a full default row, and the one field that matters."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from conf.load import load_text
from conf.schema import Conf
from etl.schemas import examples

FIRST, LAST, MATURE_TO = date(2026, 5, 1), date(2026, 5, 3), date(2026, 5, 2)


def small_conf(**gate: float) -> Conf:
    return load_text(
        "small",
        {
            "name": "small",
            "workdir": "work",
            "sources": {
                "logs": {
                    "kind": "impressions",
                    "source": "standard",
                    "files": "{landing}/*.parquet",
                    "format": "parquet",
                    "columns": {"impression_id": "id"},
                }
            },
            "heads": {
                "click": {"action": "click"},
                "good_click": {"action": "click", "min_dwell_seconds": 30, "parent": "click"},
                "save": {"action": "save"},
            },
            "template": {
                "features": [
                    {"column": "age", "family": "user", "type": "continuous"},
                    {"column": "format", "family": "ad", "type": "one_hot", "vocabulary": ["image", "video"]},
                    {"column": "look", "family": "ad", "type": "dense", "width": 2},
                    {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 100},
                ]
            },
            "gate": gate,
        },
    )


def example(number: int, day: date = FIRST, **changed: Any) -> dict[str, Any]:
    """A good row of `examples`, shown at 10:00 and received a second later; even rows are clicked, every fourth with a good click."""
    row = {
        "impression_id": f"{day.isoformat()}-{number:03d}",
        "source": "standard",
        "tower": "standard",
        "shown_at": datetime(day.year, day.month, day.day, 10, 0, 0),
        "received_at": datetime(day.year, day.month, day.day, 10, 0, 1),
        "user_id": "u1",
        "ad_id": "a1",
        "campaign_id": "c1",
        "advertiser_id": "v1",
        "position": 0,
        "bid_micros": 1_000,
        "age": 30.0,
        "format": "image",
        "look": [0.5, -0.5],
        "label_click": int(number % 2 == 0),
        "label_good_click": int(number % 4 == 0),
        "label_save": 0,
        "labels_as_of": datetime(2026, 5, 4),
        "day": day,
    }
    return {**row, **changed}


def example_rows(spark: SparkSession, conf: Conf, rows: list[dict[str, Any]]) -> DataFrame:
    # A planted fault may be a null where the table allows none. The fields are copied: those of etl/schemas.py are everybody's.
    schema = StructType([StructField(field.name, field.dataType, True) for field in examples(conf).schema])
    return spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)


def good_rows() -> list[dict[str, Any]]:
    """Four rows on each of the three days."""
    days = [date(2026, 5, number) for number in (1, 2, 3)]
    return [example(number, day) for day in days for number in range(4)]
