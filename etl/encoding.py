"""Template -> numbers: the one implementation, for training and for scoring. Native Spark functions only.

Columns of a feature `c`:
  continuous      `c` float (0.0 where missing), `c__missing` tinyint (1 = missing); values stay raw, the model transforms them
  hashed          `c` int: 0 missing, else 1 + pmod(xxhash64(value as a string, 'c'), buckets)
  one_hot,        `c` int: 0 missing, 1 unseen, 2 ... the vocabulary in its order
  indexed
  list, length k  `c__0` ... `c__{k-1}` int: such ids of its first k elements; 0 where an element is null or there is none
  text, length k  the same of its first k tokens, hashed
  dense, width w  `c__0` ... float (0.0 where the vector is missing), `c__missing` tinyint
and last `tower` int: place in the list of towers, -1 for a tower that is not in it. None of them is ever null. A list is a column a place,
since Petastorm reads columns of lists eight times slower.

NaN and infinity are missing. A vector of another length than the template's, or with a number missing, is missing as a whole.
Spark's xxhash64 starts from seed 42 and takes each column's hash as the seed of the next; tests/etl/test_encoding.py holds a golden list of
it, since ids that move after an upgrade would silently scramble every embedding.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from conf.segments import code_column
from conf.template import EMBEDDED, Feature, Template
from etl.schemas import feature_type

TOWER = "tower"
INFINITY = float("inf")
#: A token of a text in lower case: letters, marks (without which words of many scripts fall apart) and digits.
TOKEN = r"[\p{L}\p{M}\p{N}]+"
# A map is searched from its beginning to its end: a longer vocabulary is cut into maps of a few values by hash.
LONGEST_MAP, VALUES_A_MAP = 64, 2


class EncodingError(ValueError):
    """The rows and the feature template do not fit together."""


def encoded_columns(template: Template) -> list[str]:
    """The columns that `encoded` makes, in its order."""
    names = [name for feature in template.features for name in _names(feature)] + [TOWER]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EncodingError(
            f"encoded columns {twice} would exist twice; `tower`, `c__missing` and `c__0` are taken: rename the feature's column"
        )
    return names


def encoded(frame: DataFrame, template: Template, towers: Sequence[str], keep: Iterable[str] = ()) -> DataFrame:
    """One row in, one row out: the columns `keep` as they are, then `encoded_columns(template)`.

    A feature of family `serving` that `frame` lacks (inventory does: it is known only once served) is missing in every row.
    """
    keep = list(keep)
    names = encoded_columns(template)
    _require_columns(frame, template, keep, names)
    present = set(frame.columns)
    # Two projections: the second reads a cleaned value several times, and Spark would otherwise clean it as often.
    clean = [_cleaned(feature, feature.column in present).alias(_clean_name(feature)) for feature in template.features]
    cleaned = frame.select(*keep, *clean, F.col(TOWER).alias(f"__clean_{TOWER}"))
    values = [value for feature in template.features for value in _encoded(feature)]
    tower = F.coalesce(_place_in(towers, F.col(f"__clean_{TOWER}")), F.lit(-1))
    return cleaned.select(*keep, *(value.alias(name) for name, value in zip(names, [*values, tower], strict=True)))


def _names(feature: Feature) -> list[str]:
    if feature.type in EMBEDDED:
        return list(feature.id_columns)
    numbers = [f"{feature.column}__{place}" for place in range(feature.width)] if feature.type == "dense" else [feature.column]
    return [*numbers, f"{feature.column}__missing"]


def _clean_name(feature: Feature) -> str:
    return f"__clean_{feature.column}"


def _cleaned(feature: Feature, present: bool) -> Column:
    """The feature's value in its own type, null where it is missing; of a text its tokens."""
    value = F.col(feature.column) if present else F.lit(None).cast(feature_type(feature))
    if feature.type == "continuous":
        number = value.cast("float")
        return F.when(F.abs(number) < INFINITY, number)  # Spark orders NaN above infinity
    if feature.type == "dense":
        # Not forall: a lambda is not compiled. array_contains is null where the value is not found and a null is among the numbers.
        numbers = value.cast("array<float>")
        infinite = F.array_contains(numbers, F.lit(INFINITY).cast("float"))
        whole = ~infinite & (F.array_max(numbers) < INFINITY) & (F.array_min(numbers) > -INFINITY)
        return F.when((F.size(value) == feature.width) & whole, numbers)
    if feature.type == "text":
        return tokens(value.cast("string"))
    return value.cast("array<string>" if feature.is_list else "string")


