"""Expressions of the configuration, checked against an allow-list before any data is read.

An expression may compute with the columns of its own row, and in a window with the other rows of its block; nothing else. It cannot call
code that is not Spark's own, read another table or file, or see the clock, the user or chance: a night must come out the same when run again.
Checked twice: as parsed (every function by name, every column by name, every other piece by class), and as Spark understood it with the
types of the columns (no row more or less, no hidden clock). Errors are ConfError and name the place, such as `sources.feed.columns.ad_id`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from conf.load import ConfError

# pyspark prints each error that it hands over, with Java's stack; ours say the same in words.
logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)

#: Built-in functions that follow from their arguments alone, by kind as the error names them.
FUNCTIONS = {
    "conditions": """and or not between in isnull isnotnull isnan equal_null like ilike regexp regexp_like rlike coalesce if ifnull nanvl nullif
        nullifzero nvl nvl2 when zeroifnull""",
    "arithmetic": """abs acos acosh asin asinh atan atan2 atanh bin bround cbrt ceil ceiling conv cos cosh cot csc degrees div e exp expm1
        factorial floor greatest hex hypot least ln log log10 log1p log2 mod negative pi pmod positive pow power radians rint round sec sign
        signum sin sinh sqrt tan tanh try_add try_divide try_mod try_multiply try_subtract unhex width_bucket bit_count bit_get getbit
        shiftleft shiftright shiftrightunsigned""",
    "casts": "bigint binary boolean cast date decimal double float int smallint string timestamp tinyint",
    "date and time": """add_months convert_timezone date_add date_diff date_format date_from_unix_date date_part date_sub date_trunc dateadd
        datediff datepart day dayname dayofmonth dayofweek dayofyear extract from_unixtime from_utc_timestamp hour last_day make_date
        make_dt_interval make_interval make_timestamp make_timestamp_ltz make_timestamp_ntz make_ym_interval minute month monthname
        months_between next_day quarter second timestamp_micros timestamp_millis timestamp_seconds to_date to_timestamp to_timestamp_ltz
        to_timestamp_ntz to_unix_timestamp to_utc_timestamp trunc try_make_interval try_make_timestamp try_make_timestamp_ltz
        try_make_timestamp_ntz try_to_timestamp unix_date unix_micros unix_millis unix_seconds unix_timestamp weekday weekofyear year""",
    "text": """ascii base64 bit_length btrim char char_length character_length chr concat concat_ws contains decode elt encode endswith
        find_in_set format_number format_string initcap instr is_valid_utf8 lcase left len length levenshtein locate lower lpad ltrim luhn_check
        make_valid_utf8 mask octet_length overlay position printf regexp_count regexp_extract regexp_extract_all regexp_instr regexp_replace
        regexp_substr repeat replace reverse right rpad rtrim sentences soundex space split split_part startswith substr substring
        substring_index to_binary to_char to_number to_varchar translate trim try_to_binary try_to_number try_validate_utf8 ucase unbase64 upper
        parse_url try_parse_url try_url_decode url_decode url_encode""",
    "hashing": "crc32 hash md5 sha sha1 sha2 xxhash64",
    "json": """from_json get_json_object json_array_length json_object_keys to_json parse_json try_parse_json variant_get try_variant_get
        is_variant_null from_csv to_csv""",
    "arrays, maps, structs": """array array_append array_compact array_contains array_distinct array_except array_insert array_intersect
        array_join array_max array_min array_position array_prepend array_remove array_repeat array_size array_union arrays_overlap arrays_zip
        cardinality element_at flatten get sequence size slice sort_array try_element_at aggregate array_sort exists filter forall map_filter
        map_zip_with reduce transform transform_keys transform_values zip_with map map_concat map_contains_key map_entries map_from_arrays
        map_from_entries map_keys map_values str_to_map named_struct struct typeof""",
    "windows": """cume_dist dense_rank lag lead nth_value ntile percent_rank rank row_number any any_value approx_count_distinct
        approx_percentile array_agg avg bit_and bit_or bit_xor bool_and bool_or collect_list collect_set corr count count_if covar_pop
        covar_samp every first first_value kurtosis last last_value max max_by mean median min min_by mode percentile percentile_approx
        percentile_cont percentile_disc skewness some std stddev stddev_pop stddev_samp sum try_avg try_sum var_pop var_samp variance""",
}
ALLOWED = frozenset(name for names in FUNCTIONS.values() for name in names.split())

#: What the parser makes of operators and clauses, by Spark's class names. UnresolvedFunction and UnresolvedAttribute are looked up by name.
_CLASSES = """UnresolvedFunction UnresolvedAttribute UnresolvedNamedLambdaVariable UnresolvedExtractValue LambdaFunction Literal Cast CaseWhen And Or
    Not EqualTo EqualNullSafe LessThan LessThanOrEqual GreaterThan GreaterThanOrEqual In IsNull IsNotNull IsTrue IsFalse Like LikeAll LikeAny
    NotLikeAll NotLikeAny RLike Lower Add Subtract Multiply Divide IntegralDivide Remainder UnaryMinus UnaryPositive BitwiseAnd BitwiseOr
    BitwiseXor BitwiseNot Concat CreateNamedStruct NamePlaceholder$ CreateStruct StringTrim StringTrimLeft StringTrimRight StringTrimBoth
    Substring StringLocate Overlay TimestampAdd TimestampDiff MultiUnitsInterval WindowExpression WindowSpecDefinition SortOrder
    SpecifiedWindowFrame UnspecifiedFrame$ UnboundedPreceding$ UnboundedFollowing$ CurrentRow$ RowFrame$ RangeFrame$"""
CLASSES = frozenset(_CLASSES.split())
PLANS = frozenset({"Project", "Window", "LocalRelation"})
CLOCKS = re.compile(r"\b(date|timestamp\w*)(\s|/\*.*?\*/|--[^\n]*\n)*r?['\"]\s*(now|today|tomorrow|yesterday)", re.IGNORECASE | re.DOTALL)
CLOCK_WORD = re.compile(r"\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
WHY = {
    "UnresolvedStar": "`*`; name the columns",
    "UnresolvedWindowExpression": "a window by name; write its PARTITION BY and ORDER BY out",
    "Alias": "a name after the expression (AS, or a stray word); the key before it is its name",
    "NamedParameter": "a parameter; write its value",
    "PosParameter": "a parameter; write its value",
    **dict.fromkeys(
        ("ScalarSubquery", "InSubquery", "ListQuery", "Exists"), "a subquery; an expression sees the rows of its own block only"
    ),
}


@dataclass(frozen=True)
class Expression:
    """`place` is its address in the configuration, `text` the Spark SQL; `windows`: whether it may look at other rows."""

    place: str
    text: str
    windows: bool = True


def check(spark: SparkSession, expressions: Sequence[Expression], schema: StructType) -> tuple[list[DataType], bool]:
    """The type of each expression over rows of `schema`, and whether one uses a window. Raises ConfError for the first that is not allowed."""
    if not expressions:
        return [], False
    empty, windowed = _empty(spark, schema), False
    for expression in expressions:
        pieces = _parsed(spark, expression)
        for piece in pieces:
            _allow(spark, expression, piece, schema.names)
        if any(piece["class"] == "WindowExpression" for piece in pieces):
            if not expression.windows:
                raise _refused(expression, "a window (OVER); put it under `derive` and use the derived name here")
            windowed = True
    try:
        return _analyse(empty, expressions), windowed
    except (PySparkException, Py4JError, ConfError):
        for expression in expressions:  # one at a time, to name the one at fault
            _understood(empty, expression)
        raise


def references(spark: SparkSession, expression: Expression, columns: Sequence[str]) -> set[str]:
    """Names of the columns, of `columns`, that the expression reads; in small letters."""
    paths = [piece["nameParts"][1:-1].lower() for piece in _parsed(spark, expression) if piece["class"] == "UnresolvedAttribute"]
    known = [column.lower() for column in columns]
    return {column for path in paths for column in known if path == column or path.startswith(f"{column}, ")}


def _empty(spark: SparkSession, schema: StructType) -> DataFrame:
    jvm, session = spark._jvm, spark._jsparkSession
    assert jvm is not None
    return DataFrame(
        session.createDataFrame(jvm.java.util.ArrayList(), jvm.org.apache.spark.sql.types.DataType.fromJson(schema.json())), spark
    )


def _parsed(spark: SparkSession, expression: Expression) -> list[dict[str, Any]]:
    """The pieces of the expression as the parser sees them, each with its class (without package), in one call to the JVM."""
    if CLOCKS.search(expression.text):
        raise _refused(expression, "the clock (date or timestamp 'now', 'today', ...); a night must come out the same when it is run again")
    try:
        tree = spark._jsparkSession.sessionState().sqlParser().parseExpression(expression.text).toJSON()
    except Exception as error:  # the parser's own, a StackOverflowError of a deep one: py4j hands over each as another class
        raise ConfError(f"{expression.place}: {expression.text!r} cannot be read as Spark SQL: {first_line(error)}") from None
    return list(_nodes(json.loads(tree)))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield {**tree, "class": tree["class"].rsplit(".", 1)[-1]}
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)


def _allow(spark: SparkSession, expression: Expression, piece: dict[str, Any], columns: Sequence[str]) -> None:
    kind = piece["class"]
    if kind not in CLASSES:
        raise _refused(expression, WHY.get(kind, kind))
    if kind == "UnresolvedFunction":
        name = piece["nameParts"][1:-1]
        if name.lower() not in ALLOWED:
            near = get_close_matches(name.lower(), ALLOWED, n=1, cutoff=0.75)
            raise _refused(expression, f"the function `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        if not _built_in(spark, name):
            raise _refused(expression, f"a function registered in this session that hides Spark's own `{name}`")
    if kind == "UnresolvedAttribute":
        path = piece["nameParts"][1:-1].lower()
        if not any(path == column.lower() or path.startswith(f"{column.lower()}, ") for column in columns):
            raise ConfError(f"{expression.place}: {expression.text!r} reads `{path.replace(', ', '.')}`; {nearest(path, columns)}")


def nearest(name: str, columns: Sequence[str]) -> str:
    """Which columns there are, and the one that may be meant."""
    longer = [column.lower() for column in columns if column.lower().startswith(name.lower()) or name.lower().startswith(column.lower())]
    near = longer[:1] or get_close_matches(name.lower(), [column.lower() for column in columns], n=1)
    return (f"did you mean `{near[0]}`? " if near else "") + f"columns here: {', '.join(columns)}"


def _built_in(spark: SparkSession, name: str) -> bool:
    """Whether the session calls Spark's own function of this name, or one that was registered over it."""
    jvm = spark._jvm
    assert jvm is not None
    identifier = jvm.org.apache.spark.sql.catalyst.FunctionIdentifier(name.lower())
    here = spark._jsparkSession.sessionState().functionRegistry().lookupFunction(identifier)
    own = jvm.org.apache.spark.sql.catalyst.analysis.FunctionRegistry.builtin().lookupFunction(identifier)
    return bool(own.isDefined() and here.isDefined() and own.get().getClassName() == here.get().getClassName())


