"""A day's published scores for those without Delta: Parquet, sums by campaign as CSV, and the dictionary of their columns.

python jobs/export.py --conf-file conf/demo.yaml [--day 2026-05-17] [--out exports/2026-05-17]

`--day` is a scored day that was published; the newest one, if not given. The folder, `<workdir>/exports/<day>` unless named, is written whole
or not at all: scores.parquet (a file a row group of Spark's making), campaigns.csv (day, source, tower, campaign), dictionary.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.landing import InputMissing
from etl.session import start
from etl.tables import read, read_days
from etl.views import dictionary, make_views, views_sql
from jobs.common import DONE, conf_of, day_option, main, parser


def export(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--day", type=day_option, help="a scored day that was published")
    options.add_argument("--out", type=Path, help="the folder to write, which an earlier export may hold")
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    spark = start(conf.spark, f"adtower {conf.name} export")
    try:
        day = published_day(spark, conf, arguments.day)
        print(write_export(spark, conf, day, arguments.out or Path(conf.workdir).resolve() / "exports" / day.isoformat()))
    finally:
        spark.stop()
    return DONE


def published_day(spark: SparkSession, conf: Conf, asked: date | None) -> date:
    rows = read(spark, conf.workdir, schemas.PUBLICATIONS).where("what = 'scores'").select("scored_day").distinct().collect()
    days = sorted(row["scored_day"] for row in rows)
    if not days or (asked and asked not in days):
        told = f"published are {days[0]} to {days[-1]}" if days else "no night has published scores"
        raise InputMissing(f"no scores of {asked or 'any day'} to export; {told}")
    return asked or days[-1]


def write_export(spark: SparkSession, conf: Conf, day: date, folder: Path) -> Path:
    fresh, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    read_days(spark, conf.workdir, schemas.scores(conf), day, day).write.parquet(str(fresh / "scores.parquet"))
    make_views(spark, views_sql(spark, conf, "spark"))
    campaigns = spark.table("scores_daily_summary").where(F.col("day") == F.lit(day)).orderBy("source", "tower", "campaign_id")
    campaigns.toPandas().to_csv(fresh / "campaigns.csv", index=False)
    (fresh / "dictionary.md").write_text(dictionary(conf, "scores"), encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


if __name__ == "__main__":
    main(export)
