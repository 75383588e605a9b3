"""How fast is an inventory scored, Delta to Delta, beside the bare forward pass of the same model and beside two other ways to map it?

python -m tests.benchmarks.score [--rows 2000000] [--rounds 2]

Made-up rows: 20 columns of 100,000 values as strings, 10 numbers, 3 sources; embeddings of 16, bottom 256-128, towers 128-64, 5 heads with
random weights, calibrated. Spark runs as `local[2]`. One JSON line a claim; `ours` and `peer` are rows a second, the best round of each, in
turns, after a round that is not counted.

  from encoded   etl.scores.score_encoded, from a Delta table of encoded columns to the table `scores`, ranks and flags included
  from strings   etl.scores.score_inventory, from the inventory's own columns to the same
  bare           the model's forward pass over encoded arrays in memory, on both cores at its best batch size: no calibration, no tables
  udf            pyspark.ml.functions.predict_batch_udf of the same model and calibrator on the same encoded table, to Delta, unranked
  rows           a forward pass a row in an RDD's map, as Horovod's TorchModel has it, on part of the rows
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType

from conf.load import load, load_text
from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded_columns
from etl.scores import encoded_inventory, score_encoded, score_inventory
from etl.session import start
from etl.tables import create_tables, overwrite_days, read, table_path
from models import bundle
from models.calibration import Calibrator, Cell
from models.columns import Arrays
from models.predictor import load_predictor, predict_probabilities
from models.representation import Features

ROOT = Path(__file__).parents[2]
DAY, VALUES, CATEGORICAL, NUMERIC = date(2026, 5, 1), 100_000, 20, 10
TOWERS = ("standard", "shopping", "video")
BATCHES = (1024, 2048, 4096, 8192, 16_384)
NEEDED = {"encoded": 0.6, "strings": 0.45, "udf": 2.0, "rows": 50.0}
MADE_FROM = {
    "model": "made",
    "calibrator": "made",
    "inventory_version": 1,
    "run_id": "score",
    "scored_at": datetime(2026, 5, 1, tzinfo=UTC),
}


def configured(folder: Path) -> Conf:
    text: dict[str, Any] = load(ROOT / "conf" / "demo.yaml").model_dump(mode="json")
    ids = [{"column": f"c{i}", "family": "context", "type": "hashed", "buckets": VALUES} for i in range(CATEGORICAL)]
    numbers = [{"column": f"n{i}", "family": "context", "type": "continuous"} for i in range(NUMERIC)]
    text |= {"workdir": str(folder), "template": {"features": ids + numbers}}
    text["model"] = {"embedding_width": 16, "bottom_widths": [256, 128], "tower_widths": [128, 64]}
    return load_text("score", text)


def made_bundle(conf: Conf, folder: Path) -> Path:
    meta = {
        "model_id": "made",
        "template": conf.template.model_dump(mode="json"),
        "heads": {name: head.model_dump(mode="json") for name, head in conf.heads.items()},
        "towers": list(TOWERS),
        "model": conf.model.model_dump(mode="json"),
        "statistics": {f"n{i}": {"low": -3.0, "high": 3.0, "mean": 0.0, "std": 1.0} for i in range(NUMERIC)},
    }
    torch.manual_seed(1)
    model = bundle.build(meta)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.05)
    squares = {"embedding": torch.ones(len(model.tables["embedding"]), 1), "linear": torch.ones_like(model.tables["linear"])}
    bundle.save(folder / "bundle", model, squares, meta)
    return folder / "bundle"


def made_inventory(spark: SparkSession, conf: Conf, rows: int) -> DataFrame:
    def uniform(salt: str) -> Any:
        return F.pmod(F.xxhash64("id", F.lit(salt)), F.lit(1 << 30)) / F.lit(float(1 << 30))

    columns = {
        "inventory_id": F.format_string("i%09d", "id"),
        "source": F.element_at(F.array(*map(F.lit, TOWERS)), (F.pmod(F.xxhash64("id"), F.lit(3)) + 1).cast("int")),
        "received_at": F.lit("2026-04-30 23:00:00").cast("timestamp"),
        "user_id": F.concat(F.lit("u"), F.pmod("id", F.lit(50_000)).cast("string")),
        "ad_id": F.concat(F.lit("a"), F.pmod("id", F.lit(30_000)).cast("string")),
        "campaign_id": F.concat(F.lit("c"), F.pmod("id", F.lit(800)).cast("string")),
        "advertiser_id": F.concat(F.lit("v"), F.pmod("id", F.lit(100)).cast("string")),
        "bid_micros": F.lit(1000).cast("bigint"),
        "expected_impressions": F.lit(10.0),
        "day": F.lit(DAY),
        # Few of the values are drawn often, as ids are.
        **{
            f"c{i}": F.concat(F.lit("value "), (F.pow(uniform(f"c{i}"), 3) * VALUES).cast("int").cast("string")) for i in range(CATEGORICAL)
        },
        **{f"n{i}": (uniform(f"n{i}") - 0.5) * 6.5 for i in range(NUMERIC)},
    }
    return spark.range(0, rows, 1, 8).withColumns(columns).withColumn("tower", F.col("source"))


def bare(model_dir: str, columns: dict[str, np.ndarray], rounds: int) -> dict[int, float]:
    """Batch size -> rows a second, the best round."""
    model = load_predictor(model_dir).model
    arrays, rows = model.columns.arrays(columns), len(columns["tower"])
    best = dict.fromkeys(BATCHES, 0.0)
    with torch.inference_mode():
        for _ in range(rounds):
            for size in BATCHES:
                parts = [Features.of(Arrays(*(array[at : at + size] for array in arrays))) for at in range(0, rows, size)]
                began = time.perf_counter()
                for part in parts:
                    model(part)
                best[size] = max(best[size], rows / (time.perf_counter() - began))
    return best


def by_udf(rows: DataFrame, names: list[str], model_dir: str, calibrator: str, heads: list[str], target: str) -> None:
    def make() -> Callable[..., np.ndarray]:
        def run(*given: np.ndarray) -> np.ndarray:
            return np.hstack(predict_probabilities(model_dir, calibrator, dict(zip(names, given, strict=True)))[:2])

        # The number of inputs is read off the signature.
        run.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
        return run

    predict = predict_batch_udf(make, return_type=ArrayType(DoubleType()), batch_size=4096)
    found = rows.select("__kept_inventory_id", "__kept_day", predict(*names).alias("p"))
    out = [F.get("p", F.lit(place)).alias(name) for place, name in enumerate([*(f"p_{h}_raw" for h in heads), *(f"p_{h}" for h in heads)])]
    found.select("__kept_inventory_id", "__kept_day", *out).write.format("delta").mode("overwrite").save(target)


def by_row(rows: DataFrame, names: list[str], model_dir: str, calibrator: str) -> int:
    def score(row: Row) -> tuple[str, list[float]]:
        one = {name: np.array([row[name]]) for name in names}
        return row["__kept_inventory_id"], np.hstack(predict_probabilities(model_dir, calibrator, one)[:2])[0].tolist()

    return rows.rdd.map(score).map(lambda scored: len(scored[1])).sum()


def measure(rows: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    shutil.rmtree(folder, ignore_errors=True)
    conf = configured(folder)
    spark = start(conf.spark, "score")
    create_tables(spark, conf)
    table, heads = schemas.inventory(conf), list(conf.heads)
    overwrite_days(made_inventory(spark, conf, rows), conf.workdir, table, DAY, DAY)
    model_dir = str(made_bundle(conf, folder))
    cells = {head: {tower: Cell("platt", 0.1 * number, -0.05) for number, tower in enumerate(TOWERS)} for head in heads}
    calibrator = Calibrator(tuple(heads), cells).to_json()
    inventory = read(spark, conf.workdir, table)
    encoded_at = str(folder / "encoded")
    encoded_inventory(inventory, conf.template, TOWERS, {}).write.format("delta").save(encoded_at)
    encoded = spark.read.format("delta").load(encoded_at)
    names = encoded_columns(conf.template)
    sample = encoded.select(*names).limit(200_000).toArrow()
    columns = {name: sample[name].to_numpy() for name in names}

    predict = partial(predict_probabilities, model_dir, calibrator)
    few = encoded.limit(max(rows // 200, 1000)).localCheckpoint()

    def written(scored: DataFrame) -> None:
        overwrite_days(scored, conf.workdir, schemas.scores(conf), DAY, DAY)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "encoded": (rows, lambda: written(score_encoded(encoded, conf, conf.template, TOWERS, predict, made_from=MADE_FROM))),
        "strings": (rows, lambda: written(score_inventory(inventory, conf, conf.template, TOWERS, predict, made_from=MADE_FROM))),
        "udf": (rows, lambda: by_udf(encoded, names, model_dir, calibrator, heads, str(folder / "udf"))),
        "rows": (few.count(), lambda: by_row(few, names, model_dir, calibrator)),
    }
    best = dict.fromkeys(["bare", *ways], 0.0)
    for number in range(rounds + 1):
        of_batches = bare(model_dir, columns, 1)
        speeds = {"bare": max(of_batches.values())}
        for way, (count, work) in ways.items():
            began = time.perf_counter()
            work()
            speeds[way] = count / (time.perf_counter() - began)
        told = ", ".join(f"{way} {speed:,.0f}" for way, speed in speeds.items())
        print(
            f"round {number}: rows/s {told}; bare by batch { ({size: round(speed) for size, speed in of_batches.items()}) }",
            file=sys.stderr,
        )
        if number:
            best = {way: max(best[way], speed) for way, speed in speeds.items()}
    require_same(spark, conf, folder, heads)
    pairs = {"encoded": ("encoded", "bare"), "strings": ("strings", "bare"), "udf": ("encoded", "udf"), "rows": ("encoded", "rows")}
    return [line(claim, best, ours, peer, rows) for claim, (ours, peer) in pairs.items()]


def line(claim: str, best: dict[str, float], ours: str, peer: str, rows: int) -> dict[str, Any]:
    ratio = best[ours] / best[peer]
    return {
        "benchmark": "score",
        "rows": rows,
        "ours_is": f"from {ours}",
        "peer_is": peer,
        "ours": round(best[ours]),
        "peer": round(best[peer]),
        "ratio": round(ratio, 2),
        "needed": NEEDED[claim],
        "holds": ratio >= NEEDED[claim],
    }


def require_same(spark: SparkSession, conf: Conf, folder: Path, heads: list[str]) -> None:
    """The peer's probabilities are ours."""
    ours = read(spark, conf.workdir, schemas.scores(conf)).select(
        "inventory_id", *(F.col(f"p_{head}").alias(f"ours_{head}") for head in heads)
    )
    peers = spark.read.format("delta").load(str(folder / "udf")).withColumnRenamed("__kept_inventory_id", "inventory_id")
    apart = [F.max(F.abs(F.col(f"ours_{head}") - F.col(f"p_{head}"))) for head in heads]
    found = ours.join(peers, on="inventory_id", how="inner").agg(F.count(F.lit(1)), *apart).first()
    assert found is not None
    if found[0] != ours.count() or max(found[1:]) > 1e-9:
        raise SystemExit(f"{table_path(conf.workdir, 'scores')} and the udf's differ: {found}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "score")
    given = options.parse_args()
    for found in measure(given.rows, given.rounds, given.folder):
        print(json.dumps(found))
