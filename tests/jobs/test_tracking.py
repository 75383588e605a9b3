"""What the training stage asks for and tells."""

from __future__ import annotations

from datetime import date

from jobs.train import Plan, reads, record_of
from models.trainer import TrainResult
from tests.small import small_conf


def test_how_a_training_is_followed_and_started_does_not_make_another_model():
    plain = small_conf()
    followed = small_conf(tracking={"tensorboard": False, "mlflow_uri": "sqlite:///x.db"}, training={"backend": "torch", "ranks": 4})
    assert reads(plain) == reads(followed)
    assert reads(plain) != reads(small_conf(training={"learning_rate": 0.5}))


def test_mlflow_is_told_what_decided_and_what_came_of_it():
    conf = small_conf("/work", tracking={"mlflow_uri": "sqlite:///x.db"})
    result = TrainResult(
        "m1", "/work/models/m1", {"click": 0.3, "save": None}, {"click": 1.1, "save": None}, ["save"], 9, 3, 2.0, 4.5, 2, [], []
    )
    record = record_of(conf, Plan(date(2026, 5, 1), date(2026, 5, 9), "m0"), result)
    assert (record.uri, record.experiment, record.name, record.artifacts) == ("sqlite:///x.db", "adtower-small", "m1", "/work/mlflow")
    wanted = {"parent": "m0", "trained_to": "2026-05-09", "left_out": "save", "model.embedding_width": "16", "training.epochs": "1"}
    assert record.parameters.items() >= wanted.items()
    assert record.figures == {
        **{"loss/click": 0.3, "loss/save": None, "ratio/click": 1.1, "ratio/save": None},
        **{"rows": 9, "steps": 3, "seconds": 2.0, "rows_per_second": 4.5},
    }
