"""Airflow as its users start it: its command, in an environment, a home and a database of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.jobs.nights import ROOT

BIN = ROOT / ".venv-airflow" / "bin"


@dataclass(frozen=True)
class AirflowHome:
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        assert (BIN / "airflow").exists(), "no .venv-airflow; run ./build.sh airflow"
        settings = {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "jobs" / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }
        return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))} | settings

    def run(self, *arguments: str, program: str = "airflow", **variables: str) -> str:
        """What a program of Airflow's environment says; it must end well. `variables`: Airflow Variables."""
        given = {f"AIRFLOW_VAR_{name.upper()}": value for name, value in variables.items()}
        done = subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment | given,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def with_database(self) -> AirflowHome:
        self.run("db", "migrate")
        self.run("dags", "reserialize")
        return self

    def run_dag(self, dag: str, params: dict[str, Any], **variables: str) -> str:
        """One run of a DAG from its first task to its last, in this process's order, without a scheduler."""
        return self.run("dags", "test", dag, "--conf", json.dumps(params), **variables)
