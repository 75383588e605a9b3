"""The backtest as a job: on tables that nights built, once and again."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.tables import TableError, read
from jobs.backtest import folder_of, windows_of
from models.methods import ORACLE
from tests.jobs.nights import Place, copied, day


@pytest.fixture(scope="module")
def walked(clean: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """Days 4 measured, its labels the last that are final; and what was said."""
    made = copied(clean, tmp_path_factory.mktemp("backtest") / "work")
    code, said = made.run("backtest", "--from", day(4))
    assert code == 0, said
    return made, said


def rows_of(spark: SparkSession, of: Place) -> list[dict[str, Any]]:
    rows = read(spark, of.workdir, schemas.BACKTEST).drop("run_id").orderBy("day", "regime", "kind", "head", "tower", "method")
    return [row.asDict() for row in rows.collect()]


@pytest.mark.slow
def test_every_method_is_judged_on_the_held_out_day_in_both_regimes_against_labels_and_truth(
    spark: SparkSession, walked: tuple[Place, str]
) -> None:
    made, said = walked
    assert said.count("trained on 2026-05-01 to 2026-05-02, replayed to 2026-05-04") == 1
    assert "fresh 1/1" in said and "kept" in said  # the first fresh model is the stale one
    rows = rows_of(spark, made)
    assert {(row["regime"], row["kind"], row["day"], row["trained_to"]) for row in rows} == {
        (regime, "measured", date(2026, 5, 4), date(2026, 5, 2)) for regime in ("stale", "fresh")
    }
    labels = read(spark, made.workdir, schemas.examples(made.conf)).where(F.col("day") == day(4)).where("tower = 'standard'")
    wanted = labels.where("label_click IS NOT NULL").agg(F.count("*"), F.sum("label_click")).first()
    of_clicks = [row for row in rows if (row["head"], row["tower"], row["regime"]) == ("click", "standard", "stale")]
    assert {(row["rows"], row["positives"]) for row in of_clicks} == {tuple(wanted or ())}
    by_method = {row["method"]: row for row in of_clicks}
    assert by_method["platt"]["predicted"] != by_method["raw"]["predicted"]
    assert by_method[ORACLE]["expected"] == pytest.approx(by_method["platt"]["positives"], rel=0.5)


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_and_a_second_walk_says_the_same(spark: SparkSession, walked: tuple[Place, str]) -> None:
    made, _ = walked
    before, page = rows_of(spark, made), folder_of(made.conf) / "report.html"
    page.unlink()
    code, said = made.run("backtest", "--from", day(4), "--regimes", "stale")
    assert code == 0, said
    assert "train:" not in said and "kept" in said and page.is_file()
    assert rows_of(spark, made) == before


def test_days_that_cannot_be_measured_are_refused_with_what_there_is(clean: Place) -> None:
    first, last = date(2026, 5, 1), date(2026, 5, 7)

    def windows(conf: Conf, begin: date | None = None, every: int = 1) -> list:
        return list(windows_of(conf, first, last, begin, None, every))

    with pytest.raises(TableError, match="no 1 days to measure from 2026-05-30 to 2026-05-04: examples has 2026-05-01 to 2026-05-07"):
        windows(clean.conf)
    with pytest.raises(TableError, match="choose with --from and --to"):
        windows(clean.conf, date(2026, 5, 2))
    with pytest.raises(TableError, match="no 7 days"):
        windows(clean.conf, date(2026, 5, 9), every=7)
    (only,) = windows(clean.conf, date(2026, 5, 4))
    assert (only.measured, only.scored, only.trained_to) == ((date(2026, 5, 4),) * 2, None, date(2026, 5, 2))


def test_the_scored_days_are_those_that_a_night_would_score(clean: Place) -> None:
    """M = day - 3, and the night scores the next day: four days after M."""
    found = list(windows_of(clean.conf, date(2026, 5, 1), date(2026, 5, 21), date(2026, 5, 13), None, 1))
    assert [one.scored and one.scored[0] for one in found] == [date(2026, 5, 17), date(2026, 5, 18), None, None, None, None]
    weeks = list(windows_of(clean.conf, date(2026, 5, 1), date(2026, 5, 31), date(2026, 5, 13), None, 7))
    assert [one.measured[0].day for one in weeks] == [13, 20]
    assert [one.trained_to.day for one in weeks] == [5, 12]
