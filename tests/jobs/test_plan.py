"""--dry-run: what a night would do, and that it does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from etl.tables import overwrite_days, read_days
from jobs.common import DONE, INPUT, day_option
from jobs.ingest import table_of
from jobs.nightly import ETL, STAGES
from jobs.nights import Nights
from jobs.plan import READS, plan
from tests.jobs.nights import Place, copied, day, place


def nights(first: int, last: int, stages=STAGES) -> Nights:
    return Nights(day_option(day(first)), day_option(day(last)), tuple(stages))


def planned(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """Of each night what was printed: stage -> state and why."""
    found: list[dict[str, str]] = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("night ", "range ")):
            found.append({})
        elif line.startswith("  ") and line[2] != " ":
            stage, state, why = line.split(maxsplit=2)
            found[-1][stage] = f"{state} {why}"
    return found


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))}


def test_every_stage_says_which_stages_make_what_it_reads() -> None:
    names = [stage.name for stage in STAGES]
    assert list(READS) == names and {of for made in READS.values() for of in made} <= set(names)


def test_a_finished_night_is_skipped_the_next_begins_with_its_files_and_nothing_is_written(
    spark: SparkSession, clean: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(clean.workdir)
    assert plan(spark, clean.conf, [nights(7, 7), nights(8, 8)]) == DONE
    out = capsys.readouterr().out
    assert "examples@v" in out and "standard_impressions (impressions, 2026-05-05 to 2026-05-08): 4 files, " in out
    print(out)
    done, new = planned(capsys)
    assert {stage for stage, state in done.items() if not state.startswith("skip")} == {"report"}
    assert new["ingest"] == "do never done before"
    assert {state.split()[0] for stage, state in new.items() if stage != "ingest"} == {"later"}
    assert files(clean.workdir) == before


def test_what_was_changed_behind_a_nights_back_is_named(
    spark: SparkSession, built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copied(built, tmp_path / "changed")
    table, sixth = table_of(changed.conf, "impressions"), day_option(day(6))
    half = read_days(spark, changed.workdir, table, sixth, sixth).limit(100).localCheckpoint()
    overwrite_days(half, changed.workdir, table, sixth, sixth)
    assert plan(spark, changed.conf, [nights(1, 6, ETL)]) == DONE
    (found,) = planned(capsys)
    assert found["ingest"] == f"do its outputs changed: impressions/{day(6)}"
    assert found["build_examples"].startswith("later reads what ingest")
    assert plan(spark, changed.conf, [nights(1, 6, ETL[1:])]) == DONE
    (found,) = planned(capsys)
    assert found["build_examples"].startswith(f"do inputs changed: impressions/{day(6)}, since ")


def test_a_knob_that_was_turned_is_named_with_both_values(
    spark: SparkSession, built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = copied(built, tmp_path / "turned", clock={"train_days": 5})
    assert plan(spark, turned.conf, [nights(1, 6, ETL[1:])]) == DONE
    (found,) = planned(capsys)
    before = built.conf.clock.train_days
    assert found["build_examples"].startswith(f"do configuration changed: clock.train_days was {before}, is 5, since ")


def test_a_working_folder_without_tables_gets_none_and_missing_files_are_named(
    spark: SparkSession, clean: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = place(tmp_path / "fresh", "tiny", landing=Path(clean.conf.landing))
    assert plan(spark, fresh.conf, [nights(1, 1)]) == DONE
    (found,) = planned(capsys)
    assert found["ingest"] == "do never done before" and found["train"].startswith("later")
    empty = place(tmp_path / "empty", "tiny", landing=tmp_path / "nothing")
    assert plan(spark, empty.conf, [nights(1, 1)]) == INPUT
    (found,) = planned(capsys)
    assert f"on {day(1)}: nothing matches" in found["ingest"]
    for made in (fresh, empty):
        assert [file.name for file in made.workdir.iterdir()] == ["conf.yaml"]
