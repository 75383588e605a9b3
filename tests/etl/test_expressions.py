"""What an expression of the configuration may do, and what is refused before a row is read."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType, StructType

from conf.load import ConfError
from etl.expressions import ALLOWED, Expression, check

COLUMNS = (
    "personId STRING, sessionId STRING, userAgent STRING, timestamp BIGINT, price DOUBLE, at TIMESTAMP, tags ARRAY<STRING>, "
    "extra STRUCT<slot: INT>, props MAP<STRING, STRING>, _file STRING"
)


@pytest.fixture(scope="module")
def schema(spark: SparkSession) -> StructType:
    return cast(StructType, StructType.fromDDL(COLUMNS))


FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ALLOWED_ONES = [
    "first(userAgent, true) OVER (PARTITION BY personId, sessionId ORDER BY timestamp ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
    "lead(timestamp) OVER (PARTITION BY personId ORDER BY timestamp) - timestamp",
    "count(*) OVER (PARTITION BY personId ORDER BY at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW)",
    "CASE WHEN userAgent LIKE '%iOS%' THEN 'ios' WHEN userAgent RLIKE 'Andr.*' THEN 'android' ELSE 'web' END",
    "timestamp_seconds(timestamp)",
    "timestamp_millis(cast(timestamp as bigint))",
    "try_to_timestamp(personId, 'yyyy-MM-dd HH:mm:ss') + INTERVAL 1 HOUR",
    "transform(filter(tags, t -> length(t) > 1), (t, i) -> upper(t) || cast(i as string))",
    "aggregate(tags, 0, (sum, t) -> sum + length(t), sum -> sum * 2)",
    "exists(tags, t -> t = 'sale')",
    "extra.slot + tags[0]::int",
    "props['a']",
    "from_json(userAgent, 'slot INT, name STRING').slot",
    "get_json_object(userAgent, '$.a')",
    "sha2(concat_ws('-', _file, personId), 256)",
    "xxhash64(personId)",
    "regexp_extract(_file, '([a-z]+)', 1)",
    "extract(year FROM at)",
    "timestampdiff(SECOND, at, timestamp_seconds(timestamp))",
    "personId IN ('a', 'b') AND NOT price IS NULL AND price BETWEEN 0 AND 9 OR price <=> 1.5",
    "struct(personId, price)",
    "trim(BOTH ' ' FROM personId)",
    "to_date('2020-01-01')",
    "at >= '2019-11-30'",
    "personId = 'now'",  # a text like any other: no time is made of it
    "'a' 'b'",
]
FORBIDDEN = [  # expression, what the error names
    ("reflect('java.lang.System', 'exit', 1)", "reflect"),
    ("java_method('java.util.UUID', 'randomUUID')", "java_method"),
    ("try_reflect('java.lang.System', 'nanoTime')", "try_reflect"),
    ("my_udf(personId)", "my_udf"),
    ("spark_catalog.default.upper(personId)", "spark_catalog"),
    ("(SELECT max(personId) FROM runs)", "subquery"),
    ("personId IN (SELECT 1)", "subquery"),
    ("EXISTS (SELECT 1)", "subquery"),
    ("input_file_name()", "input_file_name"),
    ("current_user()", "current_user"),
    ("current_user", "current_user"),
    ("session_user()", "session_user"),
    ("version()", "version"),
    ("current_database()", "current_database"),
    ("raise_error('x')", "raise_error"),
    ("assert_true(price > 0)", "assert_true"),
    ("uuid()", "uuid"),
    ("rand()", "rand"),
    ("randn(1)", "randn"),
    ("shuffle(tags)", "shuffle"),
    ("now()", "now"),
    ("current_date", "current_date"),
    ("current_timestamp()", "current_timestamp"),
    ("localtimestamp", "localtimestamp"),
    ("unix_timestamp()", "clock"),
    ("timestamp 'now'", "clock"),
    ("DATE /* of */ 'today'", "clock"),
    ("cast('tomorrow' AS DATE)", "clock"),
    ("to_date('yesterday')", "clock"),
    ("at > 'now'", "clock"),
    ("monotonically_increasing_id()", "monotonically_increasing_id"),
    ("spark_partition_id()", "spark_partition_id"),
    ("read_files('/etc/passwd')", "read_files"),
    ("explode(tags)", "explode"),
    ("*", r"`\*`"),
    ("struct(*)", r"`\*`"),
    ("sum(price)", "aggregate over no window"),
    ("personId and_a_word", "name after the expression"),
    (":parameter", "parameter"),
    ("IDENTIFIER('personId')", "UnresolvedIdentifier"),
    ("rank() OVER w", "window by name"),
]


def test_an_expression_over_the_columns_of_its_block_is_allowed(spark: SparkSession, schema: StructType) -> None:
    types, windowed = check(spark, [Expression("e", text) for text in ALLOWED_ONES[3:]], schema)
    assert (len(types), windowed) == (len(ALLOWED_ONES) - 3, False)
    types, windowed = check(spark, [Expression("e", text) for text in ALLOWED_ONES[:3]], schema)
    assert ([kind.simpleString() for kind in types], windowed) == (["string", "bigint", "bigint"], True)


@pytest.mark.parametrize(("text", "named"), FORBIDDEN, ids=[text[:30] for text, _ in FORBIDDEN])
def test_what_reaches_beyond_its_columns_is_refused_by_name(spark: SparkSession, schema: StructType, text: str, named: str) -> None:
    with pytest.raises(ConfError, match=rf"^sources\.feed\.columns\.ad_id: .*{named}"):
        check(spark, [Expression("sources.feed.columns.ad_id", text)], schema)


def test_the_error_helps_along(spark: SparkSession, schema: StructType) -> None:
    cases = [  # expression, what the error says
        ("uper(personId)", "did you mean `upper`"),
        ("personID2", "did you mean `personid`.*columns here: personId, sessionId"),
        ("price +", "cannot be read as Spark SQL"),
        ("tags + 1", r"does not fit the columns: .*columns: struct<personId:string"),
        ("extra.slott", "does not fit the columns: .*slot"),
        ("upper(personId, 2)", "does not fit the columns"),
    ]
    for text, said in cases:
        with pytest.raises(ConfError, match=said):
            check(spark, [Expression("good", "personId"), Expression("at fault", text)], schema)
    with pytest.raises(ConfError, match="put it under `derive`"):
        check(spark, [Expression("where", "row_number() OVER (ORDER BY at) = 1", windows=False)], schema)


def test_a_function_registered_over_a_built_in_one_is_refused(spark: SparkSession, schema: StructType) -> None:
    assert "soundex" in ALLOWED
    other = spark.newSession()  # with functions of its own, so that nothing is left behind
    other.udf.register("soundex", lambda text: text)
    with pytest.raises(ConfError, match="hides Spark's own `soundex`"):
        check(other, [Expression("e", "soundex(personId)")], schema)


TEXTS = st.recursive(
    st.sampled_from(["personId", "userAgent", "'x'", "cast(price AS STRING)", "extra.slot || ''", "props['k']", "tags[0]"]),
    lambda inner: st.one_of(
        st.builds("upper({})".format, inner),
        st.builds("concat_ws('-', {}, {})".format, inner, inner),
        st.builds("coalesce({}, {})".format, inner, inner),
        st.builds("CASE WHEN length({}) > 3 THEN {} ELSE {} END".format, inner, inner, inner),
        st.builds("element_at(transform(array({}), t -> concat(t, {})), 1)".format, inner, inner),
        st.builds("regexp_replace({}, '[0-9]', '')".format, inner),
        st.builds("date_format(try_to_timestamp({}), 'HH')".format, inner),
        st.builds("md5(cast({} AS BINARY))".format, inner),
        st.builds("to_json(named_struct('a', {}))".format, inner),
        st.builds("CAST({} = {} AS STRING)".format, inner, inner),
    ),
    max_leaves=6,
)
WRAPPED = [text for text, _ in FORBIDDEN if text not in ("*", "struct(*)", "personId and_a_word", "explode(tags)", "sum(price)")]


@FEW
@given(text=TEXTS)
def test_any_nesting_of_allowed_pieces_is_allowed(spark: SparkSession, schema: StructType, text: str) -> None:
    assert check(spark, [Expression("e", text)], schema) == ([StringType()], False)


@FEW
@given(text=TEXTS, bad=st.sampled_from(WRAPPED), data=st.data())
def test_a_forbidden_piece_is_refused_at_any_depth(
    spark: SparkSession, schema: StructType, text: str, bad: str, data: st.DataObject
) -> None:
    leaf = data.draw(
        st.sampled_from([leaf for leaf in ("personId", "userAgent", "'x'", "tags[0]", "price", "extra.slot", "props") if leaf in text])
    )
    with pytest.raises(ConfError):
        check(spark, [Expression("e", text.replace(leaf, f"CAST({bad} AS STRING)"))], schema)


@FEW
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.text("()'\"`*,.:->| aAbprice0195now", max_size=30),
        st.lists(st.sampled_from([*ALLOWED_ONES[3].split(), "(", ")", "now", "`"])).map(" ".join),
    )
)
def test_no_text_raises_anything_but_a_configuration_error(spark: SparkSession, schema: StructType, text: str) -> None:
    try:
        check(spark, [Expression("e", text)], schema)
    except ConfError as error:
        assert str(error).startswith("e: ")


def test_a_very_deep_expression_is_a_configuration_error(spark: SparkSession, schema: StructType) -> None:
    with pytest.raises(ConfError):
        check(spark, [Expression("e", "(" * 5000 + "personId" + ")" * 5000)], schema)
