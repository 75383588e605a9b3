"""Files of versions that were written over: how many may go, and their end. Delta's own check of a
week's least retention is switched off by etl/forgetting.py alone."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from etl.tables import KEEP_LOG, PINNED, table_path


def vacuum(spark: SparkSession, workdir: str | Path, table: str, hours: int, dry_run: bool) -> tuple[int, int]:
    """Files and bytes that go, or would go, of those that no version of the last `hours` hours has. A dry run counts a thousand files at most."""
    path = table_path(workdir, table)
    # Delta lists folders in as many tasks as this says, ten thousand unless told otherwise.
    spark.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", str(spark.conf.get("spark.sql.shuffle.partitions")))
    if dry_run:
        rows = spark.sql(f"VACUUM delta.`{path}` RETAIN {hours} HOURS DRY RUN").collect()
        found = [file for row in rows if (file := Path(unquote(urlparse(row["path"]).path))).is_file()]
        return len(found), sum(file.stat().st_size for file in found)
    before = _data(path)
    DeltaTable.forPath(spark, path).vacuum(hours)
    gone = before.keys() - _data(path).keys()
    return len(gone), sum(before[file] for file in gone)


def keep_logs(spark: SparkSession, workdir: str | Path) -> None:
    """Of tables made before the log of such a table was kept from the start."""
    name, value = KEEP_LOG
    for table in PINNED:
        path = table_path(workdir, table)
        properties = DeltaTable.forPath(spark, path).detail().select("properties").first()
        if properties is not None and properties[0].get(name) != value:
            spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('{name}' = '{value}')")


def _data(path: str) -> dict[Path, int]:
    """Files of data with their bytes."""
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".parquet"))
    return {file: file.stat().st_size for file in files if "_delta_log" not in file.parts}
