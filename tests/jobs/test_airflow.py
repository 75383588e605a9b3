"""The DAG files, in Airflow's own environment: what they are wired to, which dates and exit codes mean what, and a real night."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.load import load
from etl import schemas
from etl.tables import read
from jobs.nightly import STAGES
from tests.jobs.airflow_home import AirflowHome
from tests.jobs.nights import ROOT, Place, day, place
from tests.test_packaging import imported

NIGHT = {"tables", "train", "judge", "score", "report"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    return AirflowHome(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def airflow(home: AirflowHome) -> AirflowHome:
    """With a database that knows the DAGs."""
    return home.with_database()


def in_airflow(home: AirflowHome, *question: str) -> Any:
    """What tests/jobs/in_airflow.py says."""
    return json.loads(home.run(str(ROOT / "tests" / "jobs" / "in_airflow.py"), *question, program="python").splitlines()[-1])


@pytest.fixture(scope="module")
def found(home: AirflowHome) -> dict[str, Any]:
    return in_airflow(home, "dags")


def test_the_dag_files_load_without_an_error_and_at_once(found: dict[str, Any]) -> None:
    assert found["errors"] == {}
    assert set(found["dags"]) == {"adtower_nightly", "adtower_retraining", "adtower_backfill"}
    assert found["seconds"] < 3


def test_the_dag_files_import_airflow_and_the_standard_library_alone() -> None:
    files = list((ROOT / "jobs" / "dags").glob("*.py"))
    assert files and set().union(*(imported(file.read_text(encoding="utf-8")) for file in files)) <= {"airflow", *sys.stdlib_module_names}


def test_a_night_is_wired_in_its_order_and_a_refused_candidate_branches_off(found: dict[str, Any]) -> None:
    tasks = found["dags"]["adtower_nightly"]["tasks"]
    after = {name: set(task["after"]) - {"day"} for name, task in tasks.items()}
    assert after == {
        "day": set(),
        "tables": set(),
        "train": {"tables"},
        "judge": {"train"},
        "verdict": {"judge"},
        "candidate_refused": {"judge", "verdict"},
        "score": {"verdict"},
        "report": {"score"},
    }
    assert all("day" in tasks[name]["after"] for name in NIGHT)
    assert tasks["report"]["rule"].endswith("NONE_FAILED"), "a night too early to train has a report"


def test_the_stages_of_the_night_each_have_one_task(found: dict[str, Any]) -> None:
    tasks = found["dags"]["adtower_nightly"]["tasks"]
    assert [stage for name in ("tables", "train", "judge", "score", "report") for stage in tasks[name]["only"]] == [s.name for s in STAGES]


def test_each_task_of_ours_retries_ends_in_time_and_alerts_and_trainings_share_a_pool(found: dict[str, Any]) -> None:
    nightly, backfill = (found["dags"][name]["tasks"] for name in ("adtower_nightly", "adtower_backfill"))
    for task in [*(nightly[name] for name in NIGHT), *backfill.values()]:
        assert task["retries"] == 3 and task["hours"] and task["alerts"]
    assert {name for name, task in nightly.items() if task["pool"] == "adtower_training"} == {"train"}
    assert backfill["days"]["pool"] == "adtower_training"


def test_nights_run_one_at_a_time_by_a_daily_interval_and_in_full_once_a_week(found: dict[str, Any]) -> None:
    dags = found["dags"]
    assert {dag["max_active_runs"] for dag in dags.values()} == {1} and {dag["catchup"] for dag in dags.values()} == {False}
    plans = {name: (dag["timetable"], dag["cron"], dag["params"]) for name, dag in dags.items()}
    assert plans == {
        "adtower_nightly": ("CronDataIntervalTimetable", "0 2 * * *", ["date", "full"]),
        "adtower_retraining": ("CronDataIntervalTimetable", "0 8 * * 1", ["date"]),
        "adtower_backfill": ("NullTimetable", None, ["first", "go_on", "last", "tables_only"]),
    }


def test_every_asset_is_a_table(found: dict[str, Any]) -> None:
    tables = set(schemas.all_tables(load(ROOT / "conf" / "demo.yaml")))
    made = {asset for task in found["dags"]["adtower_nightly"]["tasks"].values() for asset in task["assets"]}
    assert "adtower_scores" in made and {name.removeprefix("adtower_") for name in made} <= tables


def test_a_run_is_the_night_of_its_interval_or_parameter_and_one_that_has_neither_fails(home: AirflowHome) -> None:
    dates = in_airflow(home, "dates")
    assert dates == {
        "scheduled on the 17th": day(16),
        "by hand at noon of the 17th": day(16),
        "by hand half an hour into the 17th": day(15),  # the night of the 16th is run at two
        "by hand with a date": "2026-04-01",
        "by an asset with a date": "2026-04-01",
        "by an asset": dates["by an asset"],
    }
    assert re.match("AirflowFailException: .*give it the parameter date", dates["by an asset"])


def test_what_time_mends_is_tried_again_and_what_it_does_not_fails_at_once(home: AirflowHome, tmp_path: Path) -> None:
    again, never = "AirflowException", "AirflowFailException"
    assert in_airflow(home, "exits", str(tmp_path)) == {
        "0": "done",
        "1": never,  # a bug
        "2": never,  # configuration
        "3": again,  # a file that is late
        "4": never,  # the gate
        "5": never,  # training
        "6": never,  # scoring
        "7": again,  # another run holds the night
        "8": "done",  # candidate refused: the night goes on
        "75": again,  # a rank or Spark lost
        "127": never,  # no build.sh there
        "137": again,  # killed
        "143": again,  # asked to end
        "0, nothing to do yet": "AirflowSkipException",
        "0, some of it to do": "done",
    }


def test_a_task_that_airflow_stops_leaves_nothing_running_and_is_tried_again(home: AirflowHome, tmp_path: Path) -> None:
    assert in_airflow(home, "stopped", str(tmp_path)) == {"ended": ["AirflowException"], "left": False}


def stand_in(folder: Path, script: str) -> str:
    """A home whose `build.sh submit nightly` notes its options and ends as `script` says by `code`; `only` are the stages."""
    text = f"""#!/bin/bash
