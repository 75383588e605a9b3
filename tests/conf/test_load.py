"""What a configuration may say, and how it is told that it may not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conf.load import ConfError, load, load_text
from tests.small import small_conf

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml") if not path.stem.endswith("template")))
def test_every_shipped_configuration_loads(name: str) -> None:
    assert load(CONF / f"{name}.yaml").name == name.removesuffix(".example")


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfError, match="training: unknown key `batchsize`; did you mean `batch_size`"):
        small_conf(training={"batchsize": 256})


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        small_conf().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"training": {"ranks": 3}}, "training.ranks is 3 and does not divide virtual_shards 8"),
        ({"training": {"batch_size": 100}}, "make it a multiple of virtual_shards 8"),
        ({"heads": {"good": {"action": "click", "parent": "click"}}}, "names parent click, which is no head"),
        ({"heads": {"b": {"action": "x", "parent": "a"}, "a": {"action": "x"}}}, "list the parent first"),
        ({"template": {"features": [{"column": "c", "family": "user", "type": "hashed"}]}}, "is hashed and has no buckets"),
        ({"template": {"features": [{"column": "c", "family": "user", "type": "continuous", "width": 3}]}}, "width belongs to dense"),
        (
            {"model": {"private_layers": {"clik": [8]}}},
            "model.private_layers names clik, which is no head; heads: click, good_click, scroll_up",
        ),
        ({"model": {"private_layers": {"click": []}}}, "model.private_layers.click: "),
        ({"model": {"private_layers": {"click": [8, 0]}}}, "model.private_layers.click.1: "),
        ({"model": {"serving": "additive"}}, "model.serving is additive and no feature is of family serving"),
        ({"name": "a b"}, "name"),
        ({"calibration": {"method": "featured"}}, "method is featured and features is empty"),
        ({"calibration": {"features": ["hour", "hour"]}}, "features names a column twice: hour, hour"),
        (
            {"calibration": {"features": ["device"]}},
            "calibration.features names device, which is no column of the template; it may name ad_id, advertiser_id, campaign_id, country, hour",
        ),
        ({"calibration": {"features": ["ad_age_days"]}}, "names ad_age_days, which is continuous, where one of one_hot, indexed, hashed"),
        (
            {
                "calibration": {"features": ["topics"]},
                "template": {"features": [{"column": "topics", "family": "user", "type": "hashed", "buckets": 9, "length": 2}]},
            },
            "names topics, which is a list, where one value a row is needed",
        ),
        (
            {
                "calibration": {"features": ["position"]},
                "template": {"features": [{"column": "position", "family": "serving", "type": "hashed", "buckets": 9}]},
            },
            "names position, which is known only once served, and so of no inventory",
        ),
    ],
)
def test_a_contradiction_names_the_knob(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfError, match=message):
        small_conf(**over)


def test_a_bare_off_means_off_though_yaml_reads_it_as_false() -> None:
    assert small_conf(model={"serving": False}).model.serving == "off"


def test_a_missing_file_and_bad_yaml_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="no such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfError, match="not readable as YAML"):
        load(tmp_path / "bad.yaml")


def test_yaml_builds_no_python_objects(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfError, match="not readable as YAML"):
        load(tmp_path / "evil.yaml")


def test_extends_lays_one_file_on_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text((CONF / "obd.yaml").read_text().replace("obd_template.yaml", str(CONF / "obd_template.yaml")))
    (tmp_path / "over.yaml").write_text("extends: base.yaml\ntraining: {epochs: 5}\n")
    over, base = load(tmp_path / "over.yaml"), load(tmp_path / "base.yaml")
    assert (over.training.epochs, over.training.batch_size) == (5, base.training.batch_size)


@pytest.mark.parametrize(("window", "lateness", "days"), [(24, 48, 4), (0, 0, 1), (24, 0, 2), (1, 0, 2), (24, 49, 5)])
def test_a_night_rebuilds_as_many_days_as_labels_need_to_settle(window: float, lateness: float, days: int) -> None:
    conf = small_conf(heads={"click": {"action": "click", "window_hours": window}}, clock={"lateness_hours": lateness})
    assert conf.label_delay == timedelta(hours=window + lateness)
    assert conf.label_days == days


def test_a_stored_configuration_reads_back_the_same() -> None:
    conf = load(CONF / "obd.yaml")
    assert load_text("stored", conf.model_dump(mode="json")) == conf
