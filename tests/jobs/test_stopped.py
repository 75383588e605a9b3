"""A night that gets SIGTERM, or Ctrl-C, ends in order: it says so, nothing of it is left, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.sql import SparkSession

from etl.lock import night_lock
from etl.tables import create_tables
from jobs import ingest
from jobs.common import AGAIN, DONE, STOPPED, StageFailed, ended_by, main, stop
from jobs.nightly import STAGES, run_night
from tests.jobs.nights import Place, copied, day
from tests.reliability.killed import stop_night
from tests.reliability.lakes import NIGHT, hashes, torn
from tests.small import DAY, small_conf


def test_the_summary_says_in_which_stage_and_the_lock_is_free(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    create_tables(spark, conf)

    def stopped(run: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_night(spark, conf, DAY, DAY, (replace(ingest.STAGE, inputs=lambda run: {}, work=stopped),))
    summary = json.loads((tmp_path / "runs" / str(DAY) / "run_summary.json").read_text())
    assert (summary["exit_code"], summary["reason"]) == (AGAIN, f"ingest was {STOPPED}")
    with night_lock(tmp_path, DAY, "the next"):
        pass


def test_a_job_that_gets_sigterm_cancels_what_spark_is_at_and_exits_75(capsys: pytest.CaptureFixture[str]) -> None:
    cancelled = []

    def cancel(number: int, frame: object) -> None:
        cancelled.append(number)
        raise ConnectionError("Spark's JVM got the signal too")

    def job(argv: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return DONE

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, cancel)
        with pytest.raises(SystemExit) as ended:
            main(job)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a second one ends it at once"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == AGAIN and cancelled == [signal.SIGTERM] and STOPPED in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is not stop


@pytest.mark.parametrize(
    ("first", "said"), [(KeyboardInterrupt(), STOPPED), (Py4JNetworkError("Answer from Java side is empty"), "Py4JNetworkError: Answer")]
)
def test_a_spark_that_can_no_longer_be_stopped_does_not_hide_what_ended_the_job(
    first: BaseException, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(argv: object) -> int:
        try:
            raise first
        finally:  # as py4j does it, when it finds its connection gone and cannot make another
            try:
                raise Py4JNetworkError("Answer from Java side is empty")
            except Py4JNetworkError:
                raise ConnectionRefusedError(111, "Connection refused")  # noqa: B904

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main(job)
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capsys.readouterr().err
    assert ended.value.code == AGAIN and said in told and "Traceback" not in told


def test_what_says_by_its_own_exit_code_what_is_wrong_gives_way_to_a_signal_alone() -> None:
    def met_while(first: BaseException) -> BaseException:
        try:
            raise first
        except BaseException:
            try:
                raise StageFailed("no space left", AGAIN)
            except StageFailed as last:
                return ended_by(last)

    assert isinstance(met_while(Py4JNetworkError("gone")), StageFailed)
    assert isinstance(met_while(KeyboardInterrupt()), KeyboardInterrupt)


@pytest.mark.slow
def test_a_night_that_is_stopped_in_one_stage_after_the_other_ends_soon_and_goes_on_to_the_same_tables(
    spark: SparkSession, built: Place, clean: Place, tmp_path: Path
) -> None:
    stopped, old, new = copied(built, tmp_path / "stopped"), hashes(spark, built), hashes(spark, clean)
    moments = (
        ("build_examples", "[1/9] ingest", sys.executable, AGAIN),
        ("train", '"event": "rank joined"', sys.executable, AGAIN),
        ("calibrate", '"stage": "calibrate"', "spark-submit", 128 + signal.SIGTERM),  # the code of Spark's own process
        ("score", '"stage": "score"', sys.executable, AGAIN),
    )
    for stage, line, launcher, wanted in moments:
        code, told, seconds = stop_night(stopped, line, "--day", day(7), launcher=launcher)
        assert code == wanted, told
        assert seconds < 30
        summary = json.loads((stopped.workdir / "runs" / day(7) / "run_summary.json").read_text())
        assert (summary["exit_code"], summary["reason"]) == (AGAIN, f"{stage} was {STOPPED}")
        assert torn(hashes(spark, stopped), old, new) == [], stage
    assert run_night(spark, stopped.conf, NIGHT, NIGHT, STAGES) == DONE
    assert hashes(spark, stopped) == new
