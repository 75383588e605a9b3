"""What is asked of a Spark session before a row is read."""

from __future__ import annotations

import threading

import pytest
from pyspark.sql import SparkSession

from etl.session import SessionError, require, side_by_side


def test_a_cluster_whose_paths_are_not_files_is_refused_with_the_option_that_makes_them(spark: SparkSession) -> None:
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    before = settings.get("fs.defaultFS")
    settings.set("fs.defaultFS", "hdfs://namenode:8020")
    try:
        with pytest.raises(SessionError, match=r"fs.defaultFS is hdfs://namenode:8020.*spark.hadoop.fs.defaultFS=file:///"):
            require(spark)
    finally:
        settings.set("fs.defaultFS", before)
    require(spark)


def test_jobs_that_run_side_by_side_keep_the_description_of_their_stage(spark: SparkSession) -> None:
    context = spark.sparkContext
    context.setJobDescription("2026-05-16 ingest")
    try:
        seen = side_by_side(lambda _: context.getLocalProperty("spark.job.description"), range(4), threads=2)
    finally:
        context.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]
    assert seen == ["2026-05-16 ingest"] * 4


def test_jobs_that_run_side_by_side_do_not_share_what_spark_knows_of_their_query(spark: SparkSession) -> None:
    context, both = spark.sparkContext, threading.Barrier(2, timeout=60)

    def told(execution: str) -> str:
        context.setLocalProperty("spark.sql.execution.id.of.test", execution)
        both.wait()
        return context.getLocalProperty("spark.sql.execution.id.of.test") or ""

    assert side_by_side(told, ["1", "2"], threads=2) == ["1", "2"]
