"""Small simulations, and what ingest makes of them."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.load import load, load_text
from conf.schema import Conf
from conf.source import Kind
from etl import schemas
from etl.landing import files_by_day
from etl.simulate import setting_of
from etl.sources import Block, classified
from validation.rules import row_rules

ROOT = Path(__file__).parents[2]
DAYS = 3


def small(workdir: Path, **over: object) -> Conf:
    """conf/tiny.yaml with 3 days of 1,500 impressions."""
    base = load(ROOT / "conf" / "tiny.yaml").model_dump()
    size = {"days": DAYS, "impressions_a_day": 1500, "inventory_days": [3, 4], **over}
    return load_text("small", base | {"workdir": str(workdir), "simulation": base["simulation"] | size})


def truth_of(spark: SparkSession, conf: Conf, kind: str = "impressions") -> DataFrame:
    return spark.read.parquet(f"{conf.workdir}/truth/{kind}")


def ingested(spark: SparkSession, conf: Conf, kind: Kind) -> DataFrame:
    """Every delivered row as the night of the last day sees it, with its verdict."""
    days = [setting_of(conf).date(day) for day in range(-1, DAYS + 1)]
    asked = days[DAYS + 1 :] if kind == "inventory" else days
    blocks = []
    for name, source in conf.sources.items():
        if source.kind == kind:
            found = files_by_day(spark, conf, source, asked[0], asked[-1])
            blocks.append(Block(name, source, tuple(file.path for files in found.values() for file in files)))
    start = asked[0] if kind in ("users", "ads", "inventory") else days[1]
    return classified(spark, conf, blocks, schemas.all_tables(conf)[kind], row_rules(kind), start, asked[-1], days[DAYS])


def fingerprint(rows: DataFrame) -> tuple[int, int]:
    """Rows, and an order-free hash of all columns."""
    [found] = rows.select(F.xxhash64(*sorted(rows.columns)).cast("decimal(20,0)").alias("h")).agg(F.count("h"), F.sum("h")).collect()
    return int(found[0]), int(found[1])
