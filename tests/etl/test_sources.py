"""What becomes of each line of a landing file. Every line has one verdict, and the account adds up."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.load import ConfError
from conf.schema import Conf
from etl import schemas
from etl.landing import InputMissing, first_complete_day
from etl.sources import Block, account, classified
from tests.small import DAY, small_conf
from validation.rules import row_rules

NIGHT = DAY + timedelta(days=3)


def line(name: str, **over: str | None) -> str:
    return json.dumps(
        {"id": name, "user": "u", "ad": "a", "shown": f"{DAY}T10:00:00Z", "received": f"{DAY}T10:00:05Z", "hour": "10", **over}
    )


def read(spark: SparkSession, conf: Conf, folder: Path, files: dict[str, list[str]], first=DAY, last=NIGHT) -> DataFrame:
    """Verdicts of lines that are written as {relative file: lines} below the landing folder."""
    paths = []
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()) if name.endswith(".gz") else ("\n".join(lines) + "\n").encode())
        paths.append(str(path))
    name, source = next(iter(conf.sources.items()))
    return classified(
        spark, conf, [Block(name, source, tuple(paths))], schemas.impressions(conf), row_rules("impressions"), first, last, NIGHT
    )


def test_each_line_has_one_verdict(spark: SparkSession, tmp_path: Path) -> None:
    later = DAY + timedelta(days=1)
    cases = [  # what, line (a good one carries what it is as its id), verdict, reasons
        ("good", line("good"), "kept", []),
        ("cut off", line("cut off")[:40], "quarantined", ["unreadable"]),
        ("no id", line("x", id=None), "quarantined", ["impression_id_present"]),
        ("clock unreadable", line("y", shown="noon"), "quarantined", ["shown_at_present"]),
        ("received before it was shown", line("z", received=f"{DAY}T09:00:00Z"), "quarantined", ["received_after_shown"]),
        ("received after as_of", line("received after as_of", received=f"{NIGHT + timedelta(days=1)}T00:00:00Z"), "not_due", []),
        ("shown before the range", line("shown before the range", shown="2026-05-01T10:00:00Z"), "other_day", []),
        (
            "received as late as may be",
            line("received as late as may be", shown=f"{later}T10:00:00Z", received=f"{NIGHT}T23:59:59Z"),
            "kept",
            [],
        ),
    ]
    found = read(spark, small_conf(), tmp_path, {f"feed/{DAY}/a.json.gz": [text for _, text, _, _ in cases]}).collect()
    good = {row["impression_id"]: row["verdict"] for row in found if not row["reasons"]}
    assert good == {what: verdict for what, _, verdict, reasons in cases if not reasons}
    broken = sorted((json.dumps(row["reasons"]), row["verdict"], values(row["raw"])) for row in found if row["reasons"])
    assert broken == sorted((json.dumps(reasons), verdict, values(text)) for _, text, verdict, reasons in cases if reasons)
    assert len(found) == len(cases)


def values(raw: str) -> str:
    """A line as the raw column holds it: an unreadable one as it came, else its values, nulls left out."""
    try:
        return json.dumps({key: value for key, value in json.loads(raw).items() if value is not None}, sort_keys=True)
    except json.JSONDecodeError:
        return raw


def test_of_a_row_delivered_twice_the_first_received_stays_whatever_the_order(spark: SparkSession, tmp_path: Path) -> None:
    first, again = line("a"), line("a", received=f"{DAY}T11:00:00Z")
    for number, (one, other) in enumerate([([first, again], []), ([again], [first]), ([first], [again])]):
        folder = tmp_path / str(number)
        found = read(spark, small_conf(), folder, {f"feed/{DAY}/a.json": one, f"feed/{DAY + timedelta(days=1)}/b.json": other}).collect()
        assert {row["verdict"]: row["received_at"].minute + 60 * row["received_at"].hour for row in found} == {
            "kept": 600,
            "duplicate": 660,
        }


def test_the_account_balances_by_block_and_day(spark: SparkSession, tmp_path: Path) -> None:
    lines = [line("a"), line("a"), line("b"), line("c")[:30], line("d", id=None), line("e", shown="2026-05-01T10:00:00Z")]
    counted = account(read(spark, small_conf(), tmp_path, {f"feed/{DAY}/a.json": lines}))
    today = next(row for row in counted if row["day"] == DAY.isoformat())
    assert {name: today[name] for name in ("rows_in", "kept", "duplicates", "quarantined")} == {
        "rows_in": 5,
        "kept": 2,
        "duplicates": 1,
        "quarantined": 2,
    }
    assert sum(row["other_day"] for row in counted) == 1


def test_a_line_without_a_readable_clock_is_accounted_on_its_files_day(spark: SparkSession, tmp_path: Path) -> None:
    later = DAY + timedelta(days=1)
    files = {f"feed/{DAY}/a.json": [line("a")[:30]], f"feed/{later}/b.json": [line("b", shown="noon"), line("c")[:25]]}
    found = read(spark, small_conf(), tmp_path, files).collect()
    assert Counter(row["day"] for row in found) == {DAY: 1, later: 2}


def test_a_broken_row_of_a_day_after_the_range_is_left_to_the_night_that_built_that_day(spark: SparkSession, tmp_path: Path) -> None:
    later = DAY + timedelta(days=1)
    files = {f"feed/{DAY}/a.json": [line("a"), line("b")[:30]], f"feed/{later}/b.json": [line("c")[:30], line("d", shown="noon")]}
    found = read(spark, small_conf(), tmp_path, files, last=DAY).collect()
    assert Counter(row["verdict"] for row in found) == {"kept": 1, "quarantined": 1, "other_day": 2}


def test_csv_clocks_without_offset_are_read_in_the_blocks_zone(spark: SparkSession, tmp_path: Path) -> None:
    base = small_conf().sources["feed"].model_dump()
    csv = {**base, "format": "csv", "options": {"header": "true"}, "raw_schema": "", "time_zone": "America/New_York"}
    conf = small_conf(sources={"feed": csv})
    lines = ["id,user,ad,shown,received,hour", f"a,u,a,{DAY} 10:00:00,{DAY} 10:00:05,10", f"b,u,a,{DAY} 10:00:00"]
    found = {row["verdict"]: row for row in read(spark, conf, tmp_path, {f"feed/{DAY}/a.csv": lines}).collect()}
    assert found["kept"]["shown_at"].hour == 14  # summer time: four hours behind UTC
    assert found["quarantined"]["reasons"] == ["unreadable"]  # a line cut short


def test_the_predicate_of_a_block_tells_its_rows_apart(spark: SparkSession, tmp_path: Path) -> None:
    feed = small_conf().sources["feed"].model_dump() | {"where": "hour = '10'"}
    found = read(
        spark, small_conf(sources={"feed": feed}), tmp_path, {f"feed/{DAY}/a.json": [line("a"), line("b", hour="11"), line("c")[:30]]}
    )
    assert Counter(row["verdict"] for row in found.collect()) == {"kept": 1, "quarantined": 1}


def test_a_column_that_the_table_does_not_have_is_a_configuration_error(spark: SparkSession, tmp_path: Path) -> None:
    feed = small_conf().sources["feed"].model_dump()
    feed["columns"]["user"] = "user"
    with pytest.raises(ConfError, match="no column user; did you mean user_id"):
        read(spark, small_conf(sources={"feed": feed}), tmp_path, {f"feed/{DAY}/a.json": [line("a")]})


def conf_of_topics(expression: str, **feature: Any) -> Conf:
    feed = small_conf().sources["feed"].model_dump()
    feed["raw_schema"] += ", topics STRING"
    feed["columns"]["topics"] = expression
    topics = {"column": "topics", "family": "context", "type": "hashed", "buckets": 9, **feature}
    features = [*small_conf().model_dump()["template"]["features"], topics]
    return small_conf(sources={"feed": feed}, template={"features": features})


def test_a_list_is_made_by_the_blocks_expression_and_no_longer_than_a_text_may_be(spark: SparkSession, tmp_path: Path) -> None:
    lines = [line("a", topics="art,,music"), line("b", topics=None), line("c", topics="x," * 40_000)]
    found = read(spark, conf_of_topics("split(topics, ',')", length=2), tmp_path, {f"feed/{DAY}/a.json": lines}).collect()
    assert {row["impression_id"]: row["topics"] for row in found if row["verdict"] == "kept"} == {"a": ["art", "", "music"], "b": None}
    assert [row["reasons"] for row in found if row["verdict"] == "quarantined"] == [["oversized"]]


@pytest.mark.parametrize(
    ("expression", "length", "message"),
    [
        ("topics", 2, r"topics: 'topics' is string, impressions.topics is array<string>; make a list by split"),
        ("split(topics, ',')", 0, r"is array<string>, impressions.topics is string; .*read one with a `length`"),
    ],
)
def test_a_list_where_a_value_is_read_is_a_configuration_error(
    spark: SparkSession, tmp_path: Path, expression: str, length: int, message: str
) -> None:
    with pytest.raises(ConfError, match=message):
        read(spark, conf_of_topics(expression, length=length), tmp_path, {f"feed/{DAY}/a.json": [line("a")]})


def landed(conf: Conf, *days: int) -> None:
    for day in days:
        folder = Path(conf.workdir) / "landing" / "feed" / (DAY + timedelta(days=day)).isoformat()
        folder.mkdir(parents=True)
        (folder / "a.json").write_text(line("a"))


def test_a_missing_day_of_a_required_source_is_named_with_its_pattern(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    landed(conf, 0, 2)
    days = (DAY, DAY, DAY + timedelta(days=2))
    with pytest.raises(InputMissing, match=r"feed on 2026-05-11: nothing matches .*feed/2026-05-11/\*\.json"):
        first_complete_day(spark, conf, conf.sources, *days)
    optional = small_conf(str(tmp_path), sources={"feed": conf.sources["feed"].model_dump() | {"required": False}})
    first, files = first_complete_day(spark, optional, optional.sources, *days)
    assert (first, len(files["feed"])) == (DAY, 2)


def test_days_that_landing_no_longer_holds_are_left_as_they_were_built(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(str(tmp_path))
    landed(conf, 2, 3)
    first, files = first_complete_day(spark, conf, conf.sources, DAY, NIGHT, NIGHT)
    assert (first, len(files["feed"])) == (DAY + timedelta(days=2), 2)
