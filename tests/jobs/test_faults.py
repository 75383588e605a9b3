"""Whatever ends a night, no table is torn, and the same command again ends with the tables of a night undisturbed. `./build.sh soak` tries more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.common import AGAIN, CONFLICT, DONE, StageFailed, code_of
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.nights import Place, copied, day
from tests.reliability.disk import disk_of_its_own, leave_free, may_mount
from tests.reliability.killed import KILLED, POINTS, kill_night, run_and_kill_executor, two_nights
from tests.reliability.lakes import KEPT, NIGHT, Hashes, hashes, torn

FIVE = (
    "quarantine is written, its tables are not",
    "files of examples lie there, and are in no version",
    "a checkpoint is being written",
    "the model is registered, not published",
    "scores are written, not published",
)
MADE_BY_ETL = ("impressions", "engagements", "users", "ads", "inventory", "quarantine", "history", "examples")


def test_a_night_killed_between_files_and_their_version_goes_on_to_the_same_tables(
    spark: SparkSession, built: Place, clean: Place, tmp_path: Path
) -> None:
    killed = copied(built, tmp_path / "killed")
    code, told = kill_night(killed, day(7), "--at", "files of examples lie there, and are in no version")
    assert code == KILLED, told
    assert torn(hashes(spark, killed), hashes(spark, built), hashes(spark, clean)) == []
    assert run_night(spark, killed.conf, NIGHT, NIGHT, ETL) == DONE
    assert of_etl(hashes(spark, killed)) == of_etl(hashes(spark, clean))


def of_etl(found: Hashes) -> Hashes:
    return {table: days for table, days in found.items() if table in MADE_BY_ETL}


@pytest.mark.slow
def test_a_night_killed_at_one_point_after_the_other_ends_with_the_same_tables(
    spark: SparkSession, built: Place, clean: Place, tmp_path: Path
) -> None:
    assert set(FIVE) <= set(POINTS)
    killed, old, new = copied(built, tmp_path / "killed", training={"checkpoint_seconds": 0}), hashes(spark, built), hashes(spark, clean)
    for point in FIVE:
        code, told = kill_night(killed, day(7), "--at", point)
        assert code == KILLED, told
        assert torn(hashes(spark, killed), old, new) == [], point
    assert run_night(spark, killed.conf, NIGHT, NIGHT, STAGES) == DONE
    assert hashes(spark, killed) == new
    status = {
        row["stage"]: row["status"] for row in json.loads((killed.workdir / "runs" / day(7) / "run_summary.json").read_text())["stages"]
    }
    assert {stage for stage, how in status.items() if how == "done"} == {"score", "report"}, "stages that had ended are not done again"


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="needs a user that may mount a tmpfs, such as root")
def test_a_disk_that_is_full_at_each_stage_is_named_and_what_stood_stands(
    spark: SparkSession, built: Place, clean: Place, tmp_path: Path
) -> None:
    old, new, names = hashes(spark, built), hashes(spark, clean), [stage.name for stage in STAGES]
    with disk_of_its_own(tmp_path / "disk"):
        lake = copied(built, tmp_path / "disk" / "lake")
        for stage in KEPT:
            if earlier := STAGES[: names.index(stage)]:
                assert run_night(spark, lake.conf, NIGHT, NIGHT, earlier) == DONE
            leave_free(tmp_path / "disk", 0)
            with pytest.raises(StageFailed, match=f"no space left on a disk: workdir {lake.workdir} has 0.0 MB free") as failed:
                run_night(spark, lake.conf, NIGHT, NIGHT, STAGES)
            assert code_of(failed.value) == AGAIN
            leave_free(tmp_path / "disk", None)
            assert torn(hashes(spark, lake), old, new) == [], stage
        assert run_night(spark, lake.conf, NIGHT, NIGHT, STAGES) == DONE
        assert hashes(spark, lake) == new


@pytest.mark.slow
def test_a_night_that_loses_an_executor_goes_on_to_the_same_tables(spark: SparkSession, built: Place, clean: Place, tmp_path: Path) -> None:
    lake = copied(built, tmp_path / "lost", spark={"master": "local-cluster[2,1,1536]", "driver_memory": "2g"})
    only = ",".join(stage.name for stage in ETL)
    code, told, killed = run_and_kill_executor(lake, 5, "--day", day(7), "--only", only)
    assert (code, killed) == (DONE, True), told
    assert of_etl(hashes(spark, lake)) == of_etl(hashes(spark, clean))


def test_of_two_drivers_that_begin_one_night_together_one_does_it_and_the_other_exits_7(built: Place, tmp_path: Path) -> None:
    codes, told = two_nights(copied(built, tmp_path / "two"), 0.5, "--day", day(7), "--only", "ingest")
    assert sorted(codes) == [DONE, CONFLICT], told
    assert "is being run by" in told[codes.index(CONFLICT)]
