"""One Spark session for all tests; state is reset after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from conf.schema import SparkConf
from etl.session import start


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = start(SparkConf(master="local[2,4]", driver_memory="3g", shuffle_partitions=2, snapshot_partitions=1), "adtower-tests")
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def _no_cached_tables_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "spark" in request.fixturenames:
        request.getfixturevalue("spark").catalog.clearCache()
