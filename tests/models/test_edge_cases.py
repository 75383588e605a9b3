"""Snapshots at the edge of what can be learned from: each trains to finite scores or is refused in words, and none hangs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from models.errors import TrainingFailed
from models.predictor import Predictor
from models.trainer import TrainRequest, train
from tests.models.snapshots import SMALL, TRAINING, example_columns, write_snapshot

LABELS = ("label_click", "label_good_click", "label_save")
FRESH = example_columns(60, seed=2)  # of all towers, with ids that no case has met
SECONDS = 30  # far above what any of these takes


def labelled(rows: int, *labels: int) -> dict[str, np.ndarray]:
    """Examples that all have these labels of click, good_click and save; -1 is masked."""
    columns = example_columns(rows) | {"tower": np.arange(rows, dtype=np.int32) % 3}
    return columns | {name: np.full(rows, label, np.int8) for name, label in zip(LABELS, labels, strict=True)}


def request_of(snapshot: Path, bundle: Path, **training: object) -> TrainRequest:
    return TrainRequest(str(snapshot), str(bundle), "model", SMALL, TRAINING.model_copy(update=training), epochs=1, seed=1)


def test_what_can_be_trained_on_ends_with_finite_scores_and_names_the_heads_left_out(tmp_path: Path) -> None:
    cases = [  # what there is to learn from, heads left out
        ("a single row", labelled(1, 1, 1, 0), []),
        ("a single row, not clicked", labelled(1, 0, 0, 0), ["good_click"]),  # given a click, no row tells of a good one
        ("fewer rows than virtual shards", labelled(5, 1, 0, 1), []),
        ("a row more than virtual shards", labelled(9, 1, 0, 1), []),
        ("negatives only", labelled(50, 0, 0, 0), ["good_click"]),
        ("positives only", labelled(50, 1, 1, 1), []),
        ("a head without a label", labelled(50, 1, 0, -1), ["save"]),
        ("a parent without a label", labelled(50, -1, -1, 0), ["click", "good_click"]),
        ("a child without a label", labelled(50, 1, -1, 0), ["good_click"]),
        ("a tower without a row", labelled(50, 1, 0, 1) | {"tower": np.zeros(50, np.int32)}, []),
        ("every number missing", labelled(50, 1, 0, 1) | {"age__missing": np.ones(50, np.int8)}, []),
    ]
    for name, columns, left_out in cases:
        began = time.monotonic()
        result = train(request_of(write_snapshot(tmp_path / name, columns), tmp_path / "model"))
        assert result.left_out == left_out, name
        assert [head for head, loss in result.loss.items() if loss is None] == left_out, name
        log_odds = Predictor(result.bundle_dir).log_odds(FRESH)
        assert log_odds.shape == (60, 3) and np.isfinite(log_odds).all(), name
        assert time.monotonic() - began < SECONDS, name


def test_a_head_of_one_class_is_scored_at_about_its_rate(tmp_path: Path) -> None:
    for label, holds in ((0, lambda p: p < 0.1), (1, lambda p: p > 0.9)):
        train(request_of(write_snapshot(tmp_path / str(label), labelled(400, label, label, label)), tmp_path / "model"))
        log_odds = Predictor(str(tmp_path / "model")).log_odds(FRESH)[:, [0, 2]]  # a click and a save; good_click has no row under label 0
        assert holds(1 / (1 + np.exp(-log_odds))).all(), label


def test_what_cannot_be_trained_on_is_refused_with_what_to_do(tmp_path: Path) -> None:
    nothing = write_snapshot(tmp_path / "no label", labelled(50, -1, -1, -1))
    empty = write_snapshot(tmp_path / "no rows", labelled(8, 1, 1, 1))
    manifest = json.loads((empty / "manifest.json").read_text())
    manifest |= {"rows": 0, "shards": [{"file": None, "rows": 0, "sha256": None}] * 8}
    (empty / "manifest.json").write_text(json.dumps(manifest))
    few = write_snapshot(tmp_path / "two shards", labelled(50, 1, 0, 1), virtual_shards=2)
    cases = [  # snapshot, batch size, what the error says
        (nothing, 64, r"no head has a labelled row in .*; train on more days \(clock.train_days\) or check the labels"),
        (empty, 64, r"holds no rows; nothing can be learned. Train on more days \(clock.train_days\)"),
        (few, 65, r"training.batch_size is 65; the snapshot has 2 virtual shards: make it a multiple of that"),
    ]
    for snapshot, batch_size, message in cases:
        began = time.monotonic()
        with pytest.raises(TrainingFailed, match=message):
            train(request_of(snapshot, tmp_path / "model", batch_size=batch_size))
        assert not (tmp_path / "model").exists()
        assert time.monotonic() - began < SECONDS, snapshot.name


def test_a_single_row_trains_two_real_ranks_of_which_one_has_empty_shards_alone(spark: SparkSession, tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "snapshot", labelled(1, 1, 1, 0))
    alone = train(request_of(snapshot, tmp_path / "one"))
    both = train(request_of(snapshot, tmp_path / "two", backend="horovod_spark", ranks=2, stall_shutdown_seconds=61))
    assert (both.ranks, both.steps, both.left_out) == (2, alone.steps, [])
    assert both.loss == pytest.approx(alone.loss, abs=1e-6)
    assert np.isfinite(Predictor(both.bundle_dir).log_odds(FRESH)).all()
