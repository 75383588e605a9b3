"""A run's log: what a line says, what it leaves out, and that it never stands in the way."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from models import logs


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def unheard(trouble: str) -> None:
    raise AssertionError(trouble)


def test_a_line_names_run_and_stage_and_what_is_told_and_a_second_run_appends(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "log.jsonl"
    for run in ("r1", "r2"):
        with logs.to_file(file, unheard), logs.naming(run_id=run, day="2026-05-07"):
            with logs.naming(stage="ingest"):
                logs.tell("stage done", seconds=1.5, rows=3)
            logs.tell("night ended", exit_code=0)
    logs.tell("told to nobody")
    first, second, *of_r2 = lines(file)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO",
        "run_id": "r1",
        "day": "2026-05-07",
        "stage": "ingest",
        "event": "stage done",
        "seconds": 1.5,
        "rows": 3,
    }
    assert "stage" not in second and [line["run_id"] for line in of_r2] == ["r2", "r2"]


def test_an_error_has_its_traceback_and_stays_one_line(tmp_path: Path) -> None:
    with logs.to_file(tmp_path / "log.jsonl", unheard):
        try:
            raise ValueError("two\nlines")
        except ValueError as error:
            logs.tell("stage failed", error=error)
    (line,) = lines(tmp_path / "log.jsonl")
    assert line["traceback"].startswith("Traceback") and "two\nlines" in line["traceback"]


def test_no_secret_is_logged_wherever_it_stands(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "message": "no answer from https://ada:s3cret@mlflow.example/x",
        "parts": ["password=s3cret", {"deep": "api_key: s3cret"}],
        "header": "fs.s3a.secret.key=s3cret; user=ada",
    }
    with logs.to_file(tmp_path / "log.jsonl", unheard):
        try:
            raise RuntimeError('{"token": "s3cret"}')
        except RuntimeError as error:
            logs.tell("failed", error=error, **told)
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert "s3cret" not in text and "//***@mlflow.example/x" in text and "user=ada" in text


def test_a_log_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    troubles: list[str] = []
    (tmp_path / "log.jsonl").mkdir()
    with logs.to_file(tmp_path / "log.jsonl", troubles.append):
        logs.tell("stage done")
    with logs.to_file(Path("/dev/full"), troubles.append):  # a disk without room
        logs.tell("stage done")
        logs.tell("night ended")
    assert [trouble.split(":")[0] for trouble in troubles] == [
        f"no log at {tmp_path}/log.jsonl",
        "lines are missing from the log /dev/full",
    ]


def test_a_function_for_workers_is_itself_without_a_log_and_names_the_run_with_one(tmp_path: Path) -> None:
    assert logs.named(len) is len
    with logs.to_file(tmp_path / "log.jsonl", unheard), logs.naming(run_id="r1", stage="score"):
        work = pickle.dumps(logs.named(len))
    code = "import pickle, sys; work = pickle.loads(sys.stdin.buffer.read()); print([work('ab'), work('abc')]); work(3)"  # a worker's own process
    done = subprocess.run([sys.executable, "-c", code], input=work, capture_output=True, check=False)
    assert done.stdout == b"[2, 3]\n"
    began, failed = (json.loads(line) for line in done.stderr.decode().splitlines() if line.startswith("{"))
    assert (began["run_id"], began["stage"], began["event"], failed["event"]) == ("r1", "score", "worker began", "worker failed")
    assert "object of type 'int' has no len()" in failed["traceback"]


def test_a_rank_names_the_run_of_the_process_that_started_it_and_is_silent_where_that_has_no_log(tmp_path: Path) -> None:
    code = "from models import logs; logs.in_a_rank(1, on_terminal=False); logs.tell('rank joined')"
    assert logs.for_ranks() == {}
    with logs.to_file(tmp_path / "log.jsonl", unheard), logs.naming(run_id="r1", stage="train"):
        environment = logs.for_ranks()

    def said(environment: dict[str, str]) -> str:
        return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True).stderr

    line = json.loads(said(environment))
    assert (line["run_id"], line["stage"], line["rank"], line["event"]) == ("r1", "train", 1, "rank joined")
    assert said({}) == ""
