"""The model beside logistic regression, LightGBM, DeepCTR-Torch's MMoE and PLE, and its own other forms, on DeskDrop's real log.

python -m tests.benchmarks.deskdrop [--seeds 5] [--arms towers,merged,plain] [--folder var/benchmarks/deskdrop]

conf/deskdrop_comparison.yaml is built by the real ETL and cut at 70% of its impressions, inside a day. All learn from the same rows and
features; each chooses its knobs (learning rate and epochs; strength of regularisation; number of trees) on the last 30 days before the cut,
and then learns from these too. Nothing is chosen on test rows; our widths and the pace of ids, which the configuration states, were chosen by
hand on those 30 days as well, some thirty trials more than the peers were given. Prints one JSON line a head, and one of the mean over heads: AUC, NE and
predicted over observed of each, means over seeds; `change`: NE against `towers`, with a 95% interval over users (below 0: better).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from conf.load import load
from conf.schema import Conf
from etl.session import start
from etl.tables import create_tables
from etl.trial import Split
from jobs import build_examples, ingest
from jobs.compare import Comparison, moment
from jobs.nightly import run_night
from models.columns import Columns
from models.contest import ALL, contest
from models.manifest import Manifest, read_manifest
from models.trial import Setting
from tests.benchmarks.encoded_rows import read_encoded
from tests.benchmarks.train import ROOT, installed
from tests.benchmarks.world_peers import Rows, boosted_trees, logistic

DATA = Path(os.environ.get("ADTOWER_DATA") or ROOT.parent / "shared" / "data") / "deskdrop" / "users_interactions.csv.gz"
DAYS = date(2016, 3, 14), date(2017, 3, 2)
CUT, VALIDATED = moment("2016-09-16T20:04:30"), moment("2016-08-17T20:04:30")
SETTINGS = [Setting(rate, epochs) for rate in (0.3, 1.0, 2.0) for epochs in (2, 4, 6, 8)]
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


def settings(folder: Path) -> Conf:
    if not DATA.is_file():
        raise SystemExit(f"no {DATA}: set ADTOWER_DATA to the folder that holds deskdrop/users_interactions.csv.gz")
    landing = folder / "landing"
    landing.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DATA, landing / DATA.name)
    conf = load(ROOT / "conf" / "deskdrop_comparison.yaml")
    return conf.model_copy(update={"workdir": str(folder), "landing": str(landing)})


def ours(conf: Conf, arms: list[str], seeds: int) -> tuple[Comparison, dict[str, np.ndarray], pd.DataFrame]:
    """Answers of the arms about the test rows [S, N, H]."""
    spark = start(conf.spark, "benchmark deskdrop")
    try:
        create_tables(spark, conf)
        run_night(spark, conf, *DAYS, (ingest.STAGE, build_examples.STAGE))  # skipped where it stands
        comparison = Comparison.of(spark, conf, Split(DAYS[0], date(2017, 2, 28), VALIDATED, CUT))
        chosen, given = comparison.answered(arms, SETTINGS, range(1, seeds + 1))
        print({name: str(setting) for name, setting in chosen.items()}, file=sys.stderr)
        return comparison, given, pd.read_parquet(comparison.rows.facts("test"))
    finally:
        spark.stop()


def simple(folder: Path, heads: list[str], seeds: int) -> dict[str, np.ndarray]:
    """Logistic regression (one answer, whatever the seed) and LightGBM, a model a head."""
    own = folder / "views" / "own"
    learn, both = (read_manifest(own / which) for which in ("learn", "both"))
    columns = Columns(both.template, len(both.towers))
    parts = {"learn": rows_of(learn), "both": rows_of(both)}
    validate, test = (read_encoded(own / f"{which}.parquet", both)[0] for which in ("validate", "test"))
    labels = pd.read_parquet(folder / "rows" / "validate.parquet")
    fits = {
        "logistic": lambda _: logistic(columns, both.statistics, False, STRENGTHS, 300),
        "lightgbm": lambda s: boosted_trees(columns, s),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in fits}
    for name, fit in fits.items():
        for seed in range(seeds if name == "lightgbm" else 1):
            of_heads = []
            for head in heads:
                shown = known(Rows(validate, labels[f"label_{head}"].fillna(-1).to_numpy()))
                of_heads.append(fit(seed)(known(parts["learn"][head]), shown, known(parts["both"][head]))(test))
            found[name].append(np.stack(of_heads, 1))
    return {name: np.stack(of_seeds) for name, of_seeds in found.items()}


def rows_of(manifest: Manifest) -> dict[str, Rows]:
    arrays, found = read_encoded([shard.path for shard in manifest.shards if shard.path], manifest)
    return {head: Rows(arrays, found[f"label_{head}"].to_numpy()) for head in manifest.heads}


def known(rows: Rows) -> Rows:
    return rows.taken(np.nonzero(rows.label >= 0)[0])


def peer(name: str, folder: Path, seeds: int, packages: Path) -> np.ndarray:
    output = folder / f"{name}.npy"  # kept, as all finished trainings are
    if output.is_file() and len(found := np.load(output)) == seeds:
        return found
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}  # in this order: see train_peers.txt
    command = [sys.executable, "-m", "tests.benchmarks.deskdrop_peer", name, str(folder), str(output), "--seeds", str(seeds)]
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
    return np.load(output)


def lines(table: pd.DataFrame) -> list[dict[str, object]]:
    shown = []
    for head, of in table[table["tower"] == ALL].groupby("head", sort=False):
        line: dict[str, object] = {"benchmark": "deskdrop", "simulated": False, "head": head}
        for row in of.to_dict("records"):
            figures = {name: round(row[name], 4) for name in ("auc", "ne", "ratio", "ne_seed_sd") if np.isfinite(row[name])}
            for what in ("ne_change", "auc_change"):
                figures[what] = [round(row[f"{what}{end}"], 4) for end in ("", "_low", "_high")]
            line[row["arm"]] = figures
        shown.append(line)
    return shown


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--arms", default="towers,merged,plain")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "deskdrop")
    options.add_argument("--packages", type=Path, default=ROOT / "var" / "benchmarks" / "peers")
    given = options.parse_args()
    conf = settings(given.folder)
    comparison, answers, rows = ours(conf, given.arms.split(","), given.seeds)
    answers |= simple(comparison.folder, list(conf.heads), given.seeds)
    packages = installed(given.packages)
    answers |= {name: peer(name, comparison.folder, given.seeds, packages) for name in ("mmoe", "ple")}
    for found in lines(contest(comparison.judged("test"), answers)):
        print(json.dumps(found), flush=True)
