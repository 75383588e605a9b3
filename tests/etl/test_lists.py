"""Lists, texts and long vocabularies from rows to scores: what training reads of them is what scoring reads of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from conf.training import ModelConf, Training
from etl import schemas
from etl.scores import with_log_odds
from etl.snapshot import write_snapshot
from models.batches import read_batches
from models.manifest import read_manifest
from models.predictor import load_predictor, predict
from models.trainer import TrainRequest, train
from tests.small import DAY, rows, small_conf

BRANDS = [f"brand {number}" for number in range(100)]
CONF = small_conf(
    template={
        "features": [
            {"column": "ad_age_days", "family": "ad", "type": "continuous", "transform": "none"},  # names the row
            {"column": "user_id", "family": "user", "type": "hashed", "buckets": 50},
            {"column": "topics", "family": "user", "type": "hashed", "buckets": 50, "length": 3, "group": "interests"},
            {"column": "brands", "family": "user", "type": "indexed", "vocabulary": BRANDS, "length": 2, "group": "interests"},
            {"column": "title", "family": "ad", "type": "text", "buckets": 50, "length": 4},
        ]
    }
)
HEADS, TOWERS = list(CONF.heads), ["feed"]


def shown(number: int) -> dict[str, Any]:
    """Of `number % 5` topics, a null among them; every seventh row has neither topics nor title."""
    topics = [*(f"t{place}" for place in range(number % 5)), None][::-1] if number % 7 else None
    return {
        "impression_id": f"i{number}",
        "ad_age_days": float(number),
        "user_id": f"u{number % 9}",
        "topics": topics,
        "brands": [BRANDS[number], "no brand"][: number % 3],
        "title": f"Buy {number} of {number % 4}!" if number % 7 else None,
        "label_click": number % 2,
    }


def test_a_model_scores_lists_in_spark_as_in_the_batches_that_it_learned_from(spark: SparkSession, tmp_path: Path) -> None:
    examples = rows(spark, schemas.examples(CONF), [shown(number) for number in range(64)], label_good_click=0, label_scroll_up=1)
    snapshot, bundle = tmp_path / "snapshot", str(tmp_path / "bundle")
    write_snapshot(examples, CONF, snapshot, examples_version=0, table_id="t", days=(DAY, DAY))
    learned = pa.concat_tables(pq.read_table(path) for path in sorted(snapshot.glob("*.parquet")))
    assert {str(learned.schema.field(name).type) for name in ("topics__2", "brands__1", "title__3")} == {"int32"}

    small = ModelConf(embedding_width=4, bottom_widths=(8,), tower_widths=(4,))
    train(TrainRequest(str(snapshot), bundle, "m1", small, Training(backend="single", ranks=1, batch_size=16), epochs=2, seed=1))
    predictor = load_predictor(bundle)
    wanted: dict[float, np.ndarray] = {}
    for batch in read_batches(read_manifest(snapshot), 16, range(8), epoch=0, seed=1):
        log_odds = predictor.model(batch.features).detach().numpy()
        wanted |= dict(zip(batch.features.continuous_BC[:, 0].tolist(), log_odds, strict=True))

    found = with_log_odds(examples, CONF.template, TOWERS, HEADS, partial(predict, bundle), keep=("ad_age_days",)).collect()
    assert sorted(row["ad_age_days"] for row in found) == sorted(wanted) == list(range(64))
    for row in found:
        assert [row[f"logit_{head}"] for head in HEADS] == pytest.approx(wanted[row["ad_age_days"]], abs=1e-6)
    of_topics = predictor.model.columns.embedded[1]
    untold = {name: np.zeros(64, np.int32) for name in of_topics.id_columns}
    columns = {name: learned[name].to_numpy() for name in learned.column_names}
    changed = (predictor.log_odds(columns) != predictor.log_odds(columns | untold)).any(axis=1)
    assert sorted(learned["ad_age_days"].to_numpy()[~changed]) == [n for n in range(64) if n % 7 == 0 or n % 5 == 0]  # no topic told
