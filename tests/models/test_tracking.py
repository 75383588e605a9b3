"""A finished training is told to a real MLflow store; one that cannot be told ends in a warning within seconds."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from models.bundle import META, WEIGHTS
from models.tracking import Record, tell_mlflow

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when the package is imported
from mlflow.tracking import MlflowClient


def record_in(folder: Path, uri: str) -> Record:
    (folder / "model").mkdir()
    for file in (META, WEIGHTS):
        (folder / "model" / file).write_text(f"this is {file}")
    return Record(
        uri, "adtower-small", "m1", str(folder / "model"), str(folder / "mlflow"), {"seed": "1"}, {"loss/click": 0.25, "loss/save": None}
    )


def test_a_database_gets_parameters_figures_and_the_two_files_of_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = record_in(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    tell_mlflow(record, limit_seconds=120)
    tell_mlflow(replace(record, name="m2"), limit_seconds=120)  # the next night, in the same experiment
    assert capsys.readouterr().err == ""
    client = MlflowClient(record.uri)
    experiment = client.get_experiment_by_name("adtower-small")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["m1", "m2"]
    assert (runs["m1"].info.status, runs["m1"].data.params, runs["m1"].data.metrics) == ("FINISHED", {"seed": "1"}, {"loss/click": 0.25})
    files = tmp_path / "mlflow" / runs["m1"].info.run_id / "artifacts"
    assert {file.name: file.read_text() for file in files.iterdir()} == {META: f"this is {META}", WEIGHTS: f"this is {WEIGHTS}"}


def test_a_store_that_cannot_be_reached_is_a_warning_without_its_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        tell_mlflow(record_in(tmp_path, f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}"), limit_seconds=120)
    err = capsys.readouterr().err
    assert "train: model m1 is not in MLflow at http://***@127.0.0.1:" in err
    assert "Connection refused" in err
    assert "secret" not in err


def test_a_file_that_is_no_database_is_a_warning_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mlflow.db").write_text("this is no database, " * 100)
    tell_mlflow(record_in(tmp_path, f"sqlite:///{tmp_path}/mlflow.db"), limit_seconds=120)
    assert "DatabaseError: (sqlite3.DatabaseError) file is not a database); nothing else depends on it" in capsys.readouterr().err


def test_a_server_that_never_answers_is_left_at_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        tell_mlflow(record_in(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"), limit_seconds=1)
    assert time.monotonic() - begun < 5
    assert "not done within tracking.mlflow_seconds, 1; nothing else depends on it" in capsys.readouterr().err.replace(")", "")
