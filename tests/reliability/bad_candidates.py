"""Candidates that are bad on purpose, each trained, calibrated and judged by a whole night: does the gate refuse them, and for the right reason?

python -m tests.reliability.bad_candidates [--impressions 20000]

Simulated logs of conf/tiny.yaml. Days 1 to 6 are built as a range, night 7 publishes the first model, night 8's tables are built. Then for each
plant a copy of the tables, in which what the candidate is trained on is spoilt and what it is judged on is not, and the rest of night 8.
Production is the same in all of them. `none` spoils nothing, and must not be refused.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.load import load, load_text
from conf.schema import Conf
from etl import schemas
from etl.session import start
from etl.simulate import simulate
from etl.tables import create_tables, overwrite_days, read, read_days
from jobs.common import DONE, REFUSED, day_option
from jobs.nightly import ETL, MODEL, STAGES, run_night
from tests.jobs.nights import day

ROOT = Path(__file__).parents[2]
FIRST, LAST_TRAINED, BUILT, PUBLISHED, JUDGED = (day_option(day(number)) for number in (1, 3, 6, 7, 8))


@dataclass(frozen=True)
class Plant:
    """What is spoilt: rows of the training days, or knobs of the training; `says`: what the reason has to name."""

    name: str
    says: tuple[str, ...]
    spoilt: Callable[[DataFrame, Conf], DataFrame] | None = None
    knobs: dict[str, Any] = field(default_factory=dict)


def labels_of_the_day_before(rows: DataFrame, conf: Conf) -> DataFrame:
    """Each row with the labels of the row of its tower that stands in the same place a day earlier (of the first day: on the last)."""
    labels = [f"label_{head}" for head in conf.heads]
    places = rows.withColumn("place", F.row_number().over(Window.partitionBy("day", "tower").orderBy("shown_at", "impression_id")))
    day_after = F.when(F.col("day") == F.lit(LAST_TRAINED), F.lit(FIRST)).otherwise(F.date_add("day", 1))
    shifted = places.select(day_after.alias("day"), "tower", "place", *labels)
    return places.drop(*labels).join(shifted, on=["day", "tower", "place"], how="inner").drop("place")


def entity_features_at_zero(rows: DataFrame, conf: Conf) -> DataFrame:
    """As if no snapshot of users and ads had been joined. One feature is worth less than the margin here: others say much the same."""
    features = [*conf.template.of_family("user"), *conf.template.of_family("ad")]
    names = [feature.column for feature in features if not feature.column.endswith("_id")]
    types = dict(rows.dtypes)
    return rows.withColumns({name: F.lit(0.0 if types[name] == "double" else None).cast(types[name]) for name in names})


def without_standard(rows: DataFrame, conf: Conf) -> DataFrame:
    return rows.where("tower <> 'standard'")


def twice_the_base_rate(rows: DataFrame, conf: Conf) -> DataFrame:
    """Every second row without any engagement is gone, and nothing says so, as sampling weights would."""
    engaged = F.greatest(*(F.coalesce(F.col(f"label_{head}"), F.lit(0)) for head in conf.heads)) > 0
    return rows.where(engaged | (F.xxhash64("impression_id") % 2 == 0))


STUCK = {"learning_rate": 1e-9, "embedding_learning_rate": 1e-9, "linear_learning_rate": 1e-9}
PLANTS = (
    Plant("none", ()),
    Plant("labels shifted by a day", ("normalised entropy", "AUC"), labels_of_the_day_before),
    Plant("features broken to zero", ("normalised entropy",), entity_features_at_zero),
    Plant("one tower untrained", ("in standard",), without_standard),
    Plant("constant output", ("AUC",), knobs={"training": STUCK}),
    Plant("drifted base rate", ("predicted over observed",), twice_the_base_rate, {"calibration": {"min_positives": 1_000_000}}),
)


def configured(workdir: Path, landing: Path, impressions: int, **knobs: dict[str, Any]) -> Conf:
    text: dict[str, Any] = load(ROOT / "conf" / "tiny.yaml").model_dump(mode="json")
    text["simulation"] |= {"impressions_a_day": impressions, "users": 4000, "ads_alive": 600}
    text["training"] |= {"warm_start": False}
    text["clock"] |= {"train_days": 2}  # production and candidate learn from equally many days
    for block, values in knobs.items():
        text[block] |= values
    return load_text("bad candidates", text | {"name": "candidates", "workdir": str(workdir), "landing": str(landing)})


def outcome(spark: SparkSession, base: Path, landing: Path, impressions: int, plant: Plant) -> dict[str, Any]:
    """Verdict and reason on the plant's candidate, in a copy of the tables."""
    folder = base.parent / plant.name.replace(" ", "_")
    shutil.copytree(base, folder)
    conf = configured(folder, landing, impressions, **plant.knobs)
    if plant.spoilt:
        table = schemas.examples(conf)
        rows = plant.spoilt(read_days(spark, conf.workdir, table, FIRST, LAST_TRAINED), conf).localCheckpoint()
        overwrite_days(rows, conf.workdir, table, FIRST, LAST_TRAINED)
    code = run_night(spark, conf, JUDGED, JUDGED, MODEL)
    row = read(spark, conf.workdir, schemas.MODELS).where(F.col("day") == F.lit(JUDGED)).collect()[0]
    right = code == (REFUSED if plant.says else DONE) and all(words in row["reason"] for words in plant.says)
    return {"plant": plant.name, "verdict": row["verdict"], "exit_code": code, "right": right, "reason": row["reason"]}


def run(impressions: int, folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    base, landing = folder / "base", folder / "landing"
    conf = configured(base, landing, impressions)
    spark = start(conf.spark, "bad candidates")
    simulate(spark, conf, lambda line: print(line, file=sys.stderr))
    create_tables(spark, conf)
    run_night(spark, conf, FIRST, BUILT, ETL)
    run_night(spark, conf, PUBLISHED, PUBLISHED, STAGES)
    run_night(spark, conf, JUDGED, JUDGED, ETL)
    found = [outcome(spark, base, landing, impressions, plant) for plant in PLANTS]
    return {
        "simulated": True,
        "impressions_a_day": impressions,
        "candidates": found,
        "wrong": [one["plant"] for one in found if not one["right"]],
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--impressions", type=int, default=20_000, help="simulated impressions a day")
    told = run(options.parse_args().impressions, ROOT / "var" / "reliability" / "bad_candidates")
    print(json.dumps(told, indent=1))
    sys.exit(bool(told["wrong"]))
