"""The job on a small table of examples: a first template, a person's edits kept, what is new added, what leaks named."""

from __future__ import annotations

from difflib import ndiff
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from conf.load import load, load_text, template_of
from conf.schema import Conf
from conf.template import Template
from etl import schemas
from etl.encoding import encoded
from etl.landing import InputMissing
from etl.splits import ONE_DAY, Night
from etl.tables import create_table, overwrite_days, read_days
from jobs.common import INPUT, code_of
from jobs.profile_features import write_template
from tests.etl.test_profile import FEATURES, ROWS, example
from tests.small import DAY, rows, small_conf

NIGHT = DAY + 5 * ONE_DAY  # its training window ends on DAY


@pytest.fixture(scope="module")
def conf(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    """A working folder with the examples of one day."""
    made = small_conf(workdir=str(tmp_path_factory.mktemp("profiled")), template={"features": FEATURES})
    table = schemas.examples(made)
    create_table(spark, made.workdir, table)
    overwrite_days(rows(spark, table, [example(number) for number in range(ROWS)]), made.workdir, table, DAY, DAY)
    return made


def written(spark: SparkSession, conf: Conf, out: Path, **options: Any) -> Template:
    write_template(spark, conf, Night.of(NIGHT, conf), out, **options)
    return template_of(out, out.read_text(encoding="utf-8"))


def test_a_first_template_says_why_names_the_leak_loads_and_encodes(
    spark: SparkSession, conf: Conf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    template = written(spark, conf, tmp_path / "template.yaml")
    told = capsys.readouterr()
    types = {feature.column: (feature.family, feature.type) for feature in template.features}
    assert types == {
        "user_id": ("user", "one_hot"),
        "country": ("user", "one_hot"),
        "price": ("ad", "continuous"),
        "look": ("ad", "dense"),
        "title": ("context", "text"),
        "topics": ("user", "one_hot"),
        "inviter": ("user", "one_hot"),
        "verdict": ("context", "one_hot"),
        "dwell": ("context", "continuous"),
        "position": ("serving", "continuous"),
    }
    assert all(feature.reason for feature in template.features)
    assert {feature.column for feature in template.features if feature.group == "user_id"} == {"user_id", "inviter"}
    assert template.left_out["never"] == "never filled in 2,000 rows" and template.left_out["source"] == "always 'feed' in 2,000 rows"
    assert {"request", "ad_id", "campaign_id"} <= set(template.left_out)
    text = (tmp_path / "template.yaml").read_text()
    assert "  # WARNING alone it orders click with AUC 1.000" in text and "  - column: verdict" in text
    assert "WARNING dwell: " in told.err and "WARNING request: " not in told.err and "2,000 examples of" in told.err
    assert "~ country: user hashed in 10 buckets stands here, user one_hot of 2 values is proposed" in told.out
    # As an operator would use it: named by a configuration, and read by the encoding.
    file = tmp_path / "conf.yaml"
    file.write_text(yaml.safe_dump({**conf.model_dump(mode="json"), "template": "template.yaml"}), encoding="utf-8")
    used = load(file)
    assert used.template == template
    assert encoded(read_days(spark, conf.workdir, schemas.examples(conf), DAY, DAY), used.template, ["feed"]).count() == ROWS


def test_edits_survive_new_columns_come_to_the_end_and_the_difference_is_shown(
    spark: SparkSession, conf: Conf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "template.yaml"
    edited = """# Ours, by hand.
features:
  # people come first
  - {column: user_id, family: user, type: hashed, buckets: 5000, reason: more will come}
  - column: price
    family: ad
    type: continuous
    transform: log  # as finance asks
    reason: >-
      prices are ratios
  # WARNING an old suspicion
  - column: verdict
    family: context
    type: one_hot
    vocabulary: [good, bad, ugly]
  - {column: old, family: ad, type: continuous}

left_out:
  dwell: known too late
# end
"""
    out.write_text(edited, encoding="utf-8")
    template = written(spark, conf, out)
    told = capsys.readouterr().out
    changed = ndiff(edited.splitlines(), out.read_text().splitlines())
    assert [line for line in changed if line.startswith("- ")] == ["-   # WARNING an old suspicion"]
    assert [feature.column for feature in template.features[:4]] == ["user_id", "price", "verdict", "old"]
    assert [feature.column for feature in template.features[4:]] == ["country", "look", "title", "topics", "inviter", "position"]
    assert not any(feature.group for feature in template.features)  # user_id stands there without one
    assert next(iter(template.left_out)) == "dwell" and "request" in template.left_out
    assert out.read_text().count("# WARNING") == 1 and "an old suspicion" not in out.read_text()
    for line in (
        "~ user_id: user hashed in 5,000 buckets stands here, user one_hot of 7 values is proposed",
        "~ price: transform log stands here, squash is proposed",
        "~ verdict: its vocabulary has the rare or unseen 'ugly'",
        "? old: stands here as ad continuous (squash); the examples of this configuration have no such column",
        "+ dwell: left out here (known too late)",
        "+ country: new, user one_hot of 2 values: 2 values: a closed list",
    ):
        assert line in told
    first = out.read_text()
    written(spark, conf, out)
    assert out.read_text() == first and "new," not in capsys.readouterr().out


def test_without_examples_it_exits_3_and_names_the_command_that_builds_them(spark: SparkSession, tmp_path: Path):
    empty = small_conf(workdir=str(tmp_path))
    with pytest.raises(InputMissing, match=r"no examples of .* to 2026-05-10.*--to 2026-05-15 --only ingest,build_examples") as error:
        written(spark, empty, tmp_path / "template.yaml")
    assert code_of(error.value) == INPUT and not (tmp_path / "template.yaml").exists()


def test_a_column_that_no_table_holds_is_drafted_with_the_type_of_its_expression(spark: SparkSession, conf: Conf, tmp_path: Path):
    given = conf.model_dump(mode="json")
    feed = given["sources"]["feed"]
    feed["columns"] |= {"weekday": "date_format(try_to_timestamp(shown), 'E')", "slot_price": "length(ad) * 1.5"}
    feed["columns"] |= {"vector": "array(1.0, 2.0)", "extras": "map('a', id)", "known": "user IS NOT NULL"}
    feed["columns"] |= {"boards": "split(ad, ',')", "tags": "split(user, ',')"}
    stock = {"inventory_id": "id", "ad_id": "ad", "weekday": "'Mon'", "boards": "split(ad, ',')"}
    given["sources"]["stock"] = {**feed, "kind": "inventory", "columns": stock}
    del feed["columns"]["hour"]
    template = written(spark, load_text("drafted", given), tmp_path / "template.yaml", draft=True)
    named = {feature["column"] for feature in FEATURES}
    drafted = {feature.column: (feature.family, feature.type) for feature in template.features if feature.column not in named}
    history = {name: kind for name, kind in drafted.items() if kind[0] == "history"}
    assert {name: kind for name, kind in drafted.items() if name not in history} == {
        "weekday": ("context", "hashed"),
        "boards": ("context", "hashed"),
        "slot_price": ("serving", "continuous"),  # no inventory gives it
        "vector": ("serving", "dense"),
        "known": ("serving", "hashed"),
    }
    assert {"user_impressions", "ad_click_rate", "campaign_scroll_up_rate"} <= set(history) and "user_good_click_rate" not in history
    assert "map<" in template.left_out["extras"] and "is a list" in template.left_out["tags"]
    assert load_text("used", {**given, "template": template.model_dump(mode="json")}).template == template
