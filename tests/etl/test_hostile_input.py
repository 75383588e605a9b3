"""What becomes of broken and hostile input, one outcome each: this table is the documentation.

Either rows go to quarantine with a reason and their file, and the account balances, or the night stops (exit 3) with a message that names
file, column and knob. Never a Java stack trace, never a value in another column's place.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from conf.source import Source
from etl import schemas
from etl.landing import InputMissing, InputUnreadable, first_complete_day
from etl.raw import Block
from etl.sources import account, classified, settled
from jobs.common import INPUT, code_of
from tests.small import DAY, small_conf
from validation.rules import row_rules

NIGHT = DAY + timedelta(days=3)
COLUMNS = ("id", "user", "ad", "shown", "received", "bid")
KEPT, NOTHING = {"kept": 1}, dict[str, int]()
FILE = {"unreadable_file": 1}


def record(name: str, **over: Any) -> dict[str, Any]:
    good = {"id": name, "user": "u", "ad": "a", "shown": f"{DAY}T10:00:00Z", "received": f"{DAY}T10:00:05Z", "bid": 1.5}
    return {key: value for key, value in {**good, **over}.items() if value != "(dropped)"}


def line(name: str, **over: Any) -> bytes:
    return json.dumps(record(name, **over)).encode() + b"\n"


def csv(*rows: Mapping[str, Any], names: tuple[str, ...] = COLUMNS, header: str = "") -> bytes:
    lines = [header or ",".join(names), *(",".join(str(row.get(name, "?")) for name in names) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def parquet(*rows: Mapping[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, compression="gzip", **options)
    return sink.getvalue()


def flipped(content: bytes) -> bytes:
    """One bit of the first page changed."""
    return content[:60] + bytes([content[60] ^ 1]) + content[61:]


def swapped(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(reversed(list(row.items())))


LONG = "x" * 10_000_000
CUT = {"kept": 1, "unreadable": 2}
CASES = [  # what lies there, file (its ending says the block), content, what becomes of its rows: verdict or reason -> rows
    ("a good line", "good.json", line("json"), KEPT),
    ("a truncated line", "cut.json", line("before") + line("cut")[:40], {"kept": 1, "unreadable": 1}),
    ("no JSON at all", "text.json", b"hello\n\x00\x01\x02\n", {"unreadable": 2}),
    ("invalid UTF-8", "utf8.json", line("before utf8") + line("caf#").replace(b"#", b"\xe9"), {"kept": 1, "unreadable": 1}),
    ("a line of 10 MB, broken", "long.json", line("before long") + LONG.encode() + b"\n", {"kept": 1, "unreadable": 1}),
    ("a line of 10 MB, well formed", "fat.json", line("before fat") + line(LONG), {"kept": 1, "oversized": 1}),
    ("a cut gzip", "cut.json.gz", gzip.compress(line("gz") * 2000, mtime=0)[:-30], FILE),
    ("a gzip that is none", "fake.json.gz", line("fake"), FILE),
    ("a whole gzip", "whole.json.gz", gzip.compress(line("whole")), KEPT),
    ("a byte order mark", "bom.json", b"\xef\xbb\xbf" + line("bom"), KEPT),
    ("CRLF", "crlf.json", line("crlf 1").replace(b"\n", b"\r\n") + line("crlf 2").replace(b"\n", b"\r\n"), {"kept": 2}),
    ("an empty file", "empty.json", b"", NOTHING),
    ("an added column", "added.json", line("added", new=[1, 2]), KEPT),
    ("a dropped column", "dropped.json", line("dropped", ad="(dropped)"), {"ad_id_present": 1}),
    ("a renamed column", "renamed.json", line("renamed", ad="(dropped)", advert="a"), {"ad_id_present": 1}),
    ("a retyped column", "retyped.json", line("retyped", bid="cheap"), {"unreadable": 1}),
    ("reordered columns", "order.json", json.dumps(swapped(record("order"))).encode(), KEPT),
    ("a price that is no number", "nan.json", line("nan", bid=float("nan")) + line("inf", bid=float("inf")), {"bid_micros_of_type": 2}),
    ("a negative price", "negative.json", line("negative", bid=-1), {"bid_not_negative": 1}),
    ("a time after the night", "future.json", line("future", received=f"{NIGHT + timedelta(days=9)}T00:00:00Z"), {"not_due": 1}),
    ("a time of another age", "age.json", line("age", shown="3026-05-10T00:00:00Z"), {"shown_at_plausible+received_after_shown": 1}),
    ("received before it was shown", "early.json", line("early", received=f"{DAY}T09:00:00Z"), {"received_after_shown": 1}),
    ("a good CSV file", "good.csv", csv(record("csv")), KEPT),
    ("a row cut short, and one with a value too many", "cut.csv", csv(record("c")) + b"c2,u\n" + csv(record("c3"))[38:-1] + b",9\n", CUT),
    ("invalid UTF-8", "utf8.csv", csv(record("caf#")).replace(b"#", b"\xe9"), {"invalid_utf8": 1}),
    ("a byte order mark", "bom.csv", b"\xef\xbb\xbf" + csv(record("csv bom")), KEPT),
    ("CRLF", "crlf.csv", csv(record("csv crlf")).replace(b"\n", b"\r\n"), KEPT),
    ("an empty file", "empty.csv", b"", NOTHING),
    ("a header alone", "header.csv", csv(), NOTHING),
    ("an added column", "added.csv", csv(record("csv added"), names=("new", *COLUMNS)), KEPT),
    ("a dropped column", "dropped.csv", csv(record("csv dropped"), names=COLUMNS[:2] + COLUMNS[3:]), FILE),
    ("a renamed column", "renamed.csv", csv(record("csv renamed"), header="id,user,advert,shown,received,bid"), FILE),
    ("a retyped column", "retyped.csv", csv(record("csv retyped", bid="cheap")), {"unreadable": 1}),
    ("reordered columns", "order.csv", csv(record("csv order"), names=tuple(reversed(COLUMNS))), KEPT),
    ("a price that is no number", "nan.csv", csv(record("csv nan", bid="NaN")), {"bid_micros_of_type": 1}),
    ("a good Parquet file", "good.parquet", parquet(record("parquet")), KEPT),
    ("a flipped bit in a page", "flipped.parquet", flipped(parquet(*(record(f"flipped {n}") for n in range(50)))), FILE),
    ("a wrong footer", "footer.parquet", parquet(record("footer"))[:-4] + b"PARX", FILE),
    ("an empty file", "empty.parquet", b"", FILE),
    ("an added column", "added.parquet", parquet(record("parquet added", new=1)), KEPT),
    ("a dropped column", "dropped.parquet", parquet(record("parquet dropped", ad="(dropped)")), FILE),
    ("a renamed column", "renamed.parquet", parquet(record("parquet renamed", ad="(dropped)", advert="a")), FILE),
    ("a retyped column", "retyped.parquet", parquet(record("parquet retyped", bid="cheap")), FILE),
    ("reordered columns", "order.parquet", parquet(swapped(record("parquet order"))), KEPT),
    ("a price that is no number", "nan.parquet", parquet(record("parquet nan", bid=float("nan"))), {"bid_micros_of_type": 1}),
]  # fmt: skip


def hostile_conf(**over: Any) -> Conf:
    columns = {"impression_id": "id", "user_id": "user", "ad_id": "ad", "bid_micros": "bid * 1e6"}
    base = {
        "kind": "impressions",
        "source": "feed",
        "raw_schema": "id STRING, user STRING, ad STRING, shown STRING, received STRING, bid DOUBLE",
        "damaged_files": "quarantine",
        "columns": {**columns, "shown_at": "try_to_timestamp(shown)", "received_at": "try_to_timestamp(received)"},
        **over,
    }
    return small_conf(
        sources={
            "of_json": {**base, "format": "json", "files": "{landing}/{day}/*.json*"},
            "of_csv": {**base, "format": "csv", "files": "{landing}/{day}/*.csv*", "options": {"header": "true"}},
            "of_parquet": {**base, "format": "parquet", "files": "{landing}/{day}/*.parquet"},
        }
    )


def block(conf: Conf, paths: list[Path], kind: str) -> Block:
    name = f"of_{kind}"
    return Block(name, conf.sources[name], tuple(str(path) for path in paths if f".{kind}" in path.name))


def ingested(spark: SparkSession, conf: Conf, paths: list[Path]) -> tuple[list[Row], list[dict[str, Any]]]:
    blocks = [found for kind in ("json", "csv", "parquet") if (found := block(conf, paths, kind)).files]
    rows, counted = settled(spark, conf, blocks, schemas.impressions(conf), row_rules("impressions"), DAY, NIGHT, NIGHT)
    try:
        return rows.collect(), counted
    finally:
        rows.unpersist()


def written(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    folder = folder / str(DAY)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder / name for name in files)


def test_each_kind_of_broken_input_has_one_outcome_and_the_account_balances(spark: SparkSession, tmp_path: Path) -> None:
    found, counted = ingested(spark, hostile_conf(), written(tmp_path, {name: content for _, name, content, _ in CASES}))
    outcomes: dict[str, Counter[str]] = {}
    for row in found:
        outcomes.setdefault(row["file"], Counter())["+".join(row["reasons"]) or row["verdict"]] += 1
    assert {name: dict(outcomes.get(name, Counter())) for _, name, _, _ in CASES} == {name: outcome for _, name, _, outcome in CASES}
    assert all(row["rows_in"] == row["kept"] + row["duplicates"] + row["quarantined"] for row in counted)
    assert sum(row["rows_in"] + row["not_due"] for row in counted) == len(found) == sum(sum(o.values()) for _, _, _, o in CASES)
    # No value slipped into a neighbour's place, whatever the order of a file's columns.
    assert {(row["user_id"], row["ad_id"], row["shown_at"].hour) for row in found if row["verdict"] == "kept"} == {("u", "a", 10)}
    assert max(len(row["raw"]) for row in found if row["reasons"]) == 65_536
    assert {row["day"] for row in found if row["verdict"] == "quarantined"} == {DAY}


STOPS = [  # what lies there, file, what the message says of it
    ("a cut gzip", "cut.json.gz", "nexpected end"),
    ("a flipped bit in a page", "flipped.parquet", "."),
    ("a wrong footer", "footer.parquet", "is not a Parquet file"),
    ("a dropped column", "dropped.csv", "no column `ad`"),
    ("a renamed column", "renamed.csv", "no column `ad`.*did you mean `advert`"),
    ("a dropped column", "dropped.parquet", "no column `ad`"),
    ("a retyped column", "retyped.parquet", "holds `bid` as string, and raw_schema says double"),
]


@pytest.mark.parametrize(("what", "name", "said"), STOPS, ids=[name for _, name, _ in STOPS])
def test_a_file_that_cannot_be_read_stops_the_night_unless_told_otherwise(
    spark: SparkSession, tmp_path: Path, what: str, name: str, said: str
) -> None:
    content = next(content for known, file, content, _ in CASES if (known, file) == (what, name))
    with pytest.raises(
        InputUnreadable, match=rf"sources\.of_\w+: .*{name} cannot be read: (.*{said}).*damaged_files: quarantine"
    ) as caught:
        ingested(spark, hostile_conf(damaged_files="stop"), written(tmp_path, {name: content}))
    assert code_of(caught.value) == INPUT
    assert "\tat " not in str(caught.value)


def test_an_expression_that_fails_on_a_value_names_its_column_and_the_form_that_gives_null(spark: SparkSession, tmp_path: Path) -> None:
    columns = hostile_conf().sources["of_json"].columns | {"position": "cast(user AS INT)"}
    paths = written(tmp_path, {"good.json": line("good")})
    with pytest.raises(InputUnreadable, match=r"sources\.of_json\.columns\.position: an expression failed on a row: .*'u'.*try_cast"):
        ingested(spark, hostile_conf(columns=columns), paths)


def test_a_missing_required_source_stops_the_night_and_an_optional_one_does_not(spark: SparkSession, tmp_path: Path) -> None:
    sources = {name: source.model_dump() for name, source in hostile_conf().sources.items()}
    for name in sources:
        sources[name]["required"] = name == "of_csv"
    conf = small_conf(str(tmp_path), landing=str(tmp_path), sources=sources)
    written(tmp_path, {"good.json": line("good")})
    with pytest.raises(InputMissing, match=rf"of_csv on {DAY}: nothing matches .*{DAY}/\*\.csv.*required: false") as caught:
        first_complete_day(spark, conf, conf.sources, DAY, DAY, DAY)
    assert code_of(caught.value) == INPUT
    sources["of_csv"]["required"] = False
    conf = small_conf(str(tmp_path), landing=str(tmp_path), sources=sources)
    _, files = first_complete_day(spark, conf, conf.sources, DAY, DAY, DAY)
    assert {name: len(found) for name, found in files.items()} == {"of_json": 1, "of_csv": 0, "of_parquet": 0}


def test_an_engagement_before_or_without_its_impression_is_kept_for_the_labels_to_judge(spark: SparkSession, tmp_path: Path) -> None:
    columns = {
        "impression_id": "id",
        "action": "'click'",
        "acted_at": "try_to_timestamp(shown)",
        "received_at": "try_to_timestamp(received)",
    }
    conf = hostile_conf()
    clicks = line("of an impression shown later", shown=f"{DAY}T09:00:00Z", received=f"{DAY}T09:00:01Z") + line("of none")
    source = Source.model_validate(conf.sources["of_json"].model_dump() | {"kind": "engagements", "columns": columns})
    [path] = written(tmp_path, {"clicks.json": clicks})
    blocks = [Block("of_json", source, (str(path),))]
    rows = classified(spark, conf, blocks, schemas.ENGAGEMENTS, row_rules("engagements"), DAY, NIGHT, NIGHT)
    assert [row["verdict"] for row in rows.select("verdict").collect()] == ["kept", "kept"]


KEPT_ONCE = [("a", "u", "10:00:05"), ("b", "first", "10:00:05")]  # the first received; of two alike, one by content
DELIVERED = [
    line("a"),
    line("a"),
    line("a", received=f"{DAY}T11:00:00Z"),
    line("b", user="first"),
    line("b", user="other"),
    line("c")[:30] + b"\n",
]


@settings(
    max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(len(DELIVERED))), cuts=st.tuples(st.integers(0, 6), st.integers(0, 6)), again=st.booleans())
def test_rows_delivered_again_in_any_file_day_and_order_leave_the_same_rows_once(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: tuple[int, int], again: bool
) -> None:
    folder, (one, two) = tmp_path_factory.mktemp("delivered"), sorted(cuts)
    lines = [DELIVERED[place] for place in order]
    later = DAY + timedelta(days=1)
    files = {f"{DAY}/x.json": lines[:one], f"{DAY}/y.json": lines[one:two], f"{later}/z.json": lines[two:]}
    if again:
        files |= {f"{later}/the_same_as_x.json": files[f"{DAY}/x.json"]}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"".join(content))
    conf = hostile_conf()
    blocks = [Block("of_json", conf.sources["of_json"], tuple(str(folder / name) for name in files))]
    rows = classified(spark, conf, blocks, schemas.impressions(conf), row_rules("impressions"), DAY, NIGHT, NIGHT)
    kept = rows.where("verdict = 'kept'").select("impression_id", "user_id", F.date_format("received_at", "HH:mm:ss")).collect()
    assert sorted(tuple(row) for row in kept) == KEPT_ONCE
    counted = {name: sum(row[name] for row in account(rows)) for name in ("rows_in", "kept", "duplicates", "quarantined")}
    total = sum(len(content) for content in files.values())
    broken = sum(content.count(DELIVERED[5]) for content in files.values())
    assert counted == {"rows_in": total, "kept": 2, "duplicates": total - 2 - broken, "quarantined": broken}


def mangled(text: bytes, draw: random.Random) -> bytes:
    """A line with some bytes changed, put in, left out or cut off; still one line, and more than blanks and control characters."""
    found = bytearray(text)
    for _ in range(draw.randint(0, 4)):
        at = draw.randrange(len(found))
        how, byte = draw.randrange(4), draw.randrange(256)
        if how == 0:
            found[at] = byte
        elif how == 1:
            found.insert(at, byte)
        elif how == 2:
            del found[at : at + draw.randint(1, 5)]
        else:
            del found[max(at, 1) :]
        found = found or bytearray(b"x")
    return bytes(byte for byte in found if byte not in b"\r\n").strip(bytes(range(33))) or b"x"


def test_each_of_a_thousand_mangled_lines_is_accounted_for(spark: SparkSession, tmp_path: Path) -> None:
    draw, conf, number = random.Random(5), hostile_conf(), 500
    as_json = [mangled(line(f"j{place}").strip(), draw) for place in range(number)]
    as_csv = [mangled(csv(record(f"c{place}")).splitlines()[1], draw) for place in range(number)]
    contents = {"mangled.json": b"\n".join(as_json), "mangled.csv": b"\n".join([",".join(COLUMNS).encode(), *as_csv])}
    paths = written(tmp_path, contents)
    blocks = [Block(f"of_{path.suffix[1:]}", conf.sources[f"of_{path.suffix[1:]}"], (str(path),)) for path in paths]
    rows = classified(spark, conf, blocks, schemas.impressions(conf), row_rules("impressions"), DAY, NIGHT, NIGHT).persist()
    counted = Counter(row["verdict"] for row in rows.select("verdict").collect())
    assert sum(counted.values()) == 2 * number and counted["kept"] > 0 and counted["quarantined"] > number / 4
    assert rows.where("verdict = 'quarantined' AND (size(reasons) = 0 OR raw IS NULL)").count() == 0
    rows.unpersist()
