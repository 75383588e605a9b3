"""Several nights in order: which failures end them all, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from etl.landing import InputMissing
from etl.lock import LockHeld
from jobs.common import AGAIN, CONFLICT, DONE, INPUT, REFUSED, USAGE, VALIDATION, StageFailed
from jobs.nightly import nightly
from jobs.nights import Nights, in_order
from tests.jobs.nights import Place, day, place
from tests.small import DAY, small_conf

NIGHTS = [Nights(DAY + timedelta(days=number), DAY + timedelta(days=number), ()) for number in range(4)]


def ending(*ends: int | Exception) -> Callable[[Nights], int]:
    """What runs a night, and ends the first as the first of `ends`, and so on."""

    def run(night: Nights) -> int:
        end = ends[NIGHTS.index(night)]
        if isinstance(end, Exception):
            raise end
        return end

    return run


def test_a_failed_night_is_told_the_next_are_run_and_the_first_failed_gives_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    ends = (DONE, StageFailed("gate: 3 rows\nand more", VALIDATION), InputMissing("no files"), REFUSED)
    assert in_order(NIGHTS, ending(*ends), small_conf(), None) == VALIDATION
    assert capsys.readouterr().err.splitlines() == [
        "night 2026-05-10  exit 0  done",
        "night 2026-05-11  exit 4  StageFailed: gate: 3 rows",
        "night 2026-05-12  exit 3  InputMissing: no files",
        "night 2026-05-13  exit 8  done, candidate refused: the model before it serves",
    ]


def test_a_refusal_is_not_hidden_by_nights_that_pass() -> None:
    assert in_order(NIGHTS, ending(DONE, REFUSED, DONE, DONE), small_conf(), None) == REFUSED


def test_what_would_end_the_next_nights_too_ends_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (StageFailed("more ranks than slots", USAGE), USAGE),
        (LockHeld("another run"), CONFLICT),
        (StageFailed("a rank was killed", AGAIN), AGAIN),
    ]
    for error, code in cases:
        assert in_order(NIGHTS, ending(DONE, error, DONE, DONE), small_conf(), None) == code
        assert capsys.readouterr().err.splitlines()[2:] == [
            f"night {night.last}  not run  not run, after exit {code} of 2026-05-11" for night in NIGHTS[2:]
        ]


def test_a_bug_in_one_night_leaves_its_traceback_and_the_next_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_order(NIGHTS, ending(KeyError("x"), DONE, DONE, DONE), small_conf(), None) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_summary_for_the_program_that_started_it_is_of_the_night_that_the_exit_code_is_of(tmp_path: Path) -> None:
    in_order(NIGHTS, ending(DONE, LockHeld("another run"), DONE, DONE), small_conf(str(tmp_path)), tmp_path / "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["day"], summary["exit_code"], summary["reason"]) == ("2026-05-11", 7, "LockHeld: another run")


@pytest.mark.slow  # a night without files is a test of test_nightly.py too
def test_two_nights_without_files_are_both_tried_by_the_command(clean: Place, tmp_path: Path) -> None:
    empty = place(tmp_path / "empty", "tiny", landing=tmp_path / "nothing")
    code, told = empty.run("nightly", "--from", day(1), "--to", day(2), "--on-failure", "go-on")
    assert code == INPUT
    assert [line.split("  ")[:2] for line in told.splitlines()[-2:]] == [[f"night {day(number)}", "exit 3"] for number in (1, 2)]


def test_going_on_is_for_whole_nights(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        nightly(["--conf-file", "conf/tiny.yaml", "--from", day(1), "--to", day(2), "--only", "ingest", "--on-failure", "go-on"])
    assert ended.value.code == USAGE and "a range is one run" in capsys.readouterr().err