echo "$*" >>{folder}/calls
for option in "$@"; do case $option in --summary=*) file=${{option#*=}} ;; --only=*) only=${{option#*=}} ;; esac; done
code=0
{script}
echo '{{"exit_code": '$code', "reason": "said", "day": "{day(16)}", "run_id": "x", "waiting": [], "report": "r.html"}}' >"$file"
exit $code
"""
    (folder / "build.sh").write_text(text)
    (folder / "build.sh").chmod(0o755)
    return str(folder)


def test_a_refused_candidate_is_told_and_the_night_scores_and_reports(airflow: AirflowHome, tmp_path: Path) -> None:
    checkout = stand_in(tmp_path, "case $only in calibrate* | score | report) code=8 ;; esac")
    airflow.run_dag("adtower_nightly", {"date": day(16), "full": True}, adtower_home=checkout, adtower_alert=f"cat >>{tmp_path}/told")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [re.findall(r"--only=(\S+)", call)[0].split(",")[0] for call in calls] == ["ingest", "train", "calibrate", "score", "report"]
    assert all(f"--day {day(16)}" in call for call in calls) and ["--full" in call for call in calls] == [False, True, False, False, False]
    assert len({re.findall(r"--run-id=(\S+)", call)[0] for call in calls}) == 1
    assert (tmp_path / "told").read_text() == f"night of {day(16)}: said; report: r.html\n"


def test_airflows_own_backfill_takes_each_night_of_a_range(airflow: AirflowHome) -> None:
    span = ("--from-date", day(1), "--to-date", day(4))
    planned = airflow.run("backfill", "create", "--dag-id", "adtower_nightly", *span, "--dry-run")
    assert re.findall(r"\d{4}-\d\d-\d\d 02:00", planned) == [f"{day(number)} 02:00" for number in (1, 2, 3)]


@pytest.mark.slow
def test_a_night_by_airflow_and_spark_submit_is_one_run_with_one_report(
    spark: SparkSession, airflow: AirflowHome, built: Place, tmp_path: Path
) -> None:
    early = place(tmp_path / "early", "tiny", landing=Path(built.conf.landing))
    airflow.run_dag("adtower_nightly", {"date": day(1)}, adtower_conf_file=str(early.conf_file))
    runs = {row["stage"]: row for row in read(spark, early.workdir, schemas.RUNS).collect()}
    status = {"ingest": "done", "build_examples": "done", "gate": "done", "train": "skipped", "report": "done"}
    assert {stage: row["status"] for stage, row in runs.items()} == status
    assert f"the night of {day(6)} will train" in runs["train"]["message"]
    assert len({row["run_id"] for row in runs.values()}) == 1
    summary = json.loads((early.workdir / "runs" / day(1) / "run_summary.json").read_text())
    assert [row["stage"] for row in summary["stages"]] == list(status) and summary["exit_code"] == 0
