"""A new head and a new source come in by configuration alone: migrate, rebuild, train warm, score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import load
from etl import schemas
from etl.tables import TableError, create_tables, read
from jobs.common import DONE, day_option
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import ROOT, Place, day


def night_after_days_before(spark: SparkSession, of: Place, number: int) -> int:
    create_tables(spark, of.conf)
    assert run_night(spark, of.conf, day_option(day(1)), day_option(day(number - 1)), ETL) == DONE
    return run_night(spark, of.conf, day_option(day(number)), day_option(day(number)), STAGES)


def written(folder: Path, logs: Place, without_source: str = "", without_head: str = "") -> Place:
    """tiny, less one source and one head with what the template counts of it; all in one working folder, on the logs of another."""
    text: dict[str, Any] = load(ROOT / "conf" / "tiny.yaml").model_dump(mode="json")
    text |= {"workdir": str(folder), "landing": logs.conf.landing}
    text["sources"] = {name: block for name, block in text["sources"].items() if block["source"] != without_source}
    text["heads"] = {name: head for name, head in text["heads"].items() if name != without_head}
    features = text["template"]["features"]
    text["template"]["features"] = [one for one in features if not (without_head and f"_{without_head}_" in one["column"])]
    file = folder / f"without-{without_source or 'nothing'}.yaml"
    file.write_text(yaml.safe_dump(text), encoding="utf-8")
    return Place(file)


@pytest.mark.slow
def test_a_new_head_and_a_new_source_are_migrated_rebuilt_trained_warm_and_scored(
    spark: SparkSession, built: Place, tmp_path: Path
) -> None:
    whole, less = written(tmp_path, built), written(tmp_path, built, without_source="video", without_head="save")
    assert night_after_days_before(spark, less, 7) == DONE
    with pytest.raises(TableError, match=r"jobs/migrate\.py"):
        create_tables(spark, whole.conf)
    code, told = whole.run("migrate")
    assert code == DONE, told
    assert night_after_days_before(spark, whole, 8) == DONE

    models = {row["day"].isoformat(): row for row in read(spark, tmp_path, schemas.MODELS).collect()}
    assert models[day(8)]["parent"] == models[day(7)]["model"]
    # Production has no head save, so there is nothing to compare with and to fall back on.
    assert (
        models[day(8)]["production"] is None
        and "has heads click, good_click, hide, scroll_up, and the configuration" in models[day(8)]["reason"]
    )
    scores = read(spark, tmp_path, schemas.scores(whole.conf))
    counted = scores.groupBy("day", "source").agg(F.count("p_save").alias("saves"), F.count("p_click").alias("clicks")).collect()
    by_cell = {(row["day"].isoformat(), row["source"]): (row["clicks"] > 0, row["saves"] > 0) for row in counted}
    old, new = (True, False), (True, True)
    assert by_cell == {
        (day(8), "standard"): old,
        (day(8), "shopping"): old,
        (day(9), "standard"): new,
        (day(9), "shopping"): new,
        (day(9), "video"): new,
    }
