"""Rows of `examples`, parted by time, as the models of a comparison read them; what a comparison keeps on disk is made here.

A split parts them at two moments: rows shown before the first are learned from, those up to the second choose settings, and then are learned
from too; the rest is judged. Labels of all of them must be final. Everything below one folder, named by what it was made from:

  rows/validate.parquet, rows/test.parquet    impression_id, user_id, tower, label_<head>, and in a simulation c_<head>, p_<head>
  views/<view>/learn, views/<view>/both       training snapshots: of the first part, and of the first two
  views/<view>/validate.parquet, test.parquet impression_id and the encoded columns, row for row those of rows/ (of a view of one tower: its own)
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.arms import ALL_TOWERS, TOWER_FEATURE, View, Which
from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded
from etl.snapshot import write_snapshot
from etl.tables import Pin, TableError, pin, read_days
from etl.truth import has_truth, true_rows, with_truth


@dataclass(frozen=True)
class Split:
    """Of the days `first`..`last`; rows shown from `validate_from` and from `test_from` on (UTC) begin the second and the third part."""

    first: date
    last: date
    validate_from: datetime
    test_from: datetime

    def of(self, rows: DataFrame, which: Which) -> DataFrame:
        shown, middle, end = F.col("shown_at"), F.lit(self.validate_from), F.lit(self.test_from)
        wanted = {"learn": shown < middle, "both": shown < end, "validate": (shown >= middle) & (shown < end), "test": shown >= end}
        return rows.where(wanted[which])


class TrialRows:
    """The rows of one comparison; what is on disk already is kept."""

    def __init__(self, spark: SparkSession, conf: Conf, split: Split, folder: Path) -> None:
        self.spark, self.conf, self.split, self.folder = spark, conf, split, folder
        self.source: Pin = pin(spark, conf.workdir, schemas.examples(conf))

    def examples(self) -> DataFrame:
        table = schemas.examples(self.conf)
        return read_days(self.spark, self.conf.workdir, table, self.split.first, self.split.last, self.source.version)

    def towers(self) -> list[str]:
        """Those of the rows to learn from, sorted. Each part must hold rows."""
        examples = self.examples()
        counts = {which: self.split.of(examples, which).count() for which in ("learn", "validate", "test")}
        if empty := [which for which, rows in counts.items() if not rows]:
            raise TableError(
                f"no rows to {' and '.join(empty)}: of {self.split.first} to {self.split.last} there are {counts}, parted at "
                f"{self.split.validate_from} and {self.split.test_from}; move --from, --split-at or --validate-days"
            )
        return sorted(row["tower"] for row in self.split.of(examples, "learn").select("tower").distinct().collect())

    def facts(self, which: Which) -> Path:
        """Labels, users and (in a simulation) true probabilities of a part, in the order of impression_id."""
        path = self.folder / "rows" / f"{which}.parquet"
        if not path.is_file():
            conf = self.conf
            labels = (F.col(f"label_{head}") for head in conf.heads)
            rows = self.split.of(self.examples(), which).select("impression_id", "user_id", "tower", *labels)
            if has_truth(conf):
                rows = with_truth(rows, true_rows(self.spark, conf, "impressions", self.split.first, self.split.last))
            write_one_file(rows, path)
        return path

    def snapshot(self, view: View, which: Which) -> Path:
        """What a model of that view is trained on."""
        path = self.folder / "views" / view.name / which
        if not (path / "manifest.json").is_file():
            conf = self.conf.model_copy(update={"template": view.template, "heads": view.heads})
            rows = seen_as(self.split.of(self.examples(), which), self.conf, view)
            days = (self.split.first, (self.split.validate_from if which == "learn" else self.split.test_from).date())
            write_snapshot(rows, conf, path, examples_version=self.source.version, table_id=self.source.table_id, days=days)
        return path

    def encoded(self, view: View, which: Which, towers: list[str]) -> Path:
        """The rows of a part as a model with these towers reads them, in the order of impression_id."""
        path = self.folder / "views" / view.name / f"{which}.parquet"
        if not path.is_file():
            rows = seen_as(self.split.of(self.examples(), which), self.conf, view)
            write_one_file(encoded(rows, view.template, towers, keep=("impression_id",)), path)
        return path


def seen_as(rows: DataFrame, conf: Conf, view: View) -> DataFrame:
    """Rows of `examples` as a view has them: fewer towers, one for all, or a child head on the rows of its parent alone."""
    if view.only is not None:
        rows = rows.where(F.col("tower") == view.only)
    if view.merged:
        rows = rows.withColumns({TOWER_FEATURE: F.col("tower"), "tower": F.lit(ALL_TOWERS)})
    for name, head in view.heads.items():
        parent = conf.heads[name].parent
        if parent and head.parent is None:
            rows = rows.withColumn(f"label_{name}", F.when(F.col(f"label_{parent}") == 1, F.col(f"label_{name}")))
    return rows


def write_one_file(rows: DataFrame, path: Path) -> None:
    """Rows in the order of impression_id as one Parquet file, whole or not at all."""
    scratch = path.with_name(f".{path.name}.parts")
    shutil.rmtree(scratch, ignore_errors=True)
    rows.repartition(1).sortWithinPartitions("impression_id").write.parquet(f"file://{scratch.resolve()}")
    (part,) = scratch.glob("part-*.parquet")
    os.replace(part, path)
    shutil.rmtree(scratch)
