"""What retention removes, what it must leave readable, and that later nights know of it."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.retention import Retention
from etl import schemas
from etl.lock import LockHeld, night_lock
from etl.retention import Pinned, least_days, models, old_folders, pinned, require_enough, vacuum_hours
from etl.runs import RETAIN, VACUUM
from etl.splits import Night
from etl.tables import append, create_table, overwrite_days, read, read_days
from jobs import build_examples
from jobs.common import CONFLICT, DONE, USAGE, StageFailed, code_of, day_option
from jobs.nightly import ETL, STAGES, run_night
from jobs.retain import removed, retain
from tests.jobs.nights import Place, copied, day
from tests.small import DAY, rows, small_conf
from validation.table_rules import rules_of

KEPT = {"days": {"impressions": 4, "quarantine": 4, "engagements": None}}
MONTH = timedelta(days=30)


def aged(workdir: Path, by: timedelta) -> None:
    """As if everything below had been written that much earlier."""
    shift_ms = int(by.total_seconds() * 1000)
    for log in workdir.glob("tables/*/_delta_log"):
        for file in {*log.glob("*.crc"), *log.glob(".*.crc"), *log.glob("*checkpoint*")}:
            file.unlink()
        for file in log.glob("*.json"):
            text = file.read_text(encoding="utf-8")
            times = re.compile(r'("(?:timestamp|deletionTimestamp|modificationTime)":)(\d{13})')
            file.write_text(times.sub(lambda found: f"{found[1]}{int(found[2]) - shift_ms}", text), encoding="utf-8")
    then = time.time() - by.total_seconds()
    for file in workdir.glob("tables/**/*"):
        os.utime(file, (then, then))


def columns_of(spark: SparkSession, of: Place, table: schemas.Table, version: int) -> int:
    """A hash of every column of a version: unlike a count it has to read the files."""
    rows = read(spark, of.workdir, table, version)
    found = rows.agg(F.sum(F.xxhash64(*rows.columns).cast("decimal(20,0)"))).first()
    assert found is not None and found[0] is not None
    return int(found[0])


@pytest.fixture(scope="module")
def old(spark: SparkSession, clean: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The night of day 7, a month ago; since then its days of `examples` were written once more."""
    again, examples = copied(clean, tmp_path_factory.mktemp("again") / "work"), schemas.examples(clean.conf)
    first, last = day_option(day(4)), day_option(day(7))
    overwrite_days(read_days(spark, again.workdir, examples, first, last), again.workdir, examples, first, last)
    for kind, model in (("checkpoints", "0123"), ("snapshots", "0123"), ("checkpoints", "cut-off")):
        folder = again.workdir / kind / model
        folder.mkdir(parents=True)
        (folder / "part").write_text("x")
        os.utime(folder, (1, 1) if model == "0123" else None)
    made = copied(again, tmp_path_factory.mktemp("old") / "work", retention=KEPT)
    aged(made.workdir, MONTH)
    return made


