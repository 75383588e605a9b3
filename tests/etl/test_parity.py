"""Training and scoring see the same numbers: a snapshot's files against the encoding that a scorer gives to the predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.encoding import encoded
from etl.snapshot import write_snapshot
from models.columns import Arrays, Columns
from tests.small import DAY, small_conf

ROWS = 100_000
FEATURES = [
    {"column": "number", "family": "context", "type": "continuous", "transform": "none"},  # names the row
    {"column": "user_id", "family": "user", "type": "hashed", "buckets": 1_000_000},
    {"column": "ad_id", "family": "ad", "type": "hashed", "buckets": 97},
    {"column": "device", "family": "context", "type": "one_hot", "vocabulary": ["phone", "München", "\U0001f642"]},
    {"column": "look", "family": "ad", "type": "dense", "width": 2},
]
# Strings of every kind: missing, empty, unseen by a vocabulary, other scripts, composed and decomposed, beyond the basic plane, long.
TEXTS = {
    "user_id": "CASE id % 6 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN concat('u', id) WHEN 3 THEN concat('Mu\u0308nchen ', id) "
    "WHEN 4 THEN concat('\u6771\u4eac', id, '\U0001f642') ELSE repeat(concat('long-', id), 20) END",
    "ad_id": "concat(' a', id, decode(unhex('0009C2A0'), 'UTF-8'))",
    "device": "CASE id % 5 WHEN 0 THEN 'phone' WHEN 1 THEN 'München' WHEN 2 THEN '\U0001f642' WHEN 3 THEN 'Mu\u0308nchen' END",
}


def examples(spark: SparkSession, conf: Conf) -> DataFrame:
    given = {**TEXTS, "impression_id": "concat('i', id)", "number": "double(id)", "source": "'feed'", "day": f"DATE'{DAY}'"}
    given |= {
        "tower": "IF(id % 9 = 0, 'video', 'feed')",
        "look": "IF(id % 7 = 0, NULL, array(float(id), float(0.5)))",
        "label_click": "int(id % 2)",
    }
    columns = (F.expr(given.get(field.name, "NULL")).cast(field.dataType).alias(field.name) for field in schemas.examples(conf).columns)
    return spark.range(ROWS).select(*columns)


def arrays(layout: Columns, table: pa.Table) -> Arrays:
    """As the model is given them, in the order of `number`."""
    columns = {name: table[name].to_numpy() for name in layout.names}
    order = np.argsort(columns["number"])
    return layout.arrays({name: values[order] for name, values in columns.items()})


def test_a_snapshot_and_a_scorer_give_the_model_the_same_numbers_of_100_000_strings(spark: SparkSession, tmp_path: Path) -> None:
    conf = small_conf(template={"features": FEATURES})
    rows = examples(spark, conf)
    manifest = write_snapshot(rows, conf, tmp_path / "snapshot", examples_version=1, table_id="t", days=(DAY, DAY))
    layout = Columns(conf.template, len(manifest["towers"]))
    trained = arrays(layout, pa.concat_tables(pq.read_table(path) for path in (tmp_path / "snapshot").glob("shard-*.parquet")))
    # A scorer's rows come in other batches, and in an order of their own.
    scored = arrays(layout, encoded(rows.repartition(3, "device"), conf.template, manifest["towers"]).toArrow())
    for name, one, other in zip(Arrays._fields, trained, scored, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    user, ad, device = (trained.ids[:, place] - layout.offsets[place] for place in range(3))
    assert len(trained.tower) == ROWS and (user == 0).sum() == len(range(0, ROWS, 6))
    assert len(np.unique(user)) > 60_000 and set(ad) == set(range(1, 98))
    assert np.bincount(device).tolist() == [20_000] * 5  # missing, unseen (the same word decomposed), and the three known ones
