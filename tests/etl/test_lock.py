"""One run a night."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from etl.lock import LockHeld, night_lock, upkeep_lock

DAY = date(2026, 5, 10)
HOLD = """
import datetime, sys, time
from etl.lock import night_lock
with night_lock(sys.argv[1], datetime.date(2026, 5, 10), "first"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_of_a_night_is_told_who_holds_it_and_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with pytest.raises(LockHeld, match=f'"first".*{holder.pid}'), night_lock(tmp_path, DAY, "second"):
            pass
        with night_lock(tmp_path, DAY + timedelta(days=1), "another night"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with night_lock(tmp_path, DAY, "third"):
        pass


def test_a_night_that_ended_leaves_its_lock_free(tmp_path: Path) -> None:
    for run in ("one", "two"):
        with night_lock(tmp_path, DAY, run):
            pass


def test_tables_are_tidied_while_no_night_runs_and_no_night_begins_meanwhile(tmp_path: Path) -> None:
    with night_lock(tmp_path, DAY, "night"), pytest.raises(LockHeld, match="a night is being run"), upkeep_lock(tmp_path, "tidy"):
        pass
    with (
        upkeep_lock(tmp_path, "tidy"),
        pytest.raises(LockHeld, match=r'removed from the tables by .*"tidy"'),
        night_lock(tmp_path, DAY, "night"),
    ):
        pass
    with night_lock(tmp_path, DAY, "one"), night_lock(tmp_path, DAY + timedelta(days=1), "two"):
        pass
