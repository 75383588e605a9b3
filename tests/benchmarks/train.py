"""How fast does the trainer learn beside DeepCTR-Torch's and torch-rechub's SharedBottom of the same widths, and does it learn as much?

python -m tests.benchmarks.train [--rows 400000] [--rounds 2] [--seed 1]

20 columns of 100,000 values, embeddings of 16, bottom 256-128, two heads of 64, batches of 4,096, one epoch, one process at a time, the
same threads. Ours reads a snapshot by Petastorm, the peers have their rows in memory. `ours` and `peer` are rows a second of the epoch, the
best round of each, in turns; DeepCTR-Torch counts with dense or sparse embedding gradients, whichever is faster. The log-losses are of
100,000 held-out rows of the same world, the mean of both heads, and `log_loss_truth` is that of the log-odds the labels were drawn from.
Ours trains with its defaults, and once more with layers in bfloat16 on the CPU (training.bfloat16), which the peers do not offer; the peers'
learning rates were chosen for them on another world (tests/benchmarks/train_peer.py).

The peers are installed into var/benchmarks/peers by this command, with the versions of tests/benchmarks/train_peers.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from models.predictor import Predictor
from models.trainer import TrainRequest, train
from tests.benchmarks.train_peer import HELD_OUT, LEARNING_RATE
from tests.benchmarks.training_data import MODEL, made_rows, made_snapshot, settings

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("train_peers.txt")
LEAST_RATIO, LARGEST_DIFFERENCE = 6.0, 0.005
#: Ours -> training.bfloat16.
OURS = {"ours": "gpu", "ours in bfloat16": "always"}


def installed(target: Path) -> Path:
    """The peers alone, in a folder that only their processes see."""
    if not (target / REQUIREMENTS.name).is_file() or (target / REQUIREMENTS.name).read_text() != REQUIREMENTS.read_text():
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(target), "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (target / REQUIREMENTS.name).write_text(REQUIREMENTS.read_text())
    return target


def ours(rows: int, seed: int, folder: Path, bfloat16: str) -> dict[str, float]:
    snapshot, training = made_snapshot(folder, rows, seed), settings().model_copy(update={"bfloat16": bfloat16})
    result = train(TrainRequest(str(snapshot), str(folder / "bundle"), "benchmark", MODEL, training, epochs=1, seed=1))
    held_out = made_rows(HELD_OUT, seed, part=1)
    log_loss = held_out.log_loss(Predictor(result.bundle_dir).log_odds(held_out.columns))
    return {"rows_a_second": result.rows_per_second, "log_loss": log_loss}


def peer(name: str, rows: int, seed: int, packages: Path) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}  # in this order: see the requirements
    command = [sys.executable, "-m", "tests.benchmarks.train_peer", name, "--rows", str(rows), "--seed", str(seed)]
    return json.loads(subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measure(rows: int, rounds: int, seed: int, folder: Path, packages: Path) -> list[dict[str, object]]:
    """One line for DeepCTR-Torch, one for torch-rechub, and the same in bfloat16."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *LEARNING_RATE)}
    for number in range(rounds):
        for name, runs in found.items():
            runs.append(ours(rows, seed, folder, OURS[name]) if name in OURS else peer(name, rows, seed, packages))
            print(f"round {number + 1}: {name} {runs[-1]['rows_a_second']:,.0f} rows/s", file=sys.stderr, flush=True)
    best = {name: max(runs, key=lambda run: run["rows_a_second"]) for name, runs in found.items()}
    truth = made_rows(HELD_OUT, seed, part=1)
    deepctr = max("deepctr-dense", "deepctr-sparse", key=lambda name: best[name]["rows_a_second"])
    told = {
        "benchmark": "train",
        "rows": rows,
        "seed": seed,
        "threads": torch.get_num_threads(),
    }
    of_truth = truth.log_loss(truth.log_odds)
    return [told | {"ours_is": own} | against(best[own], name, best[name], of_truth) for own in OURS for name in (deepctr, "rechub")]


def against(own: dict[str, float], name: str, other: dict[str, float], truth: float) -> dict[str, object]:
    difference = own["log_loss"] / other["log_loss"] - 1
    return {
        "ours": round(own["rows_a_second"]),
        "peer_is": name,
        "peer": round(other["rows_a_second"]),
        "ratio": round(own["rows_a_second"] / other["rows_a_second"], 2),
        "needed": LEAST_RATIO,
        "log_loss_ours": round(own["log_loss"], 5),
        "log_loss_peer": round(other["log_loss"], 5),
        "log_loss_truth": round(truth, 5),
        "log_loss_difference": round(difference, 5),  # of the peer's; below 0 ours is lower
        "largest_difference": LARGEST_DIFFERENCE,
        "as_good": difference <= LARGEST_DIFFERENCE,
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--seed", type=int, default=1, help="of the world that rows are drawn from")
    options.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmarks" / "training")
    options.add_argument("--packages", type=Path, default=ROOT / "var" / "benchmarks" / "peers")
    given = options.parse_args()
    for line in measure(given.rows, given.rounds, given.seed, given.folder, installed(given.packages)):
        print(json.dumps(line))
