"""How much of what can be learned does the model learn? Held to the true probabilities of a simulated world, beside simpler models.

python -m tests.benchmarks.world [--conf-file conf/demo.yaml] [--replicates 1] [--epochs 1] [--folder var/benchmarks/world]

share = (CE of base rates - CE of the model) / (CE of base rates - CE of the truth), of expected cross-entropies under the true
probabilities on the first held-out day. All models train on days 1 to 10, the peers choose their one knob on day 11, day 12 is measured.
Base rates are those of a head in a source. A child head counts given its parent, each row with its parent's true probability. A replicate
is another seed of the world. Where logistic regression passes 80% of click, the world is a toy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import load_text
from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded
from etl.session import start
from etl.simulate import simulate
from etl.snapshot import write_snapshot
from etl.splits import Night
from etl.tables import create_tables, pin, read_days
from etl.truth import true_rows
from jobs import build_examples, ingest
from jobs.nightly import run_night
from models.columns import Arrays, Columns
from models.manifest import Manifest, read_manifest
from models.predictor import Predictor
from models.trainer import TrainRequest, train
from tests.benchmarks.encoded_rows import read_encoded
from tests.benchmarks.impressions_only import impressions_only
from tests.benchmarks.world_peers import Fitted, Rows, boosted_trees, cross_entropy, logistic

ROOT = Path(__file__).parents[2]
TOY = 0.8


@dataclass(frozen=True)
class Day:
    """Encoded rows of a day; by head its labels (1, 0, NaN = masked), true conditional and whole probabilities."""

    arrays: Arrays
    labels: dict[str, np.ndarray]
    conditional: dict[str, np.ndarray]
    whole: dict[str, np.ndarray]


def replicate_of(conf_file: Path, folder: Path, replicate: int) -> Conf:
    text = impressions_only(conf_file, replicate=replicate)
    return load_text("world", text | {"workdir": str(folder / str(replicate)), "landing": ""})


def built(spark: SparkSession, conf: Conf) -> tuple[Manifest, Day, Day]:
    """The training snapshot, the validation day and the held-out day; tables that an earlier run built are kept."""
    assert conf.simulation is not None
    simulate(spark, conf, lambda line: print(f"world: {line}", file=sys.stderr))
    create_tables(spark, conf)
    first = conf.simulation.first_day
    night = Night.of(first + timedelta(days=14), conf)
    run_night(spark, conf, first, night.day, (ingest.STAGE, build_examples.STAGE))
    table = schemas.examples(conf)
    source = pin(spark, conf.workdir, table)
    rows = read_days(spark, conf.workdir, table, first, night.train_to, source.version)
    snapshot, days = Path(conf.workdir) / "snapshot", (first, night.train_to)
    write_snapshot(rows, conf, snapshot, examples_version=source.version, table_id=source.table_id, days=days)
    manifest = read_manifest(str(snapshot))
    return manifest, day_of(spark, conf, manifest, night.calibrate_to), day_of(spark, conf, manifest, night.held_out)


def day_of(spark: SparkSession, conf: Conf, manifest: Manifest, day: date) -> Day:
    labels = [f"label_{head}" for head in conf.heads]
    rows = read_days(spark, conf.workdir, schemas.examples(conf), day, day)
    numbers = encoded(rows, conf.template, manifest.towers, keep=("impression_id", *labels))
    truth = true_rows(spark, conf, "impressions", day, day)
    joined = numbers.join(truth, on=F.col("impression_id") == F.col("id"), how="inner").drop("id")
    path = Path(conf.workdir) / f"day-{day}"
    joined.orderBy("impression_id").write.mode("overwrite").parquet(str(path))
    arrays, found = read_encoded(path, manifest)
    return Day(arrays, *({head: found[f"{what}_{head}"].to_numpy(dtype=float) for head in conf.heads} for what in ("label", "c", "p")))


def training_rows(manifest: Manifest) -> tuple[Arrays, dict[str, np.ndarray]]:
    arrays, found = read_encoded([shard.path for shard in manifest.shards if shard.path], manifest)
    return arrays, {head: found[f"label_{head}"].to_numpy(dtype=float) for head in manifest.heads}


def learned(manifest: Manifest, conf: Conf, epochs: int, seed: int) -> tuple[Predictor, float]:
    bundle = manifest.directory.with_name("bundle")
    shutil.rmtree(bundle, ignore_errors=True)
    request = TrainRequest(str(manifest.directory), str(bundle), "world", conf.model, conf.training, epochs, seed)
    seconds = train(request).seconds
    return Predictor(str(bundle)), seconds


def shares(manifest: Manifest, train_rows: tuple, validate: Day, held: Day, models: Mapping[str, Callable]) -> Iterator[dict]:
    """One line a head: cross-entropies, and the share of each model."""
    (arrays, labels), base = train_rows, manifest.base_log_odds()
    for h, (head, block) in enumerate(manifest.heads.items()):

        def rows(arrays: Arrays, labels: Mapping[str, np.ndarray], head: str = head, parent: str | None = block.parent) -> Rows:
            known = (labels[head] >= 0) & ((labels[parent] == 1) if parent else True)
            everything = Rows(arrays, np.nan_to_num(labels[head], nan=-1))
            return everything.taken(np.nonzero(known)[0])

        truth = held.conditional[head]
        weight = np.where(np.isnan(truth), 0.0, held.whole[block.parent] if block.parent else 1.0)
        truth = np.nan_to_num(truth)
        best = cross_entropy(np.log(truth.clip(1e-9)) - np.log1p(-truth.clip(max=1 - 1e-9)), truth, weight)
        worst = cross_entropy(base[held.arrays.tower, h], truth, weight)
        line: dict = {"head": head, "ce_base": round(worst, 5), "ce_truth": round(best, 5)}
        for name, fit in models.items():
            began = time.monotonic()
            fitted: Fitted = fit(h, lambda: (rows(arrays, labels), rows(validate.arrays, validate.labels)))
            line[name] = round((worst - cross_entropy(fitted(held.arrays), truth, weight)) / (worst - best), 3)
            print(f"world: {head} {name} {line[name]:.3f} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        yield line


def measure(conf_file: Path, folder: Path, replicate: int, epochs: int) -> list[dict]:
    conf = replicate_of(conf_file, folder, replicate)
    spark = start(conf.spark, "benchmark world")
    try:
        manifest, validate, held = built(spark, conf)
    finally:
        spark.stop()
    columns = Columns(manifest.template, len(manifest.towers))
    predictor, seconds = learned(manifest, conf, epochs, conf.seed)
    print(f"world: trained in {seconds:.1f} s", file=sys.stderr, flush=True)
    peers = {
        "logistic": logistic(columns, manifest.statistics, crossed=False),
        "logistic_by_tower": logistic(columns, manifest.statistics, crossed=True),
        "lightgbm": boosted_trees(columns),
    }
    models: dict[str, Callable] = {"ours": lambda h, _: lambda arrays: predictor.log_odds_of(arrays)[:, h]}
    models |= {name: lambda _, rows, fit=fit: fit(*rows()) for name, fit in peers.items()}
    return [
        {"benchmark": "world", "simulated": True, "replicate": replicate, "epochs": epochs, **line}
        for line in shares(manifest, training_rows(manifest), validate, held, models)
    ]


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--conf-file", type=Path, default=ROOT / "conf" / "demo.yaml")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "world")
    options.add_argument("--replicates", type=int, default=1)
    options.add_argument("--epochs", type=int, default=1)
    given = options.parse_args()
    for number in range(given.replicates):
        for line in measure(given.conf_file, given.folder, number, given.epochs):
            print(json.dumps(line), flush=True)
            if line["head"] == "click" and line["logistic"] > TOY:
                print("world: logistic regression passes 80% on click: this world is a toy", file=sys.stderr)
