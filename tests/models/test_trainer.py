"""Training in one process: it learns, it repeats itself, it fails in words."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from conf.template import Template
from models import bundle
from models.errors import TrainingFailed
from models.metrics import Bins, auc
from models.predictor import Predictor
from models.trainer import TrainRequest, TrainResult, train
from tests.models.snapshots import HEADS, SMALL, TEMPLATE, TRAINING, example_columns, known_rows, write_snapshot

EXAMPLES = example_columns(6000)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("snapshots") / "six-thousand", EXAMPLES)


def request_of(snapshot: Path, bundle_dir: Path, **changes: object) -> TrainRequest:
    request = TrainRequest(str(snapshot), str(bundle_dir), "model", SMALL, TRAINING, epochs=1, seed=1)
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


def auc_of(predictor: Predictor, columns: dict[str, np.ndarray], head: str) -> float:
    rows = known_rows(columns, HEADS, head)
    log_odds = predictor.log_odds(columns)[rows, list(HEADS).index(head)]
    found = auc(Bins.of(log_odds, np.ones(len(log_odds)), columns[f"label_{head}"][rows]))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def trained(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(request_of(snapshot, tmp_path_factory.mktemp("models") / "model"))


def test_one_epoch_learns_a_planted_signal(trained: TrainResult):
    fresh, predictor = example_columns(3000, seed=2), Predictor(trained.bundle_dir)
    assert auc_of(predictor, fresh, "click") > 0.7
    assert auc_of(predictor, fresh, "good_click") > 0.7
    assert trained.loss["click"] is not None
    assert trained.loss["click"] < 0.6


def test_the_reported_loss_and_ratio_are_over_rows_that_the_head_counts(snapshot: Path, tmp_path: Path):
    # With steps of no size, every batch is measured by the model that training starts from.
    still = TRAINING.model_copy(update={"learning_rate": 1e-30, "embedding_learning_rate": 1e-30, "linear_learning_rate": 1e-30})
    result = train(request_of(snapshot, tmp_path / "still", training=still))
    log_odds = Predictor(result.bundle_dir).log_odds(EXAMPLES)
    for h, head in enumerate(HEADS):
        rows = known_rows(EXAMPLES, HEADS, head)
        z, label = log_odds[rows, h], EXAMPLES[f"label_{head}"][rows]
        assert result.loss[head] == pytest.approx((np.logaddexp(0, z) - z * label).mean(), rel=1e-4)
        assert result.ratio[head] == pytest.approx((1 / (1 + np.exp(-z))).sum() / label.sum(), rel=1e-4)


def test_training_counts_its_rows_and_steps(trained: TrainResult):
    assert (trained.rows, trained.steps, trained.ranks) == (6000, 94, 1)  # 750 rows a shard, 8 a step
    assert json.loads(json.dumps(dataclasses.asdict(trained))) == dataclasses.asdict(trained)


def test_the_same_training_gives_the_same_bytes(snapshot: Path, trained: TrainResult, tmp_path: Path):
    train(request_of(snapshot, tmp_path / "again"))
    assert (tmp_path / "again" / bundle.WEIGHTS).read_bytes() == (Path(trained.bundle_dir) / bundle.WEIGHTS).read_bytes()


def test_a_child_head_learns_from_rows_whose_parent_happened_alone(snapshot: Path, trained: TrainResult, tmp_path: Path):
    no_click = EXAMPLES["label_click"] == 0
    nonsense = np.where(no_click, 1, EXAMPLES["label_good_click"]).astype(np.int8)
    other = write_snapshot(tmp_path / "nonsense", EXAMPLES | {"label_good_click": nonsense})
    train(request_of(other, tmp_path / "model"))
    assert (tmp_path / "model" / bundle.WEIGHTS).read_bytes() == (Path(trained.bundle_dir) / bundle.WEIGHTS).read_bytes()


def test_a_row_of_weight_two_is_two_rows(tmp_path: Path):
    some = {name: values[:256] for name, values in EXAMPLES.items()}
    whole_batch = TRAINING.model_copy(update={"batch_size": 1024})
    twice = {name: np.concatenate([values, values]) for name, values in some.items()}
    results = [
        train(request_of(write_snapshot(tmp_path / name, columns), tmp_path / f"{name}-model", training=whole_batch, epochs=3))
        for name, columns in (("weighted", some | {"weight": np.full(256, 2, np.float32)}), ("twice", twice))
    ]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)


def test_a_downsampled_snapshot_trains_a_model_whose_mean_prediction_is_the_full_datas(tmp_path: Path):
    quiet = (EXAMPLES["label_click"] != 1) & (EXAMPLES["label_save"] != 1)  # a good click is a click
    kept = ~quiet | (np.random.default_rng(3).random(6000) < 0.25)
    weighing = EXAMPLES | {"weight": np.where(quiet, 4, 1).astype(np.float32)}
    shared = Template(features=TEMPLATE.of_type("continuous", "one_hot"))  # no ids, which would learn rows by heart
    means = {}
    for name, rows in (("full", np.ones(6000, bool)), ("sampled", kept)):
        columns = {column: values[rows] for column, values in (EXAMPLES if name == "full" else weighing).items()}
        result = train(request_of(write_snapshot(tmp_path / name, columns, shared), tmp_path / f"{name}-model", epochs=4))
        means[name] = (1 / (1 + np.exp(-Predictor(result.bundle_dir).log_odds(EXAMPLES)))).mean(0)
    assert kept.mean() < 0.6
    assert means["sampled"] == pytest.approx(means["full"], rel=0.1)
    unweighted = EXAMPLES["label_click"][kept].mean()  # what a model of the kept rows would predict without weights
    assert unweighted > 1.5 * means["full"][list(HEADS).index("click")]


def test_a_head_without_a_label_is_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    columns = example_columns(400) | {"label_save": np.full(400, -1, np.int8)}
    result = train(request_of(write_snapshot(tmp_path / "snapshot", columns), tmp_path / "model"))
    assert result.left_out == ["save"]
    assert result.loss["save"] is None
    assert result.ratio["save"] is None
    assert result.loss["click"] is not None
    assert "no labelled row for save; left out" in capsys.readouterr().err
    assert np.isfinite(Predictor(result.bundle_dir).log_odds(columns)).all()


def test_a_failed_training_says_why_and_leaves_no_bundle(snapshot: Path, tmp_path: Path):
    wild = TRAINING.model_copy(update={"learning_rate": 1e30, "embedding_learning_rate": 1e30, "linear_learning_rate": 1e30})
    cases = [  # request, what the error says
        (request_of(tmp_path / "nowhere", tmp_path / "model"), r"rank 0 of 1: SnapshotUnreadable: .*manifest.json"),
        (request_of(snapshot, tmp_path / "model", training=wild), r"not finite at step \d+ .*lower training.learning_rate"),
    ]
    for request, message in cases:
        with pytest.raises(TrainingFailed, match=message):
            train(request)
        assert not (tmp_path / "model").exists()


def test_progress_goes_to_stderr_and_stdout_stays_empty(snapshot: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    train(request_of(snapshot, tmp_path / "model"))
    out, err = capfd.readouterr()
    assert out == ""
    last = next(line for line in err.splitlines() if line.startswith("train: step 94/94, "))
    assert re.search(r"[\d,]+ rows/s, \d+ s, 0 s left; loss and predicted/observed: click \d\.\d{4} x\d\.\d\d, good_click \d\.", last)


def test_a_template_may_have_numbers_alone_or_ids_alone(tmp_path: Path):
    columns = example_columns(300)
    for name, types in (("numbers", ("continuous",)), ("ids", ("hashed", "one_hot")), ("vectors", ("dense",))):
        template = Template(features=TEMPLATE.of_type(*types))
        result = train(request_of(write_snapshot(tmp_path / name, columns, template=template), tmp_path / f"{name}-model"))
        assert np.isfinite(Predictor(result.bundle_dir).log_odds(columns)).all()
