"""A candidate beside production, night after night: refused it changes nothing, published it can be taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from etl import schemas
from etl.tables import TableError, content_hashes, create_tables, read, read_days
from jobs.common import DONE, REFUSED, day_option
from jobs.explain import answer, options, side_of
from jobs.nightly import STAGES, run_night
from jobs.rollback import night_and_model, stages
from tests.jobs.nights import Place, copied, day

SECOND = day_option(day(8))
BROKEN = {"learning_rate": 3.0, "embedding_learning_rate": 50.0, "linear_learning_rate": 50.0}  # a training that diverges
AT_ANY_PRICE = {"max_ne_rise": 10.0, "max_auc_fall": 1.0, "max_ratio": 1000.0, "max_shift": 1000.0}


def second_night(spark: SparkSession, of: Place) -> int:
    create_tables(spark, of.conf)
    return run_night(spark, of.conf, SECOND, SECOND, STAGES)


def scores_of(spark: SparkSession, of: Place, table: schemas.Table | None = None) -> str:
    """Content hash of the scores of day 9."""
    table = table or schemas.scores(of.conf)
    scored = day_option(day(9))
    return content_hashes(read_days(spark, of.workdir, table, scored, scored), table)[day(9)]


def serving(spark: SparkSession, of: Place) -> str:
    return read(spark, of.workdir, schemas.PUBLICATIONS).where("what = 'model'").orderBy("day").collect()[-1]["model"]


@pytest.fixture(scope="module")
def refused(spark: SparkSession, clean: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The second night trained a broken model."""
    made = copied(clean, tmp_path_factory.mktemp("refused") / "work", training={"batch_size": 256, **BROKEN})
    assert second_night(spark, made) == REFUSED
    return made


def test_a_broken_candidate_is_refused_and_the_night_scores_with_production_and_its_new_calibrator(
    spark: SparkSession, clean: Place, refused: Place
) -> None:
    production = serving(spark, clean)
    assert serving(spark, refused) == production
    scores = read_days(spark, refused.workdir, schemas.scores(refused.conf), day_option(day(9)), day_option(day(9)))
    assert [row["model"] for row in scores.select("model").distinct().collect()] == [production]
    assert (refused.workdir / "models" / production / "calibrators" / f"{day(8)}.json").is_file()
    registered = read(spark, refused.workdir, schemas.MODELS).where(f"day = '{day(8)}'").collect()[0]
    assert registered["verdict"] == "refuse" and registered["production"] == production
    numbers = json.loads(registered["comparison"])
    assert numbers["whole"]["ne_rise"][1] > refused.conf.publication.max_ne_rise and len(numbers["cells"]) == 14
    told = json.loads((refused.workdir / "runs" / day(8) / "run_summary.json").read_text())
    assert told["exit_code"] == 8 and f"model {production} serves on" in told["reason"] and "normalised entropy" in told["reason"]
    page = (refused.workdir / "runs" / day(8) / "report.html").read_text()
    assert "candidate refused" in page and registered["model"] in page


def test_a_refused_night_run_again_changes_nothing_and_says_it_again(spark: SparkSession, refused: Place) -> None:
    before = refused.versions("runs")
    assert second_night(spark, refused) == REFUSED
    assert refused.versions("runs") == before


@pytest.mark.slow
def test_rollback_brings_the_scores_of_production_back_bit_for_bit_and_survives_a_rerun(
    spark: SparkSession, clean: Place, refused: Place, tmp_path: Path
) -> None:
    published = copied(clean, tmp_path / "work", publication={**AT_ANY_PRICE, "challenger": True})
    assert second_night(spark, published) == DONE
    candidate, production = serving(spark, published), serving(spark, clean)
    assert candidate != production
    newest, before = scores_of(spark, published), scores_of(spark, refused)  # by the candidate; by production, had it gone on to serve
    assert newest != before

    code, told = published.run("rollback")
    assert code == 0 and f"model {production} is to serve" in told, told
    assert serving(spark, published) == production and scores_of(spark, published) == before
    assert scores_of(spark, published, schemas.challenger_scores(published.conf)) == newest, "the candidate is the challenger now"
    assert second_night(spark, published) == DONE and scores_of(spark, published) == before
    night, model = night_and_model(spark, published.conf, candidate)
    assert run_night(spark, published.conf, night, night, stages(model)) == DONE
    assert serving(spark, published) == candidate and scores_of(spark, published) == newest

    asked = options().parse_args(
        ["--conf-file", str(published.conf_file), "--day", day(9), "--by", "campaign_id", "--of", "expected_click"]
    )
    sides = side_of(spark, published.conf, day_option(day(8))), side_of(spark, published.conf, day_option(day(9)))
    explained = answer(spark, published.conf, sides, asked)
    assert explained["models"] == [production, candidate] and max(explained["differs_from_published"]) < 1e-6
    assert all(sum(one["parts"].values()) == pytest.approx(one["after"] - one["before"]) for one in explained["segments"])
    assert any(one["parts"][factor] for one in explained["segments"] for factor in ("features", "inventory"))


def test_a_rollback_without_a_model_to_go_back_to_says_so(spark: SparkSession, clean: Place) -> None:
    with pytest.raises(TableError, match=f"no model was current before the night of {day(7)}; name one with --to"):
        night_and_model(spark, clean.conf, None)
    with pytest.raises(TableError, match="no night has registered a model nobody"):
        night_and_model(spark, clean.conf, "nobody")
