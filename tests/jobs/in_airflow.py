"""Airflow's side of tests/jobs/test_airflow.py: runs in Airflow's environment, imports nothing of the suite, prints one JSON document.

.venv-airflow/bin/python tests/jobs/in_airflow.py (dags | dates | exits FOLDER | stopped FOLDER)
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.encoders import coerce_to_core_timetable

DAGS = Path(__file__).resolve().parents[2] / "jobs" / "dags"


def dags() -> dict[str, Any]:
    began = time.monotonic()
    bag = DagBag(dag_folder=DAGS, safe_mode=False)
    return {
        "errors": bag.import_errors,
        "seconds": time.monotonic() - began,
        "dags": {dag.dag_id: described(dag) for dag in bag.dags.values()},
    }


def described(dag: DAG) -> dict[str, Any]:
    return {
        "timetable": type(dag.timetable).__name__,
        "cron": getattr(dag.timetable, "expression", None),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "params": sorted(dag.params),
        "tasks": {task.task_id: task_of(task) for task in dag.tasks},
    }


def task_of(task: BaseOperator) -> dict[str, Any]:
    return {
        "after": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "hours": task.execution_timeout.total_seconds() / 3600 if task.execution_timeout else None,
        "pool": task.pool,
        "rule": str(task.trigger_rule),
        "alerts": bool(task.on_failure_callback),
        "only": list(getattr(task, "only", ())),
        "assets": sorted(asset.name for asset in task.outlets),
    }


def dates() -> dict[str, str]:
    """How a run was started -> the night that it is, or why it is none."""
    dag = DagBag(dag_folder=DAGS, safe_mode=False).dags["adtower_nightly"]
    table, day = coerce_to_core_timetable(dag.timetable), dag.get_task("day").python_callable
    by_hand, given = {"date": None}, {"date": "2026-04-01"}
    found = {
        "scheduled on the 17th": day(by_hand, at_end(table, datetime(2026, 5, 17, 2, tzinfo=UTC))),
        "by hand at noon of the 17th": day(by_hand, at_end(table, datetime(2026, 5, 17, 12, tzinfo=UTC))),
        "by hand half an hour into the 17th": day(by_hand, at_end(table, datetime(2026, 5, 17, 0, 30, tzinfo=UTC))),
        "by hand with a date": day(given, at_end(table, datetime(2026, 5, 17, 12, tzinfo=UTC))),
        "by an asset with a date": day(given, None),
    }
    try:
        found["by an asset"] = day(by_hand, None)
    except Exception as error:
        found["by an asset"] = f"{type(error).__name__}: {error}"
    return found


def at_end(table: Any, moment: datetime) -> datetime:
    return table.infer_manual_data_interval(run_after=moment).end


def exits(folder: str) -> dict[str, str]:
    """Exit code -> how the task ended, with a stand-in for build.sh that ends with that code."""
    task = DagBag(dag_folder=DAGS, safe_mode=False).dags["adtower_nightly"].get_task("judge")
    found = {str(code): ending(task, Path(folder), code) for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 75, 127, 137, 143)}
    found["0, nothing to do yet"] = ending(task, Path(folder), 0, waiting=task.only)
    found["0, some of it to do"] = ending(task, Path(folder), 0, waiting=task.only[1:])
    return found


def ending(task: Any, folder: Path, code: int, waiting: Sequence[str] = ()) -> str:
    summary = {"exit_code": code, "reason": "said", "day": "2026-05-16", "report": "r.html", "run_id": "x", "waiting": list(waiting)}
    script = folder / "build.sh"
    script.write_text(
        f"""#!/bin/bash
for option in "$@"; do [[ $option != --summary=* ]] || echo '{json.dumps(summary)}' >"${{option#*=}}"; done
exit {code}
"""
    )
    script.chmod(0o755)
    task.home, task.conf_file, task.arguments = str(folder), "conf/demo.yaml", ["--day", "2026-05-16"]
    events = {asset: SimpleNamespace(extra={}) for asset in task.outlets}
    try:
        task.execute({"run_id": "scheduled__2026-05-16T02:00:00+00:00", "outlet_events": events})
    except Exception as error:
        return type(error).__name__
    assert all(event.extra["day"] == "2026-05-16" for event in events.values())
    return "done"


def stopped(folder: str) -> dict[str, Any]:
    """How a task ends that Airflow stops, and what is left of the process that its command had started."""
    task, pid = DagBag(dag_folder=DAGS, safe_mode=False).dags["adtower_nightly"].get_task("train"), Path(folder, "pid")
    Path(folder, "build.sh").write_text(f"#!/bin/bash\nsleep 600 &\necho $! >{pid}.new && mv {pid}.new {pid}\nwait\n")
    Path(folder, "build.sh").chmod(0o755)
    task.home, task.conf_file, task.arguments = folder, "conf/demo.yaml", []
    ended: list[str] = []

    def run() -> None:
        try:
            task.execute({"run_id": "r", "outlet_events": {}})
        except Exception as error:
            ended.append(type(error).__name__)

    thread = threading.Thread(target=run)
    thread.start()
    while not pid.exists():
        time.sleep(0.05)
    task.on_kill()
    thread.join(60)
    state = Path("/proc", pid.read_text().strip(), "stat")
    return {"ended": ended, "left": state.exists() and " Z " not in state.read_text()}


QUESTIONS: dict[str, Callable[..., Any]] = {"dags": dags, "dates": dates, "exits": exits, "stopped": stopped}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]](*sys.argv[2:])))
