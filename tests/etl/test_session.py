"""What is asked of a Spark session before a row is read."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from etl.session import SessionError, require


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
