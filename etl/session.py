"""How Spark is started, and what is asserted of it before a row is read: UTC, ANSI, Delta."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

from conf.load import cache_dir
from conf.schema import SparkConf

Item = TypeVar("Item")
Made = TypeVar("Made")

# What the numbers depend on. Set in code and asserted after the start, since getOrCreate may return an older session.
REQUIRED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
# What only the speed depends on. A scorer's Arrow batch of 10,000 rows was fastest of 4,096, 10,000 and 32,768.
TUNING = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    # With a limit of bytes, Spark adds up a batch's size at every row: a twelfth of Java's work in scoring. Rows bound a batch already.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.debug.maxToStringFields": "200",
    # The JVM never compiles a longer method; with the limit at its default, encoding 29 features took 2 to 3 times the CPU.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # A night has some 300 pieces of generated code, and 100 would be kept: each stage of the next night was compiled anew.
    "spark.sql.codegen.cache.maxEntries": "2000",
    # Rows of several days are written side by side instead of sorted by day first; beyond that many files a task sorts.
    "spark.sql.maxConcurrentOutputFileWriters": "64",
    # What is cached is read once or twice and let go: choosing a compression for each column cost more than it saved.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # Few rows share these values: a dictionary of them is as long as the column.
    **{
        f"spark.hadoop.parquet.enable.dictionary#{name}": "false"
        for name in ("impression_id", "inventory_id", "shown_at", "acted_at", "received_at")
    },
}


#: What the driver's Java says on the console, before a session can be told to be quiet.
LOGGING = Path(__file__).with_name("log4j2.properties")
#: Classes that were loaded once (etl/class_archive.py).
ARCHIVE = Path(sys.prefix) / "spark-classes" / "archive.jsa"


class SessionError(RuntimeError):
    """Spark could not be started as the suite needs it."""


def start(conf: SparkConf, name: str) -> SparkSession:
    """A session with Delta. Under spark-submit, master, memory and jars are its own; otherwise they come from `conf` and the cache."""
    builder = SparkSession.builder.appName(name)
    for key, value in {**REQUIRED, **TUNING}.items():
        builder = builder.config(key, value)
    builder = builder.config("spark.sql.shuffle.partitions", conf.shuffle_partitions)
    builder = builder.config("spark.databricks.delta.snapshotPartitions", conf.snapshot_partitions)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        jars = delta_jars()
        builder = (
            builder.master(conf.master)
            .config("spark.driver.memory", conf.driver_memory)
            .config(
                "spark.driver.extraJavaOptions", f"{conf.driver_java_options} -Dlog4j2.configurationFile=file:{LOGGING}{archived_classes()}"
            )
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .config("spark.jars", ",".join(jars))
            .config("spark.driver.extraClassPath", ":".join(jars))
        )
    with _without_spark_defaults():
        spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    require(spark)
    return spark


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item], threads: int = 3) -> list[Made]:
    """`work` of each item, in threads of the driver that keep the job's description; results in the order of the items.

    For Spark jobs of small tables: most of such a job's time is the driver's planning, during which the cores would idle.
    """
    listed = list(items)
    made = dict(as_done(lambda place: work(listed[place]), range(len(listed)), threads))
    return [made[place] for place in range(len(listed))]


def as_done(work: Callable[[Item], Made], items: Iterable[Item], threads: int = 3) -> Iterator[tuple[Item, Made]]:
    """The same: each item with its result, as soon as that is there, so that the driver can go on while Spark works on the others.

    Each item is wrapped by itself, since what is wrapped once has one set of Spark's local properties, and queries of two threads that
    share one take each other's execution for their own: at times with `Cannot parse null string`.
    """
    spark = SparkSession.active()
    with ThreadPoolExecutor(threads) as pool:
        asked = {pool.submit(inheritable_thread_target(spark)(work), item): item for item in items}
        try:
            for done in as_completed(asked):
                yield asked[done], done.result()
        finally:  # after an error, or a signal, no other is begun
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _without_spark_defaults() -> Iterator[None]:
    """A driver that starts inside reads no folder of Spark's defaults, which are for spark-submit alone: a class path with a folder that holds
    files fits no archive. A folder that the environment names as SPARK_CONF_DIR stays; then Java goes without the archive."""
    if "SPARK_CONF_DIR" in os.environ:
        yield
        return
    os.environ["SPARK_CONF_DIR"] = str(ARCHIVE.parent / "no-configuration")
    try:
        yield
    finally:
        del os.environ["SPARK_CONF_DIR"]


def archived_classes() -> str:
    """Options of a Java that is about to start; it says nothing of an archive that does not fit."""
    return f" -XX:SharedArchiveFile={ARCHIVE} -Xlog:cds*=off" if ARCHIVE.is_file() else ""


def delta_jars() -> list[str]:
    """Delta's jars by path, as resolved once at set-up."""
    jars = sorted(str(path) for path in (cache_dir() / "jars").glob("*.jar"))
    if not any("delta-spark" in jar for jar in jars):
        raise SessionError(f"no Delta jars in {cache_dir() / 'jars'}; run `./build.sh setup`")
    return jars


def require(spark: SparkSession) -> None:
    """Raise, naming every setting that is not as the tables and the files beside them need it."""
    for key in ("spark.sql.session.timeZone", "spark.sql.ansi.enabled", "spark.databricks.delta.schema.autoMerge.enabled"):
        spark.conf.set(key, REQUIRED[key])
    found = {key: spark.conf.get(key, None) for key in REQUIRED}
    wrong = [f"{key} is {found[key]}, must be {value}" for key, value in REQUIRED.items() if str(found[key]).lower() != value.lower()]
    if wrong:
        raise SessionError("this Spark session was started otherwise: " + "; ".join(wrong) + "; stop it and start again")
    files = str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS"))
    if not files.startswith("file:"):
        raise SessionError(
            f"fs.defaultFS is {files}, and workdir is a folder that driver and executors share: give spark-submit "
            f"--conf spark.hadoop.fs.defaultFS=file:///"
        )
    try:
        spark.sparkContext._jvm.java.lang.Class.forName(  # type: ignore[union-attr]
            "io.delta.tables.DeltaTable",
            False,
            spark.sparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader(),  # type: ignore[union-attr]
        )
    except Exception as error:  # py4j wraps ClassNotFoundException
        raise SessionError("Delta's jars are not on Spark's path; pass them with --jars, or run `./build.sh setup` once") from error
