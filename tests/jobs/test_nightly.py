"""The promises of a night, on simulated logs: same tables again, killed anywhere and finished, every row accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from etl import schemas
from etl.lock import night_lock
from etl.splits import Night
from etl.tables import create_tables, read
from jobs.common import DONE, day_option
from jobs.nightly import ETL, STAGES, run_night
from tests.jobs.conftest import NIGHT
from tests.jobs.nights import Place, day, place


def summary(of: Place, number: int) -> dict[str, Any]:
    return json.loads((of.workdir / "runs" / day(number) / "run_summary.json").read_text())


def test_every_inventory_row_is_scored_exactly_once_with_probabilities_inside_0_and_1(spark: SparkSession, clean: Place) -> None:
    conf = clean.conf
    scores, inventory = read(spark, conf.workdir, schemas.scores(conf)), read(spark, conf.workdir, schemas.inventory(conf))
    wanted = sorted(row["inventory_id"] for row in inventory.where(F.col("day") == day(8)).collect())
    assert wanted and sorted(row["inventory_id"] for row in scores.collect()) == wanted
    low, high = F.least(*(f"p_{head}" for head in conf.heads)), F.greatest(*(f"p_{head}" for head in conf.heads))
    found = scores.agg(F.min(low), F.max(high), F.sum((F.col("p_good_click") > F.col("p_click")).cast("int"))).first()
    assert found is not None and found[0] > 0 and found[1] < 1 and found[2] == 0


def test_the_row_account_balances_and_each_planted_line_is_in_quarantine_with_a_reason(spark: SparkSession, clean: Place) -> None:
    planted = Counter[tuple[str, str]]()
    for row in json.loads((clean.workdir / "truth" / "planted.json").read_text()):
        planted[(row["block"], row["day"])] += row["count"]
    quarantine = read(spark, clean.workdir, schemas.QUARANTINE)
    assert quarantine.where((F.size("reasons") == 0) | F.col("raw").isNull() | F.col("file").isNull()).count() == 0
    found = {(row["block"], row["day"].isoformat()): row["count"] for row in quarantine.groupBy("block", "day").count().collect()}
    assert found == {key: count for key, count in planted.items() if count and key[1] <= day(7)}


def test_the_scores_are_published_last_and_the_report_stands_beside_the_summary(spark: SparkSession, clean: Place) -> None:
    rows = read(spark, clean.workdir, schemas.PUBLICATIONS).orderBy("published_at").collect()
    assert [(row["what"], row["day"].isoformat()) for row in rows] == [("model", day(7)), ("scores", day(7))]
    assert (summary(clean, 7)["exit_code"], summary(clean, 7)["reason"]) == (0, "done")
    page = (clean.workdir / "runs" / day(7) / "report.html").read_text()
    assert "simulated" in page.lower() and rows[0]["model"] in page


def test_the_nights_dates_are_those_of_the_clock(spark: SparkSession, clean: Place) -> None:
    night = Night.of(day_option(day(7)), clean.conf)
    trained = read(spark, clean.workdir, schemas.MODELS).collect()
    assert [(row["trained_from"].isoformat(), row["trained_to"].isoformat()) for row in trained] == [(day(1), day(2))]
    served = read(spark, clean.workdir, schemas.served(clean.conf)).select("day").distinct().collect()
    assert sorted(row["day"] for row in served) == [night.calibrate_to, night.held_out]
    measured = read(spark, clean.workdir, schemas.METRICS).select("measured_day").distinct().collect()
    assert [row["measured_day"] for row in measured] == [night.held_out]


def test_the_console_has_what_the_night_says_and_none_of_sparks_own_warnings(clean: Place) -> None:
    said = (clean.workdir / "stderr.txt").read_text(encoding="utf-8")
    assert said.count("[9/9] report") == 1
    assert [line for line in said.splitlines() if " WARN " in line or "log level" in line or "log4j" in line] == []


def test_a_second_run_by_spark_submit_changes_no_table_but_runs_and_says_what_it_skipped(clean: Place) -> None:
    before = clean.versions("runs")
    code, told = clean.run("nightly", *NIGHT, launcher="spark-submit")
    assert code == 0, told
    assert clean.versions("runs") == before
    status = {row["stage"]: row["status"] for row in summary(clean, 7)["stages"]}
    assert set(status.values()) == {"skipped", "done"} and [stage for stage, how in status.items() if how == "done"] == ["report"]


@pytest.mark.slow
def test_a_range_and_the_same_days_one_by_one_end_with_the_same_tables_up_to_m(spark: SparkSession, clean: Place, tmp_path: Path) -> None:
    nights = place(tmp_path / "nights", "tiny", landing=Path(clean.conf.landing))
    create_tables(spark, nights.conf)
    for number in range(1, 6):
        asked = day_option(day(number))
        run_night(spark, nights.conf, asked, asked, ETL[:2])
    one, other = nights.hashes(spark), clean.hashes(spark)
    settled = day(2)  # M of the night of day 5
    for table in ("impressions", "engagements", "users", "ads", "history", "examples", "quarantine"):
        compared = [when for when in other[table] if when <= settled]
        assert compared and {when: one[table].get(when) for when in compared} == {when: other[table][when] for when in compared}, table


def test_a_night_whose_lock_is_held_exits_7_and_one_with_a_wrong_option_2(clean: Place) -> None:
    with night_lock(clean.workdir, day_option(day(7)), "another run"):
        code, told = clean.run("nightly", *NIGHT)
    assert code == 7 and "another run" in told
    assert clean.run("nightly", "--day", "yesterday")[0] == 2


def test_a_night_without_its_files_exits_3_and_names_them(clean: Place, tmp_path: Path) -> None:
    empty = place(tmp_path / "empty", "tiny", landing=tmp_path / "nothing")
    code, told = empty.run("nightly", *NIGHT)
    assert code == 3 and f"on {day(7)}: nothing matches" in told and "required: false" in told
    assert summary(empty, 7)["exit_code"] == 3


def test_a_night_too_early_to_train_builds_gates_publishes_nothing_and_exits_0(
    spark: SparkSession, clean: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early, first = place(tmp_path / "early", "tiny", landing=Path(clean.conf.landing)), day_option(day(1))
    create_tables(spark, early.conf)
    assert run_night(spark, early.conf, first, first, STAGES) == DONE
    assert f"the night of {day(6)} will train" in capsys.readouterr().err
    assert read(spark, early.workdir, schemas.PUBLICATIONS).count() == 0
    assert read(spark, early.workdir, schemas.examples(early.conf)).count() > 0
