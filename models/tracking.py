"""A finished training told to MLflow: parameters, figures and the bundle's two files, which are no pickle.

In a process of its own, so that a server that hangs is left behind after some seconds, and that no import of MLflow's weighs on the night.
`python -m models.tracking` reads a record as JSON from stdin.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models.bundle import META, WEIGHTS

CONNECT_SECONDS = 3


@dataclass(frozen=True)
class Record:
    """One run of an experiment. `artifacts` is the folder in which a store that is a database keeps the files; a server has its own."""

    uri: str
    experiment: str
    name: str
    bundle_dir: str
    artifacts: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)


def tell_mlflow(record: Record, limit_seconds: float) -> None:
    """Log `record`; whatever is in the way is a line on stderr, and no error."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Refused or unanswered is known at the first try.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CONNECT_SECONDS),
        "MLFLOW_SQLALCHEMYSTORE_CONNECT_TIMEOUT": str(CONNECT_SECONDS),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "models.tracking"]
    try:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            input=json.dumps(asdict(record)),
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
        reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"not done within tracking.mlflow_seconds, {limit_seconds:g}"
    except OSError as error:
        reason = str(error)
    if reason:
        # A password in the address is nobody's business.
        told = re.sub(r"//[^/@\s]+@", "//***@", f"{record.uri} ({reason})")
        print(f"train: model {record.name} is not in MLflow at {told}; nothing else depends on it", file=sys.stderr, flush=True)


def log(record: Record) -> None:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient
    from mlflow.utils.time import get_current_time_millis

    client = MlflowClient(record.uri)
    known = client.get_experiment_by_name(record.experiment)
    place = None if record.uri.startswith(("http:", "https:")) else Path(record.artifacts).resolve().as_uri()
    experiment = known.experiment_id if known else client.create_experiment(record.experiment, artifact_location=place)
    run = client.create_run(experiment, run_name=record.name).info.run_id
    try:
        now = get_current_time_millis()
        figures = {name: value for name, value in record.figures.items() if value is not None and math.isfinite(value)}
        client.log_batch(
            run,
            metrics=[Metric(name, value, now, 0) for name, value in figures.items()],
            params=[Param(name, str(value)) for name, value in record.parameters.items()],
        )
        for file in (META, WEIGHTS):
            client.log_artifact(run, str(Path(record.bundle_dir) / file))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


if __name__ == "__main__":
    try:
        log(Record(**json.load(sys.stdin)))
    except Exception as problem:  # whatever it is, its first line is what a person is told
        sys.exit(f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}")
