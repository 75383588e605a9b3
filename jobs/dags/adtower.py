"""Adtower's nights under Airflow 3: nightly, retrained in full once a week, and a range of days after the fact.

Wiring alone: a task is `./build.sh submit nightly` with some stages of one night, and its exit code says how the task ends. This file runs in
Airflow's own environment (`./build.sh airflow`), so it imports nothing of the suite.

Airflow Variables, or AIRFLOW_VAR_… in the environment: `adtower_home`, the checkout (the one that this file lies in); `adtower_conf_file`
(conf/demo.yaml in there); `adtower_alert`, a shell command that reads on its standard input what went wrong. Pool: `adtower_training`, 1 slot.
"""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, BaseOperator, CronDataIntervalTimetable, Param, Variable, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

DONE, REFUSED = 0, 8
# What time mends: an input is not there yet (3), another run holds the night (7), a rank or Spark was lost (75). So does a signal: the machine
# was taken away. The rest is the same each time: a bug (1), configuration (2), what the gate, training and scoring say of the data (4, 5, 6).
MENDED_BY_TIME = (3, 7, 75)
LAST_EXIT_CODE = 128  # above it, as below 0, a signal ended the command

TABLES = ("ingest", "build_examples", "gate")
JUDGE = ("calibrate", "evaluate", "publish_model")
TRAINING_POOL = "adtower_training"


def tell(said: str) -> None:
    """Hand a message to the person on duty."""
    print(said)
    if command := Variable.get("adtower_alert", default=""):
        subprocess.run(command, shell=True, input=f"{said}\n", text=True, timeout=60, check=False)


def alert(context: dict[str, Any]) -> None:
    """What a task that failed for good does."""
    tell(f"{context['ti'].dag_id} {context['run_id']}: {context['ti'].task_id} failed: {context.get('exception') or 'see its log'}")


class Nightly(BaseOperator):
    """Some stages of the night in a process of its own: done, skipped where there is nothing to do yet, tried again, or failed for good.

    Returns what the command's summary says: exit_code, reason, the day, and where the report is.
    """

    template_fields = ("home", "conf_file", "arguments")
    ui_color = "#dbe9f4"

    def __init__(self, *, arguments: list[Any], only: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self.home = "{{ var.value.get('adtower_home', '" + str(Path(__file__).resolve().parents[2]) + "') }}"
        self.conf_file = "{{ var.value.get('adtower_conf_file', 'conf/demo.yaml') }}"
        self.arguments, self.only = arguments, only
        self.command = SubprocessHook()

    def execute(self, context: dict[str, Any]) -> dict[str, Any]:
        stages = [f"--only={','.join(self.only)}"] if self.only else []
        run_id = "--run-id=" + re.sub(r"[^\w.-]", "-", context["run_id"])
        with TemporaryDirectory() as folder:
            file = Path(folder, "summary.json")
            options = ["--conf-file", self.conf_file, run_id, f"--summary={file}", *stages, *filter(None, self.arguments)]
            code = self.command.run_command([f"{self.home}/build.sh", "submit", "nightly", *options], cwd=self.home).exit_code
            summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        told = f"exit {code}, {summary.get('reason', 'before the night began: see the log')}"
        if code in MENDED_BY_TIME or not 0 <= code <= LAST_EXIT_CODE:
            raise AirflowException(told)
        if code not in (DONE, REFUSED):
            raise AirflowFailException(told)
        if self.only and set(self.only) == set(summary["waiting"]):
            raise AirflowSkipException("nothing to do yet: the log says from which night on")
        for table in self.outlets:
            context["outlet_events"][table].extra = {"day": summary["day"], "run_id": summary["run_id"]}
        return {name: summary[name] for name in ("exit_code", "reason", "day", "report")}

    def on_kill(self) -> None:
        self.command.send_sigterm()  # to the whole process group: build.sh, Java, Python


@task
def day(params: dict[str, Any], data_interval_end: datetime | None = None) -> str:
    """The UTC day whose night a run is: that of the parameter, else the last one that was over when the run's data interval ended."""
    if params["date"]:
        return date.fromisoformat(params["date"]).isoformat()
    if data_interval_end is None:
        raise AirflowFailException(
            "this run has no data interval (an asset or a hand started it): give it the parameter date, as 2026-05-16"
        )
    return (data_interval_end.astimezone(UTC).date() - timedelta(days=1)).isoformat()


@task.branch
def verdict(judged: dict[str, Any]) -> list[str]:
    """A refused candidate is told; the model that serves on scores either way."""
    return ["candidate_refused", "score"] if judged["exit_code"] == REFUSED else ["score"]


@task
def candidate_refused(judged: dict[str, Any]) -> None:
    tell(f"night of {judged['day']}: {judged['reason']}; report: {judged['report']}")


def tables(*names: str) -> list[Asset]:
    return [Asset(f"adtower_{name}") for name in names]


COMMON: dict[str, Any] = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,  # nights are run in order: each starts from the model before it
    "tags": ["adtower"],
    "doc_md": __doc__,
    "default_args": {
        "retries": 3,
        "retry_delay": timedelta(minutes=10),
        "retry_exponential_backoff": True,  # 10, 20 and 40 minutes: files that are an hour late are still met
        "max_retry_delay": timedelta(hours=1),
        "on_failure_callback": alert,
    },
}
DATE = Param(None, type=["null", "string"], format="date", description="night to run, as 2026-05-16 (UTC); none: the last one that is over")