def _analyse(empty: DataFrame, expressions: Sequence[Expression]) -> list[DataType]:
    """The types, by Spark's own understanding: raises what Spark raises; then nothing but projections and windows may be in it."""
    frame = empty.select(*(F.expr(expression.text).alias(f"e{number}") for number, expression in enumerate(expressions)))
    plan = frame._jdf.queryExecution().analyzed()
    nodes = json.loads(plan.toJSON())
    foreign = sorted({kind for kind in (node["class"].rsplit(".", 1)[-1] for node in nodes) if kind not in PLANS})
    asked = expressions[0]
    if "Aggregate" in foreign:
        raise _refused(asked, "an aggregate over no window; write OVER (PARTITION BY …) after it, and put it under `derive`")
    if foreign:
        raise _refused(asked, f"something that changes the number of rows ({', '.join(foreign)})")
    for node in nodes:
        for tree in _trees(node):
            _no_clock(asked, tree)
    return [field.dataType for field in frame.schema.fields]


def _trees(node: Any) -> Iterator[list[dict[str, Any]]]:
    """Every expression tree of a plan node: a list of nodes, parents before children."""
    if isinstance(node, list) and node and isinstance(node[0], dict) and "num-children" in node[0]:
        yield node
    for part in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from _trees(part)


def _no_clock(expression: Expression, tree: Sequence[dict[str, Any]]) -> None:
    """Refuse what reads the wall clock unseen: a function without arguments, and a constant text that Spark reads as the current time."""
    for place, node in enumerate(tree):
        kind = node["class"].rsplit(".", 1)[-1]
        if kind.startswith(("Current", "Now", "LocalTimestamp")) and kind != "CurrentRow$":
            raise _refused(expression, f"the clock or the session ({kind})")
        to_time = kind in ("ParseToDate", "ParseToTimestamp") or (
            kind == "Cast" and str(node.get("dataType")).startswith(("date", "timestamp"))
        )
        if to_time and any(_is_clock_word(part) for part in tree[place : place + 2]):
            raise _refused(expression, "the clock ('now', 'today', 'tomorrow' or 'yesterday' as a time)")


def _is_clock_word(node: dict[str, Any]) -> bool:
    return node["class"].endswith(".Literal") and node.get("dataType") == "string" and bool(CLOCK_WORD.match(str(node.get("value"))))


def _understood(empty: DataFrame, expression: Expression) -> None:
    try:
        _analyse(empty, [expression])
    except (PySparkException, Py4JError) as error:
        raise ConfError(
            f"{expression.place}: {expression.text!r} does not fit the columns: {first_line(error)}; columns: {empty.schema.simpleString()}"
        ) from None


def _refused(expression: Expression, what: str) -> ConfError:
    return ConfError(
        f"{expression.place}: {expression.text!r} uses {what}. Allowed: Spark's built-in functions of {', '.join(FUNCTIONS)} (listed in "
        "etl/expressions.py), over the columns of the same block"
    )


def first_line(error: Exception) -> str:
    """What an error says in one line; of one that came from Java, its innermost cause."""
    text = str(error)
    if isinstance(error, Py4JJavaError):
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        text = str(cause.getMessage() or cause.getClass().getSimpleName())
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
