"""An archive of the classes that Spark and Delta load, which each driver that Python starts maps instead of reading and checking them anew.

python -m etl.class_archive      # makes it, as ./build.sh setup does

A dynamic archive of the JVM (JEP 350), in the environment's own folder; etl/session.py names it to each driver. It fits one Java and one class
path: with any other Java starts as it would without. What is archived is what `use` loads. On two slow cores a session and its first write to
a new Delta table took 20 s instead of 28.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from conf.schema import SparkConf
from etl.session import ARCHIVE, start

#: Seconds that Java may take to write it once its session has ended.
LONGEST_WRITING = 300


def make() -> bool:
    """Whether it was made; a session that begins meanwhile does without."""
    ARCHIVE.parent.mkdir(exist_ok=True)
    for old in ARCHIVE.parent.glob(f"{ARCHIVE.stem}.*"):  # also what a set-up that was cut off left
        old.unlink(missing_ok=True)
    scratch = ARCHIVE.with_suffix(f".{os.getpid()}")
    given = SparkConf(master="local[2]", driver_memory="1g")
    options = f"{given.driver_java_options} -XX:ArchiveClassesAtExit={scratch} -Xlog:cds*=off"
    spark = start(given.model_copy(update={"driver_java_options": options}), "adtower class archive")
    try:
        with tempfile.TemporaryDirectory() as folder:
            use(spark, Path(folder))
        java = spark.sparkContext._gateway.proc  # type: ignore[union-attr]
        spark.stop()
        java.stdin.close()  # by which Java knows that Python is done
        java.wait(LONGEST_WRITING)
        if scratch.is_file():
            os.replace(scratch, ARCHIVE)
    finally:
        scratch.unlink(missing_ok=True)
    return ARCHIVE.is_file()


def use(spark: SparkSession, folder: Path) -> None:
    """Load classes by using them: files of each format read, joined, ranked and summed, and a Delta table written twice."""
    rows = spark.range(200).select(
        "id", (F.col("id") % 5).alias("key"), F.col("id").cast("string").alias("text"), F.array("id").alias("list")
    )
    rows.select("id", "key", "text").write.csv(str(folder / "csv"), header=True)
    rows.write.json(str(folder / "json"))
    rows.write.parquet(str(folder / "parquet"))
    lines = spark.read.schema("id BIGINT, key BIGINT, text STRING").csv(str(folder / "csv"), header=True)
    joined = lines.join(spark.read.parquet(str(folder / "parquet")).select("id", "list"), on="id", how="left")
    newest = Window.partitionBy("key").orderBy(F.desc("id"))
    ranked = joined.withColumns({"place": F.row_number().over(newest), "hash": F.xxhash64("text", F.to_json(F.struct("list")))}).persist()
    table = str(folder / "delta")
    for _ in range(2):
        ranked.write.format("delta").mode("overwrite").option("replaceWhere", "key >= 0").partitionBy("key").save(table)
    sums = (
        spark.read.format("delta")
        .load(table)
        .groupBy("key")
        .agg(F.sum(F.col("hash") % 1000), F.percentile("id", 0.5), F.collect_set("text"))
    )
    sums.toPandas()
    spark.sql(f"SELECT count(*) FROM delta.`{table}` WHERE text RLIKE '^1' AND hash IS NOT NULL").collect()
    spark.read.schema(rows.schema).json(str(folder / "json")).mapInArrow(lambda batches: batches, rows.schema).count()


if __name__ == "__main__":
    if make():
        print(f"{ARCHIVE.stat().st_size / 2**20:.0f} MiB")
    else:
        print("this Java keeps no archive of classes; each driver reads them anew", file=sys.stderr)
