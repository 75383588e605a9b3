"""Which files a block may read, in which formats, and what may be derived of their columns."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.load import ConfError
from conf.schema import Conf
from conf.source import Source
from etl import schemas
from etl.landing import InputUnreadable, files_by_day, fingerprint
from etl.raw import Block
from etl.sources import classified
from tests.etl.test_hostile_input import COLUMNS, NIGHT, hostile_conf, ingested, line, record, written
from tests.small import DAY, small_conf
from validation.rules import row_rules


def of(conf: Conf, **over: object) -> Source:
    return Source.model_validate(conf.sources["of_json"].model_dump() | over)


def shown(spark: SparkSession, conf: Conf, source: Source, files: list[str]) -> dict[str, str]:
    """impression_id -> verdict or reasons."""
    rows = classified(
        spark, conf, [Block("feed", source, tuple(files))], schemas.impressions(conf), row_rules("impressions"), DAY, NIGHT, NIGHT
    )
    return {row["impression_id"] or row["file"]: "+".join(row["reasons"]) or row["verdict"] for row in rows.collect()}


def test_avro_is_read_by_name_and_a_damaged_file_is_named(spark: SparkSession, tmp_path: Path) -> None:
    conf, folder = hostile_conf(), tmp_path / "avro"
    spark.createDataFrame([record("avro", new=1)]).coalesce(1).write.format("avro").save(str(folder))
    [path] = folder.glob("*.avro")
    assert shown(spark, conf, of(conf, format="avro"), [str(path)]) == {"avro": "kept"}
    cut = tmp_path / "cut.avro"
    cut.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputUnreadable, match=r"sources\.feed: .*cut\.avro cannot be read"):
        shown(spark, conf, of(conf, format="avro", damaged_files="stop"), [str(cut)])


def test_a_delta_table_is_read_at_the_version_that_was_found_first(spark: SparkSession, tmp_path: Path) -> None:
    conf, table = small_conf(landing=str(tmp_path)), tmp_path / f"feed-{DAY}"
    source = of(hostile_conf(), format="delta", files="{landing}/feed-{day}")
    spark.createDataFrame([record("before")]).coalesce(1).write.format("delta").save(str(table))
    [first] = files_by_day(spark, conf, source, DAY, DAY)[DAY]
    spark.createDataFrame([record("after")]).coalesce(1).write.format("delta").mode("append").save(str(table))
    [second] = files_by_day(spark, conf, source, DAY, DAY)[DAY]
    assert fingerprint([first]) != fingerprint([second])
    assert shown(spark, conf, source, [first.path]) == {"before": "kept"}
    assert shown(spark, conf, source, [second.path]) == {"before": "kept", "after": "kept"}
    assert files_by_day(spark, conf, source, NIGHT, NIGHT)[NIGHT] == []


def test_a_day_in_a_path_is_written_as_the_feed_writes_it(spark: SparkSession, tmp_path: Path) -> None:
    conf, later = small_conf(landing=str(tmp_path)), DAY + timedelta(days=1)
    cases = [  # pattern, the file of DAY
        ("{landing}/a/{day}/*.json", "a/2026-05-10/x.json"),
        ("{landing}/b/{day:%Y/%m/%d}/x.json", "b/2026/05/10/x.json"),
        ("{landing}/c/log_{day:%Y%m%d}*.json", "c/log_20260510_1.json"),
        ("{landing}/d/*-{day:%d.%m.%Y}.json", "d/feed-10.05.2026.json"),
        ("{landing}/{e,f}/{day:%Y}/{day}.json", "e/2026/2026-05-10.json"),
    ]
    for pattern, name in cases:
        source, path = of(hostile_conf(), files=pattern), tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(line("a")[:30])
        found = files_by_day(spark, conf, source, DAY, later)
        assert [[file.path.removeprefix("file:") for file in found[day]] for day in (DAY, later)] == [[str(path)], []], pattern
        blocks = [Block("feed", source, (str(path),))]
        rows = classified(spark, conf, blocks, schemas.impressions(conf), row_rules("impressions"), DAY, NIGHT, NIGHT)
        assert [row["day"] for row in rows.select("day").collect()] == [date(2026, 5, 10)], pattern  # a broken line is its file's


def test_a_day_that_cannot_be_read_back_is_refused() -> None:
    for files in ("{landing}/{day:%Y-%m}/x", "{landing}/{day:%j}/x", "{landing}/{days}/x", "{landing}/{day:%Y%m%d%H}/x"):
        with pytest.raises(ConfError, match="day"):
            small_conf(sources={"feed": small_conf().sources["feed"].model_dump() | {"files": files}})


def test_a_window_sees_every_row_of_the_block_and_no_unreadable_one(spark: SparkSession, tmp_path: Path) -> None:
    conf = hostile_conf(
        derive={"views": "count(*) OVER (PARTITION BY user)", "first_ad": "first(ad) OVER (PARTITION BY user ORDER BY shown)"},
        where="ad <> 'left out' AND views > 0",
        columns=hostile_conf().sources["of_json"].columns | {"position": "views", "campaign_id": "first_ad"},
    )
    [path] = written(
        tmp_path, {"a.json": line("a", shown=f"{DAY}T08:00:00Z", ad="left out") + line("b") + line("c", user=None) + line("d")[:30]}
    )
    found = ingested(spark, conf, [path])[0]
    seen = {row["impression_id"]: (row["position"], row["campaign_id"]) for row in found if row["verdict"] == "kept"}
    assert seen == {"b": (2, "left out"), "c": (1, "a")}  # the truncated line has no user either, and is not counted beside c
    assert [row["raw"] for row in found if row["reasons"] == ["unreadable"]] == [line("d")[:30].decode()]
    broken = hostile_conf(
        derive={"views": "count(*) OVER ()"}, columns={**conf.sources["of_json"].columns, "campaign_id": "user", "ad_id": "''"}
    )
    [row] = [row for row in ingested(spark, broken, [path])[0] if row["reasons"] == ["ad_id_present"] and "left" in row["raw"]]
    assert set(json.loads(row["raw"])) == set(COLUMNS)  # what came, without what was derived


def test_a_derived_name_must_not_hide_a_raw_column(spark: SparkSession, tmp_path: Path) -> None:
    paths = written(tmp_path, {"good.json": line("good")})
    with pytest.raises(ConfError, match=r"sources\.of_json\.derive: user would hide the raw column"):
        ingested(spark, hostile_conf(derive={"user": "upper(ad)"}), paths)


def test_options_that_would_change_what_a_broken_line_means_are_refused() -> None:
    for option in ("mode", "columnNameOfCorruptRecord", "path", "enforceSchema", "ignoreCorruptFiles", "inferSchema", "pathGlobFilter"):
        with pytest.raises(ConfError, match=rf"options\.{option} is none of a csv source's: header, sep"):
            small_conf(sources={"feed": small_conf().sources["feed"].model_dump() | {"format": "csv", "options": {option: "x"}}})
