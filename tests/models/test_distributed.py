"""Real Horovod ranks on Spark fail in words, and what ranks say is heard."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

import psutil
import pytest
from pyspark.sql import SparkSession

from models.backends import launch
from models.errors import RanksLost, SlotsMissing, TrainingFailed
from models.rank_voices import Ears, Failure, Heard, Relay, Voice
from models.rank_watch import ended_together, why
from tests.models.ranks import fail_on_rank_1, how_many, sleep_long, stop_rank_1
from tests.models.snapshots import TRAINING
from tests.processes import is_horovod_rank

TWO_RANKS = TRAINING.model_copy(update={"backend": "horovod_spark", "ranks": 2})


def test_a_rank_that_fails_is_named_with_its_cause_and_signals_stay_the_drivers(spark: SparkSession):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingFailed, match="training failed on rank 1 of 2: ValueError: a bad file") as failed:
        launch(TWO_RANKS, fail_on_rank_1)
    assert "fail_on_rank_1" in failed.value.trace
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_ranks_that_spark_cannot_start_fail_with_what_spark_says_and_not_with_where_java_was(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(spark.sparkContext, "pythonExec", "/no/python")
    with pytest.raises(
        TrainingFailed, match=r'Py4JJavaError: org.apache.spark.SparkException: .*Cannot run program "/no/python"'
    ) as failed:
        launch(TWO_RANKS, how_many)
    assert "\n" not in str(failed.value)


def test_a_signal_to_the_driver_ends_the_ranks_and_then_is_the_drivers(spark: SparkSession):
    got, over = [], threading.Event()

    def handled(number: int, frame: object) -> None:
        got.append(number)

    def ranks() -> list[psutil.Process]:
        return [one for one in psutil.Process().children(recursive=True) if is_horovod_rank(one)]

    def stop_once_they_run() -> None:
        while not over.wait(0.2):
            if len(ranks()) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    before = signal.signal(signal.SIGTERM, handled)
    try:
        threading.Thread(target=stop_once_they_run, daemon=True).start()
        with pytest.raises(TrainingFailed):
            launch(TWO_RANKS, sleep_long)
        assert signal.getsignal(signal.SIGTERM) is handled
    finally:
        over.set()
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM] and ranks() == []


def test_no_port_stays_open_once_the_ranks_have_ended(spark: SparkSession):
    def listening() -> set[int]:
        return {of.laddr.port for of in psutil.Process().net_connections() if of.status == psutil.CONN_LISTEN}

    before = listening()
    assert launch(TWO_RANKS, how_many) == 2
    with pytest.raises(TrainingFailed):
        launch(TWO_RANKS, fail_on_rank_1)
    assert listening() == before


def test_a_rank_that_no_longer_answers_ends_the_training_and_is_named(spark: SparkSession):
    with pytest.raises(RanksLost, match=r"of 2 ranks one no longer answered.*nothing was heard from rank 1 on \S+ for \d+ s"):
        launch(TWO_RANKS.model_copy(update={"stall_shutdown_seconds": 8}), stop_rank_1)


def test_more_ranks_than_slots_are_refused_before_anything_starts(spark: SparkSession):
    four = TRAINING.model_copy(update={"backend": "horovod_spark", "ranks": 4})
    with pytest.raises(
        SlotsMissing, match=r"training.ranks is 4, and spark.master local\[2,4\] runs 2 tasks at once; set training.ranks to 2"
    ):
        launch(four, fail_on_rank_1)


def test_what_ranks_print_comes_out_in_whole_lines_without_horovods_prefix(capsys: pytest.CaptureFixture[str]):
    relay = Relay()
    for piece in ("[0]<std", "err>:train: step 1", "\n[0]<stderr>:train: ", "step 2\n[1]<stdout>:", "half"):
        relay.write(piece)
    assert capsys.readouterr() == ("", "train: step 1\ntrain: step 2\n")


def test_a_rank_is_heard_as_it_speaks_and_lost_when_it_ends_without_a_word(capsys: pytest.CaptureFixture[str]):
    heard = Heard()
    ears = Ears("127.0.0.1", heard)
    voice = Voice(3, ("127.0.0.1", ears.port), ears.key)
    print("train: step 1", file=voice, flush=True)
    within_seconds(5, lambda: "train: step 1" in capsys.readouterr().err)
    assert (list(heard.alive), list(heard.hosts), heard.lost) == ([3], [3], [])
    assert voice.connection is not None
    voice.connection.close()
    within_seconds(5, lambda: heard.lost == [3])
    assert heard.alive == {}
    ears.close()


def test_who_does_not_know_the_key_is_not_heard(capsys: pytest.CaptureFixture[str]):
    heard = Heard()
    ears = Ears("127.0.0.1", heard)
    stranger = Voice(0, ("127.0.0.1", ears.port), b"guessed")
    print("train: step 1", file=stranger, flush=True)
    assert heard == Heard()
    assert "its lines come late" in capsys.readouterr().err
    Voice(1, ("127.0.0.1", ears.port), ears.key)
    within_seconds(5, lambda: list(heard.alive) == [1])
    ears.close()


def test_the_rank_to_look_at_is_the_one_that_fell_silent():
    heard = Heard(alive={0: time.monotonic(), 2: time.monotonic() - 9})
    assert heard.silent(4) == {2: pytest.approx(9, abs=1)}


def test_the_cause_is_the_failure_that_is_no_other_ranks_doing():
    heard = Heard()
    own = Failure(1, "ValueError: a bad file", "trace", knock_on=False)
    for failure in (Failure(0, "PeerLost: exchange 3 with the other ranks failed", "trace", knock_on=True), own):
        heard.take({"rank": failure.rank, "failure": asdict(failure)})
    assert heard.cause() == own


def test_the_rank_that_others_waited_for_is_the_one_that_is_behind():
    heard = Heard()
    for rank, exchanges in ((0, 12), (1, 11), (2, 12)):
        heard.take({"rank": rank, "exchanges": exchanges, "host": "here"})
    assert heard.behind() == [1]
    heard.take({"rank": 1, "exchanges": 12, "host": "here"})
    assert heard.behind() == []


def test_a_rank_that_was_ended_with_the_others_is_not_taken_for_one_that_was_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.rank_watch.LAST_SECONDS", 0.2)
    heard = Heard()
    for rank, exchanges in ((0, 3), (1, 2)):
        heard.take({"rank": rank, "exchanges": exchanges, "host": "here"})
    waited = Failure(0, "PeerLost: exchange 3 with the other ranks failed", "trace", knock_on=True)
    with ended_together(heard, 60, end=lambda: heard.ended(1)):
        heard.take({"rank": 0, "exchanges": 3, "failure": asdict(waited)})
        within_seconds(5, lambda: 1 not in heard.alive)
    told = str(why(heard, TWO_RANKS, RuntimeError("exit code 1")))
    assert told.startswith("the 2 ranks lost each other: rank 1 on here did not come to the exchange")


def test_a_rank_that_never_spoke_is_named_with_the_one_that_waited_for_it():
    heard = Heard()
    heard.take({"rank": 0, "exchanges": 1, "host": "here"})
    heard.ended(0)
    told = str(why(heard, TWO_RANKS, RuntimeError("exit code 1")))
    assert told.startswith("of 2 ranks nothing was ever heard from rank 1, and rank 0 on here ended before its work was done")


def within_seconds(seconds: float, holds: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
