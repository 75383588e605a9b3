"""An inventory unlike any that the model was trained for is scored by a real night's model, row for row, or refused with its reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import schemas
from etl.landing import InputMissing
from etl.tables import overwrite_days, read_days
from jobs import score
from jobs.common import DONE, day_option
from jobs.nightly import run_night
from tests.jobs.nights import Place, copied, day

NIGHT, SCORED = day_option(day(7)), day_option(day(8))
FIXED = ("inventory_id", "source", "tower", "received_at", "ad_id", "day")


@pytest.fixture(scope="module")
def lake(clean: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return copied(clean, tmp_path_factory.mktemp("odd") / "work")


def score_of(spark: SparkSession, lake: Place, given: DataFrame) -> DataFrame:
    """Scores of these rows in place of the day's inventory."""
    table = schemas.inventory(lake.conf)
    overwrite_days(given, lake.workdir, table, SCORED, SCORED)
    assert run_night(spark, lake.conf, NIGHT, NIGHT, (score.STAGE,)) == DONE
    return read_days(spark, lake.workdir, schemas.scores(lake.conf), SCORED, SCORED)


def with_nothing_known(rows: DataFrame) -> DataFrame:
    """Every value that is a string is one that no log ever had; the sources stay."""
    texts = [name for name, kind in rows.dtypes if kind == "string" and name not in ("inventory_id", "source", "tower")]
    return rows.withColumns({name: F.concat(F.lit(f"new {name} "), F.substring("inventory_id", -3, 3)) for name in texts})


def with_nothing_said(rows: DataFrame) -> DataFrame:
    """Every value that may be missing is."""
    return rows.withColumns({name: F.lit(None).cast(kind) for name, kind in rows.dtypes if name not in FIXED})


#: What is odd -> the inventory made of the usual one, and the flags that all its scores have.
ODD: dict[str, tuple[Callable[[DataFrame], DataFrame], set[str]]] = {
    "one source alone": (lambda rows: rows.where("source = 'video'"), set()),
    "a source that no model knows": (lambda rows: rows.withColumns({"source": F.lit("radio"), "tower": F.lit("radio")}), {"unknown_tower"}),
    "nobody known": (lambda rows: rows.withColumn("user_id", F.lit(None).cast("string")), {"unknown_user"}),
    "no value ever seen": (with_nothing_known, set()),
    "no value at all": (with_nothing_said, {"unknown_user"}),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_inventory_is_scored_row_for_row(spark: SparkSession, clean: Place, lake: Place, odd: str) -> None:
    make, flags = ODD[odd]
    usual = read_days(spark, clean.workdir, schemas.inventory(clean.conf), SCORED, SCORED)
    given = make(usual)
    scores = score_of(spark, lake, given)
    assert scores.join(given, "inventory_id", "semi").count() == scores.count() == given.count() > 0
    heads = [f"p_{head}" for head in lake.conf.heads]
    found = scores.agg(F.min(F.least(*heads)), F.max(F.greatest(*heads)), F.count_if(F.isnan("utility"))).first()
    assert found is not None and 0 < found[0] <= found[1] < 1 and found[2] == 0
    assert all(scores.where(F.array_contains("flags", flag)).count() == given.count() for flag in flags)


def test_an_inventory_without_rows_is_missing_and_says_which_file_to_deliver(spark: SparkSession, lake: Place) -> None:
    table = schemas.inventory(lake.conf)
    none = read_days(spark, lake.workdir, table, SCORED, SCORED).limit(0)
    overwrite_days(none, lake.workdir, table, SCORED, SCORED)
    with pytest.raises(InputMissing, match=rf"no inventory for {day(8)}; deliver .*{day(8)}"):
        run_night(spark, lake.conf, NIGHT, NIGHT, (score.STAGE,))
