"""How fast is an inventory scored, Delta to Delta, beside the bare forward pass of the same model and beside two other ways to map it?

python -m tests.benchmarks.score [--rows 2000000] [--rounds 2]

Made-up rows: 20 columns of 100,000 values as strings, 10 numbers, 3 sources; embeddings of 16, bottom 256-128, towers 128-64, 5 heads with
random weights, calibrated. Spark runs as `local[2]`. One JSON line a claim; `ours` and `peer` are rows a second, the best round of each, in
turns, after a round that is not counted.

  from encoded   etl.scores.score_encoded, from a Delta table of encoded columns to the table `scores`, ranks and flags included
  from strings   etl.scores.score_inventory, from the inventory's own columns to the same
  bare           the model's forward pass over encoded arrays in memory, on both cores at its best batch size: no calibration, no tables
  mapped         the probabilities alone, from the encoded table to a Delta table: neither utility, ranks nor flags
  udf            the same by pyspark.ml.functions.predict_batch_udf
  rows           the same a row at a time in an RDD's map, as Horovod's TorchModel has it, on part of the rows

A last line says where the time goes: seconds of reading the encoded rows, of also passing them to Python and back, of also predicting, and of all.
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
from etl.scores import encoded_inventory, mapped_encoded, score_encoded, score_inventory
from etl.session import start
from etl.tables import create_tables, overwrite_days, read
from models import bundle
from models.calibration import Calibrator, Cell
from models.columns import Arrays
from models.predictor import load_predictor, predict_probabilities
from models.representation import Features

ROOT = Path(__file__).parents[2]
DAY, VALUES, CATEGORICAL, NUMERIC = date(2026, 5, 1), 100_000, 20, 10
TOWERS = ("standard", "shopping", "video")
BATCHES = (1024, 2048, 4096, 8192, 16_384)
#: (ours, peer) -> the least ratio
NEEDED = {("encoded", "bare"): 0.6, ("strings", "bare"): 0.45, ("mapped", "udf"): 2.0, ("mapped", "rows"): 50.0}
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


def mapped(rows: DataFrame, names: list[str], predict: Callable[..., Any], heads: list[str]) -> DataFrame:
    outputs = [*(f"p_{head}_raw" for head in heads), *(f"p_{head}" for head in heads)]
    return mapped_encoded(rows, names, ("inventory_id", "day"), outputs, partial(_beside, predict))


def _beside(predict: Callable[..., Any], columns: Any) -> np.ndarray:
    return np.hstack(predict(columns)[:2])


def _nothing(width: int, columns: Any) -> np.ndarray:
    return np.full((len(columns["tower"]), width), 0.5)


def by_udf(rows: DataFrame, names: list[str], model_dir: str, calibrator: str, heads: list[str]) -> DataFrame:
    def make() -> Callable[..., np.ndarray]:
        def run(*given: np.ndarray) -> np.ndarray:
            return np.hstack(predict_probabilities(model_dir, calibrator, dict(zip(names, given, strict=True)))[:2])

        # The number of inputs is read off the signature.
        run.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
        return run

    predict = predict_batch_udf(make, return_type=ArrayType(DoubleType()), batch_size=4096)
    found = rows.select("__kept_inventory_id", "__kept_day", predict(*names).alias("p"))
    outputs = [*(f"p_{head}_raw" for head in heads), *(f"p_{head}" for head in heads)]
    return found.select(
        F.col("__kept_inventory_id").alias("inventory_id"),
        F.col("__kept_day").alias("day"),
        *(F.get("p", F.lit(place)).alias(name) for place, name in enumerate(outputs)),
    )


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
        "mapped": (rows, lambda: saved(mapped(encoded, names, predict, heads), folder / "mapped")),
        "udf": (rows, lambda: saved(by_udf(encoded, names, model_dir, calibrator, heads), folder / "udf")),
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
    require_same(spark, folder, heads)
    return [*(line(best, ours, peer, rows) for ours, peer in NEEDED), shares(encoded, names, predict, heads, rows / best["encoded"])]


def saved(found: DataFrame, folder: Path) -> None:
    found.write.format("delta").mode("overwrite").save(str(folder))


def shares(encoded: DataFrame, names: list[str], predict: Callable[..., Any], heads: list[str], whole: float) -> dict[str, Any]:
    """Seconds of a part of the way each; the last, `from encoded`, is of the best round."""
    outputs = [f"p{place}" for place in range(2 * len(heads))]
    passed = mapped_encoded(encoded, names, ("inventory_id", "day"), outputs, partial(_nothing, len(outputs)))
    seconds = {}
    for part, frame in {"read": encoded, "passed": passed, "predicted": mapped(encoded, names, predict, heads)}.items():
        began = time.perf_counter()
        frame.write.format("noop").mode("overwrite").save()
        seconds[part] = round(time.perf_counter() - began, 1)
    return {"benchmark": "score", "what": "seconds", **seconds, "from encoded": round(whole, 1)}


def line(best: dict[str, float], ours: str, peer: str, rows: int) -> dict[str, Any]:
    ratio = best[ours] / best[peer]
    return {
        "benchmark": "score",
        "rows": rows,
        "ours_is": ours,
        "peer_is": peer,
        "ours": round(best[ours]),
        "peer": round(best[peer]),
        "ratio": round(ratio, 2),
        "needed": NEEDED[ours, peer],
        "holds": ratio >= NEEDED[ours, peer],
    }


def require_same(spark: SparkSession, folder: Path, heads: list[str]) -> None:
    """The peer's probabilities are ours."""
    ours, peers = (spark.read.format("delta").load(str(folder / name)) for name in ("mapped", "udf"))
    apart = [F.max(F.abs(F.col(f"a.p_{head}") - F.col(f"b.p_{head}"))) for head in heads]
    found = ours.alias("a").join(peers.alias("b"), on="inventory_id", how="inner").agg(F.count(F.lit(1)), *apart).first()
    assert found is not None
    if found[0] != ours.count() or max(found[1:]) > 1e-9:
        raise SystemExit(f"the probabilities of predict_batch_udf differ from ours: {found}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "score")
    given = options.parse_args()
    for found in measure(given.rows, given.rounds, given.folder):
        print(json.dumps(found))
