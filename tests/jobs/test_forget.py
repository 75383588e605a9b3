"""People who leave: nothing of theirs stays in any table or file, versions that held it are gone, and they do not come back."""

from __future__ import annotations

import json
from collections import Counter
from functools import reduce
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from etl import schemas
from etl.forgetting import person_tables
from etl.lock import night_lock
from etl.privacy import KEY_VARIABLE, hashed
from etl.tables import create_tables, read
from jobs.common import CONFLICT, DONE
from jobs.nightly import ETL, run_night
from tests.jobs.nights import Place, copied, place
from tests.reliability.lakes import NIGHT, hashes

KEY = "a key that is in no file of ours"
TABLES_OF_USERS = ("impressions", "users", "inventory", "examples", "served")


def rows_of(spark: SparkSession, conf: Conf, user: str) -> dict[str, int]:
    """Table -> rows of the user, in tables that name users."""
    tables = schemas.all_tables(conf)
    counted = {name: read(spark, conf.workdir, tables[name]).where(F.col("user_id") == user).count() for name in TABLES_OF_USERS}
    counted["history"] = read(spark, conf.workdir, tables["history"]).where((F.col("kind") == "user") & (F.col("key") == user)).count()
    return counted


@pytest.fixture(scope="module")
def left(spark: SparkSession, clean: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str, str]:
    """A night's tables after the one who is seen most has left, who that was, and what the command said."""
    stood = copied(clean, tmp_path_factory.mktemp("left") / "work")
    tables = schemas.all_tables(stood.conf)
    users = [read(spark, stood.workdir, tables[name]).where("user_id IS NOT NULL").select("user_id").distinct() for name in TABLES_OF_USERS]
    everywhere = reduce(DataFrame.intersect, users).orderBy("user_id").first()
    assert everywhere is not None
    user = everywhere["user_id"]
    (stood.workdir / "runs" / "note.json").write_text(json.dumps({"row": f"user {user}, not {user}9"}))
    file = stood.workdir.parent / "leaving.txt"
    file.write_text(f"{user}\n\nnobody-knows-me\n")
    code, told = stood.run("forget", "--user-file", str(file))
    assert code == DONE, told
    return stood, user, told


def test_no_table_has_a_row_of_theirs_and_no_report_their_id(spark: SparkSession, clean: Place, left: tuple[Place, str, str]) -> None:
    stood, user, _ = left
    assert set(rows_of(spark, stood.conf, user).values()) == {0}
    theirs = read(spark, clean.workdir, schemas.inventory(clean.conf)).where(F.col("user_id") == user).select("inventory_id")
    scores = read(spark, stood.workdir, schemas.scores(stood.conf))
    assert scores.join(theirs, "inventory_id").count() == 0
    assert scores.count() == read(spark, clean.workdir, schemas.scores(clean.conf)).count() - theirs.count()
    shown = read(spark, clean.workdir, schemas.impressions(clean.conf)).where(F.col("user_id") == user).select("impression_id")
    assert read(spark, clean.workdir, schemas.ENGAGEMENTS).join(shown, "impression_id").count() > 0
    assert read(spark, stood.workdir, schemas.ENGAGEMENTS).join(shown, "impression_id").count() == 0
    assert json.loads((stood.workdir / "runs" / "note.json").read_text())["row"] == f"user (forgotten), not {user}9"
    assert not (stood.workdir / "snapshots").exists()


def test_what_is_told_and_kept_of_it_has_numbers_and_no_ids(spark: SparkSession, left: tuple[Place, str, str]) -> None:
    stood, user, _ = left
    row = read(spark, stood.workdir, schemas.RUNS).where("stage = 'forget'").collect()[0]
    counts = json.loads(row["counts"])
    model = read(spark, stood.workdir, schemas.MODELS).first()
    assert model is not None and counts["people"] == 2 and counts["models_without_rows"] == [model["model"]]
    assert user not in row["counts"] + row["outputs"] + row["message"] and "snapshots" in counts["folders"]
    assert all(counts["rows"][table] > 0 for table in (*TABLES_OF_USERS, "engagements", "history", "scores"))


def test_versions_that_held_their_rows_cannot_be_read(spark: SparkSession, left: tuple[Place, str, str]) -> None:
    stood, _, _ = left
    for name in ("impressions", "examples", "scores"):
        path = str(stood.workdir / "tables" / name)
        newest = {Path(file).name for file in spark.read.format("delta").load(path).inputFiles()}
        assert {file.name for file in Path(path).glob("day=*/**/*.parquet")} == newest, name
    assert set(TABLES_OF_USERS) < set(person_tables(stood.conf))


def test_a_night_run_again_does_not_bring_them_back_and_its_account_balances(spark: SparkSession, left: tuple[Place, str, str]) -> None:
    stood, user, _ = left
    before = hashes(spark, stood)
    assert run_night(spark, stood.conf, NIGHT, NIGHT, ETL) == DONE
    assert set(rows_of(spark, stood.conf, user).values()) == {0}
    after = hashes(spark, stood)
    for table in ("impressions", "inventory"):
        assert after[table] == before[table], table
    aside = read(spark, stood.workdir, schemas.QUARANTINE).where(F.array_contains("reasons", "forgotten_user"))
    found = Counter(row["table_name"] for row in aside.collect())
    assert found["impressions"] > 0 and found["inventory"] > 0 and aside.where("raw IS NOT NULL").count() == 0


def test_no_one_is_forgotten_while_a_night_runs(clean: Place, tmp_path: Path) -> None:
    (tmp_path / "leaving.txt").write_text("u1\n")
    with night_lock(clean.workdir, NIGHT, "a night"):
        code, told = clean.run("forget", "--user-file", str(tmp_path / "leaving.txt"), "--dry-run")
    assert code == CONFLICT and "a night is being run" in told
    assert clean.run("forget", "--user-file", str(tmp_path / "none.txt"))[0] == 2


def test_with_hashed_ids_neither_an_id_nor_the_key_is_anywhere_and_another_key_is_refused(
    spark: SparkSession, clean: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    private = place(tmp_path / "private", "tiny", landing=Path(clean.conf.landing), privacy={"hash_user_ids": True})
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    create_tables(spark, private.conf)
    assert run_night(spark, private.conf, NIGHT, NIGHT, ETL[:1]) == DONE
    plain = (
        read(spark, clean.workdir, schemas.impressions(clean.conf)).where(F.col("day") == F.lit(NIGHT)).select("impression_id", "user_id")
    )
    private_ids = read(spark, private.workdir, schemas.impressions(private.conf)).select("impression_id", F.col("user_id").alias("hash"))
    pairs = plain.join(private_ids, "impression_id").where("user_id IS NOT NULL").distinct().collect()
    assert len(pairs) > 1000 and all(row["hash"] == hashed(KEY.encode(), row["user_id"]) for row in pairs)
    monkeypatch.setenv(KEY_VARIABLE, KEY + "!")
    with pytest.raises(ConfError, match="are hashed with another key: give ADTOWER_USER_KEY the value that it had"):
        run_night(spark, private.conf, NIGHT, NIGHT, ETL[:1])
    users = [row["user_id"].encode() for row in pairs[:50]]
    written = [path.read_bytes() for path in private.workdir.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    said = "".join(capfd.readouterr()).encode()
    assert not [text for text in (*written, said) if KEY.encode() in text or any(b'"' + user + b'"' in text for user in users)]
    broken = read(spark, private.workdir, schemas.QUARANTINE).where("raw IS NOT NULL").select("raw").collect()
    assert broken and not [row for row in broken if any(user.decode() in row["raw"] for user in users)]