def test_old_days_and_versions_go_pinned_versions_stay_and_the_newest_night_is_skipped_still(
    spark: SparkSession, old: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    conf, examples, inventory = old.conf, schemas.examples(old.conf), schemas.inventory(old.conf)
    trained = read(spark, old.workdir, schemas.MODELS).collect()[0]["examples_version"]
    scored = read(spark, old.workdir, schemas.scores(conf)).select("inventory_version").distinct().collect()[0][0]
    newest = max(int(file.stem) for file in (old.workdir / "tables" / "examples" / "_delta_log").glob("*.json"))
    assert trained < newest, "or the version would stay readable by itself"
    before = (columns_of(spark, old, examples, trained), columns_of(spark, old, inventory, scored))
    hashes = old.hashes(spark, "runs", "impressions", "quarantine")

    assert removed(spark, conf, dry_run=True) == DONE
    asked = capsys.readouterr().out
    impressions = schemas.impressions(conf)
    assert read_days(spark, old.workdir, impressions, day_option(day(1)), day_option(day(3))).count() == 9000
    assert removed(spark, conf, dry_run=False) == DONE
    told = capsys.readouterr().out

    for said in (asked, told):
        assert re.search(rf"impressions: 9,000 rows of days up to {day(3)}, [1-9]\d* files, [1-9][\d,]+ bytes", said)
        assert f"keeps examples@v{trained}, named by model" in said and f"keeps inventory@v{scored}, named by scores of {day(8)}" in said
        assert re.search(r"  impressions: [1-9]\d* files of versions written over more than 168 hours ago", said)
    assert read_days(spark, old.workdir, impressions, day_option(day(1)), day_option(day(3))).count() == 0
    assert read_days(spark, old.workdir, impressions, day_option(day(4)), day_option(day(7))).count() == 11_975
    with pytest.raises(Exception, match=r"FAILED_READ_FILE|does not exist"):
        columns_of(spark, old, impressions, 1)  # the range's, of which the night of day 7 wrote days anew
    assert (columns_of(spark, old, examples, trained), columns_of(spark, old, inventory, scored)) == before
    assert old.hashes(spark, "runs", "impressions", "quarantine") == hashes
    assert [folder.name for folder in (old.workdir / "checkpoints").iterdir()] == ["cut-off"], "a training goes on from it"
    assert [folder.name for folder in (old.workdir / "snapshots").iterdir()] == [trained_model(spark, old)]

    noted = {row["stage"]: row for row in read(spark, old.workdir, schemas.RUNS).where(F.col("stage").isin(RETAIN, VACUUM)).collect()}
    ledger = read(spark, old.workdir, schemas.RUNS)
    broken = [rule.name for rule in rules_of(schemas.RUNS, conf) if not ledger.where(rule.broken).isEmpty()]
    assert broken == [], "the gate of the next run of that night judges these rows too"
    assert json.loads(noted[RETAIN]["outputs"])[f"impressions/{day(1)}"] == "0:"
    assert json.loads(noted[RETAIN]["counts"])["removed"][f"impressions/{day(1)}"].startswith("3000:")
    assert json.loads(noted[VACUUM]["counts"])["files"] > 0
    seventh = day_option(day(7))
    run_night(spark, conf, seventh, seventh, STAGES[:-1])
    assert capsys.readouterr().err.count(" skipped ") == len(STAGES) - 1


def test_a_range_whose_days_are_gone_is_skipped_still_and_refuses_to_make_anything_of_what_is_left(
    spark: SparkSession, built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = copied(built, tmp_path / "kept", retention=KEPT)
    first, last, impressions = day_option(day(1)), day_option(day(6)), schemas.impressions(built.conf)
    assert removed(spark, kept.conf, dry_run=False) == DONE
    assert read_days(spark, kept.workdir, impressions, first, day_option(day(2))).isEmpty()
    capsys.readouterr()
    run_night(spark, kept.conf, first, last, ETL)
    assert capsys.readouterr().err.count(" skipped ") == len(ETL)
    otherwise = replace(build_examples.STAGE, reads=lambda conf: {"seed": "another"})
    with pytest.raises(StageFailed, match=rf"needs .*impressions/{day(1)}.*jobs/retain.py") as refused:
        run_night(spark, kept.conf, first, last, (otherwise,))
    assert refused.value.code == USAGE


def trained_model(spark: SparkSession, of: Place) -> str:
    return str(read(spark, of.workdir, schemas.MODELS).collect()[0]["model"])


def test_nothing_is_removed_while_a_night_is_under_way(clean: Place) -> None:
    with night_lock(clean.workdir, day_option(day(8)), "another run"), pytest.raises(LockHeld, match="another run") as held:
        retain(["--conf-file", str(clean.conf_file)])
    assert code_of(held.value) == CONFLICT


def test_models_that_serve_could_serve_again_or_may_serve_next_stay_and_the_others_by_their_age(
    spark: SparkSession, tmp_path: Path
) -> None:
    conf = small_conf(str(tmp_path))
    for table in (schemas.MODELS, schemas.PUBLICATIONS, schemas.scores(conf), schemas.challenger_scores(conf)):
        create_table(spark, tmp_path, table)
    nights = [DAY + timedelta(days=number) for number in range(5)]
    # A model a night; that of the third was refused, that of the last waits, so the second's serves on from the fourth night.
    trained = {"model": "m", "trained_from": DAY, "trained_to": DAY, "verdict": "publish"}
    made = [trained | {"model": f"m{number}", "examples_version": number, "day": of} for number, of in enumerate(nights)]
    serves = [{"what": "model", "model": model, "day": of} for of, model in zip(nights, ("m0", "m1", "m1", "m1", "m1"), strict=True)]
    append(rows(spark, schemas.MODELS, made), tmp_path, schemas.MODELS)
    append(rows(spark, schemas.PUBLICATIONS, serves), tmp_path, schemas.PUBLICATIONS)
    for model in ("m0", "m1", "m2", "m3", "m4"):
        (tmp_path / "models" / model).mkdir(parents=True)
    whole = models(spark, conf, nights[-1])
    assert whole.used == {"m0", "m1", "m4"} and whole.kept == whole.known
    young = small_conf(str(tmp_path), retention={"model_days": 2})
    found = models(spark, young, nights[-1])
    assert found.kept == {"m0", "m1", "m3", "m4"}
    assert [folder.name for folder in old_folders(young, found)["models"]] == ["m2"]
    assert [pin.version for pin in pinned(spark, young, found, [])] == [0, 1, 3, 4]


def test_a_pin_lengthens_the_hours_of_its_own_table_alone(old: Place) -> None:
    conf = old.conf
    assert vacuum_hours(conf, "impressions", [Pinned("examples", 0, "a model")]) == 168
    assert MONTH.days * 24 + 24 <= vacuum_hours(conf, "examples", [Pinned("examples", 0, "a model")]) < MONTH.days * 24 + 48


def test_less_than_a_night_reads_is_refused_with_the_least() -> None:
    conf = small_conf(retention={"days": {"examples": 20, "metrics": 1}})
    least = least_days(conf)
    night = Night.of(DAY, conf)
    assert least["examples"] == (DAY - night.train_from).days + 1 and least["impressions"] == conf.label_days
    with pytest.raises(ConfError, match=rf"examples 20 \(at least {least['examples']}\)"):
        require_enough(conf)
    require_enough(small_conf(retention={"days": {"examples": least["examples"], "scores": 1}}))
    with pytest.raises(ConfError, match="exampels, no table"):
        require_enough(small_conf(retention={"days": {"exampels": 400}}))


def test_what_nights_know_themselves_by_is_never_removed() -> None:
    for name in ("runs", "models", "publications", "forgotten"):
        with pytest.raises(ValueError, match="always kept"):
            Retention(days={name: 10})
    with pytest.raises(ValueError, match="greater than or equal to 168"):
        Retention(version_hours=24)