def tokens(text: Column) -> Column:
    """Those of a text, in its order: an array<string>, null where the text is."""
    return F.regexp_extract_all(F.lower(text), F.lit(TOKEN), F.lit(0))


def _encoded(feature: Feature) -> list[Column]:
    clean = F.col(_clean_name(feature))
    missing = clean.isNull().cast("tinyint")
    zero = F.lit(0.0).cast("float")
    if feature.type == "continuous":
        return [F.coalesce(clean, zero), missing]
    if feature.type == "dense":
        return [*(F.coalesce(F.get(clean, F.lit(place)), zero) for place in range(feature.width)), missing]
    values = [F.get(clean, F.lit(place)) for place in range(feature.length)] or [clean]
    return [F.coalesce(F.when(value.isNotNull(), _id(feature, value)), F.lit(0)) for value in values]


def _id(feature: Feature, value: Column) -> Column:
    """The id of a value that is there."""
    if feature.vocabulary:
        return F.coalesce(_place_in(feature.vocabulary, value) + 2, F.lit(1))
    return F.pmod(F.xxhash64(value, F.lit(feature.column)), F.lit(feature.buckets)).cast("int") + 1


def with_codes(frame: DataFrame, segments: Mapping[str, Sequence[str]]) -> DataFrame:
    """Add `code_column(feature)` (int) of each feature of `segments`: place of the row's value among the feature's, -1 if none or missing."""
    codes = {code_column(feature): F.coalesce(_place_in(values, F.col(feature)), F.lit(-1)) for feature, values in segments.items()}
    return frame.withColumns(codes) if codes else frame


def _place_in(values: Sequence[str], value: Column) -> Column:
    """0-based int place of `value` in the list; null where it is not there.

    A long list comes as one text, which Spark reads once a query, since a Column a value costs the driver 1.4 ms. 2 million rows and 1,000 values
    take .6 s so, 2.9 s as one map (2 cores); a vocabulary of 100,000 takes 3 s a query, for each place of a list.
    """
    if not values:
        return F.lit(None).cast("int")
    if len(values) <= LONGEST_MAP:
        return F.create_map(*(F.lit(part) for place, name in enumerate(values) for part in (name, place)))[value]
    maps: list[dict[str, int]] = [{} for _ in range(len(values) // VALUES_A_MAP)]
    for place, name in enumerate(values):
        maps[zlib.crc32(name.encode()) % len(maps)][name] = place
    known = F.from_json(F.lit(json.dumps(maps)), "array<map<string,int>>")
    return F.get(known, F.pmod(F.crc32(value), F.lit(len(maps))).cast("int"))[value]


def _require_columns(frame: DataFrame, template: Template, keep: Sequence[str], names: Sequence[str]) -> None:
    served_later = {feature.column for feature in template.of_family("serving")}
    needed = [TOWER, *keep, *(feature.column for feature in template.features if feature.column not in served_later)]
    missing = sorted(set(needed) - set(frame.columns))
    if missing:
        raise EncodingError(f"the rows lack {missing}, which the feature template or the job reads; present: {sorted(frame.columns)}")
    _require_lists(frame, template)
    clashing = sorted(set(keep) & set(names))
    if clashing:
        raise EncodingError(f"columns {clashing} are kept and encoded under one name; keep them under another")


def _require_lists(frame: DataFrame, template: Template) -> None:
    """A list as one text, or a text as a list, would be read as nonsense without an error."""
    arrays = {field.name: isinstance(field.dataType, ArrayType) for field in frame.schema}
    for feature in template.features:
        wanted = feature_type(feature)
        needed = isinstance(wanted, ArrayType)
        if arrays.get(feature.column, needed) != needed:
            found = frame.schema[feature.column].dataType.simpleString()
            mend = "make it a list, or read it without `length` or `width`" if needed else "read it with a `length`"
            raise EncodingError(f"column {feature.column} is {found}, and the feature {feature.type} reads {wanted.simpleString()}; {mend}")
