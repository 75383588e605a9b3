"""Columns that the configuration could give and no table has yet -> features in draft, so that tables can be made to hold them.

Ingest takes only columns that the feature template names, so a column that is new in a source has no values to look at. A draft has the type
that its expression has, which fixes the table's column; buckets, width, length and transform are chosen once its values can be profiled. Reads file
headers where a block names no raw_schema, no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import AtomicType, DataType

from conf.schema import Conf
from conf.source import Source
from conf.template import Family, Feature
from etl import schemas
from etl.canonical import expression_types
from etl.landing import files_by_day
from etl.profile import kind_of
from etl.proposal import Proposal
from etl.raw import Block, look_at

DRAFT = "a draft: no table holds it yet; run jobs/migrate.py, build the days to train on again, and profile again"
DRAFTED_TEXT: dict[str, Any] = {"type": "hashed", "buckets": 1000}
DRAFTED: dict[str, dict[str, Any]] = {
    "number": {"type": "continuous"},
    "numbers": {"type": "dense", "width": 1},
    "texts": DRAFTED_TEXT | {"length": 1},
}
FAMILIES: dict[str, Family] = {"users": "user", "ads": "ad", "impressions": "context"}


def unheld(conf: Conf) -> dict[str, tuple[str, ...]]:
    """Block -> columns that it gives and its table does not hold; a column that several blocks give is the first one's."""
    tables, taken, found = schemas.all_tables(conf), set(conf.template.left_out), {}
    for name, source in conf.sources.items():
        if source.kind in FAMILIES:
            new = tuple(column for column in source.columns if column not in tables[source.kind].schema.names and column not in taken)
            found[name] = new
            taken |= set(new)
    return {name: columns for name, columns in found.items() if columns}


def uncounted(conf: Conf) -> list[str]:
    """History features that the template does not name: of each key how often it was shown, and each top head's rate."""
    top = [head for head, spec in conf.heads.items() if spec.parent is None]
    possible = [f"{key}_{what}" for key in conf.history.keys for what in ("impressions", *(f"{head}_rate" for head in top))]
    known = {feature.column for feature in conf.template.features} | set(conf.template.left_out)
    return [name for name in possible if name not in known]


def drafts(spark: SparkSession, conf: Conf, first: date, last: date) -> Iterator[Proposal]:
    """A draft of each, or why there is none. Where a file header is needed, it is that of the first file found for days `first`..`last`."""
    for name, columns in unheld(conf).items():
        source = conf.sources[name]
        found = files_by_day(spark, conf, source, first, last)
        files = () if source.raw_schema else tuple(file.path for day in found for file in found[day])[:1]
        types, _ = expression_types(spark, look_at(spark, Block(name, source, files)))
        yield from (_draft(column, family_of(conf, source, column), types[column].dataType) for column in columns)
    for column in uncounted(conf):
        yield Proposal(column, Feature(column=column, family="history", type="continuous", reason=DRAFT), DRAFT)


def family_of(conf: Conf, source: Source, column: str) -> Family:
    """Of an impression's column: context if an inventory gives it too, else it is known only once the ad is served."""
    inventories = [block for block in conf.sources.values() if block.kind == "inventory"]
    if source.kind == "impressions" and inventories and not any(column in block.columns for block in inventories):
        return "serving"
    return FAMILIES[source.kind]


def _draft(column: str, family: Family, stored: DataType) -> Proposal:
    kind = kind_of(stored)
    if kind == "other" and not isinstance(stored, AtomicType):  # a truth value or a date has a text, a map has none
        return Proposal(column, None, f"its expression is {stored.simpleString()}, which no type of feature reads")
    if kind == "texts" and family == "serving":
        return Proposal(column, None, "its expression is a list, and the serving term reads single values")
    return Proposal(column, Feature(column=column, family=family, reason=DRAFT, **DRAFTED.get(kind, DRAFTED_TEXT)), DRAFT)