with DAG(
    "adtower_nightly",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    params={"date": DATE, "full": Param(False, type="boolean", description="train from nothing instead of from the model that serves")},
    **COMMON,
):
    night = day()
    of_the_day = ["--day", night]
    built = Nightly(
        task_id="tables",
        only=TABLES,
        arguments=of_the_day,
        execution_timeout=timedelta(hours=4),
        outlets=tables("impressions", "engagements", "users", "ads", "inventory", "quarantine", "history", "examples"),
    )
    trained = Nightly(
        task_id="train",
        only=("train",),
        arguments=[*of_the_day, "{{ '--full' if params.full else '' }}"],
        execution_timeout=timedelta(hours=12),
        pool=TRAINING_POOL,
    )
    judged = Nightly(
        task_id="judge",
        only=JUDGE,
        arguments=of_the_day,
        execution_timeout=timedelta(hours=2),
        outlets=tables("served", "metrics", "calibration_daily", "calibration_segments", "models"),
    )
    scored = Nightly(
        task_id="score",
        only=("score",),
        arguments=of_the_day,
        execution_timeout=timedelta(hours=4),
        outlets=tables("scores", "publications"),
    )
    # A night without a model yet has a report too; one that failed wrote its own as it did.
    told = Nightly(
        task_id="report",
        only=("report",),
        arguments=of_the_day,
        execution_timeout=timedelta(minutes=30),
        trigger_rule="none_failed",
    )
    night >> built >> trained >> judged
    verdict(judged.output) >> [candidate_refused(judged.output), scored]
    scored >> told

with DAG(
    "adtower_retraining",
    schedule=CronDataIntervalTimetable("0 8 * * 1", timezone="UTC"),
    params={"date": DATE},
    **COMMON,
):
    # As one more run of the nightly DAG, whose limit of one run keeps it apart from the other nights.
    last_night = day()
    TriggerDagRunOperator(
        task_id="night_in_full",
        trigger_dag_id="adtower_nightly",
        trigger_run_id=f"full__{last_night}",
        logical_date=None,
        conf={"date": last_night, "full": True},
        reset_dag_run=True,
        fail_when_dag_is_paused=True,
        wait_for_completion=True,
        deferrable=True,  # a night in full takes hours, and the slot is needed for its tasks
        retries=0,
        execution_timeout=timedelta(days=1),
    )

with DAG(
    "adtower_backfill",
    schedule=None,
    params={
        "first": Param(type="string", format="date", description="first day, as 2026-05-01 (UTC)"),
        "last": Param(type="string", format="date", description="last day"),
        "tables_only": Param(
            True, type="boolean", description="tables of all days as one range; without: whole nights, one after the other"
        ),
        "go_on": Param(False, type="boolean", description="of whole nights: after one that failed, run the next ones all the same"),
    },
    **COMMON,
):
    Nightly(
        task_id="days",
        arguments=[
            "--from={{ params.first }}",
            "--to={{ params.last }}",
            "{{ '--only=" + ",".join(TABLES) + "' if params.tables_only else '' }}",
            "{{ '--on-failure=go-on' if params.go_on and not params.tables_only else '' }}",
        ],
        execution_timeout=timedelta(days=2),
        pool=TRAINING_POOL,
        outlets=tables("impressions", "engagements", "users", "ads", "quarantine", "history", "examples"),
    )
