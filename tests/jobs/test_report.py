"""The report and the model card of a real night: queries that run and say the same, a page that a browser shows whole, a card without a second truth."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from etl import schemas
from etl.tables import read
from tests.jobs.nights import Place, day
from tests.validation.browser import look_at


@pytest.fixture(scope="module")
def page(clean: Place) -> Path:
    return clean.workdir / "runs" / day(7) / "report.html"


@pytest.fixture(scope="module")
def card(spark: SparkSession, clean: Place) -> dict[str, Any]:
    return json.loads(card_file(spark, clean, "json").read_text())


def card_file(spark: SparkSession, of: Place, ending: str) -> Path:
    (model,) = read(spark, of.workdir, schemas.MODELS).collect()
    return of.workdir / model["path"] / "cards" / f"{day(7)}.{ending}"


def queries_on(page: Path) -> list[str]:
    found = re.findall(r'<details class="query">.*?<code>(.*?)</code>', page.read_text(), flags=re.DOTALL)
    return [html.unescape(text) for text in found]


def test_every_query_on_the_page_runs_and_those_of_this_night_find_rows(spark: SparkSession, page: Path) -> None:
    asked = queries_on(page)
    found = {text: spark.sql(text).count() for text in dict.fromkeys(asked)}
    # The first night has no earlier report to hold its scores against, nor a usual time; neither is shown without rows.
    empty = [text for text, rows in found.items() if not rows and "median" not in text]
    assert len(asked) >= 14 and not empty, empty


def test_the_queries_give_the_numbers_of_the_page(spark: SparkSession, page: Path) -> None:
    text, asked = page.read_text(), queries_on(page)
    (metrics,) = (one for one in asked if "/metrics`" in one and "JOIN" not in one)
    rows = spark.sql(metrics).where("stage = 'calibrated' AND ratio IS NOT NULL").collect()
    assert rows and all(f">{row['ratio']:.3f}<" in text and f">{row['rows']:,}<" in text for row in rows)
    (account,) = (one for one in asked if "quarantined" in one)
    assert {f"<td>{row['block']}</td>" in text and f">{row['rows_in']:,}<" in text for row in spark.sql(account).collect()} == {True}


def test_the_page_of_a_real_night_holds_together_in_a_browser(page: Path, tmp_path: Path) -> None:
    found = look_at(page, tmp_path)
    assert found["console"] == [] and len(found["views"]) == 4
    for name, view in found["views"].items():
        wrong = [
            *view["folded"]["elements"],
            *view["unfolded"]["elements"],
            *view["faint"],
            *view["bare"],
            *view["scrolling"],
            *view["lost"],
        ]
        assert not wrong and not view["keyboard"]["unreached"], (name, wrong[:5])
        assert [one for one in view["pictures"] if not (one["width"] and one["height"] and one["children"] and one["words"])] == []


def test_the_links_of_the_page_lead_to_files(page: Path) -> None:
    links = re.findall(r'href="([^"#]+)"', page.read_text())
    assert len(links) >= 4 and all((page.parent / link).is_file() for link in links), links


def test_a_card_has_the_rows_of_metrics_with_limits_about_each_value(spark: SparkSession, clean: Place, card: dict[str, Any]) -> None:
    rows = read(spark, clean.workdir, schemas.METRICS).where("stage = 'calibrated'").collect()
    wanted = {(row["head"], row["source"], row["tower"]): (row["ratio"], row["auc"], row["ne"]) for row in rows}
    named = {(row["head"], row["source"], row["tower"]): row for row in card["metrics"]}
    assert {key: tuple(row[name]["value"] for name in ("ratio", "auc", "ne")) for key, row in named.items()} == wanted
    limited = [row[name] for row in card["metrics"] for name in ("ratio", "auc") if row[name]["value"] is not None]
    assert limited and all(of["low"] <= of["value"] <= of["high"] for of in limited)


def test_a_card_says_what_the_model_was_made_from(spark: SparkSession, clean: Place, card: dict[str, Any]) -> None:
    (model,) = read(spark, clean.workdir, schemas.MODELS).collect()
    assert (card["model"], card["data"]["examples_version"]) == (model["model"], model["examples_version"])
    assert list(card["data"]["examples"]) == [day(1), day(2)] == [card["data"]["trained_from"], card["data"]["trained_to"]]
    assert re.fullmatch(r"[0-9a-f]{16}", card["code"]["hash"]) and card["code"]["distribution"].count(".") == 2
    assert card["configuration"] == clean.conf.model_dump(mode="json")
    assert card["verdict"]["reason"] == model["reason"] and card["verdict"]["comparison"] == json.loads(model["comparison"])
    assert card["calibrator"].keys() == clean.conf.heads.keys()


def test_a_card_to_read_is_rendered_from_the_one_in_json(spark: SparkSession, clean: Place, card: dict[str, Any]) -> None:
    text = card_file(spark, clean, "md").read_text()
    assert text.startswith(f"# Model {card['model']}\n") and card["data"]["examples"][day(1)] in text
    for row in card["metrics"]:
        assert f"| {row['head']} | {row['source']} | {row['tower']} | {row['rows']:,} | {row['positives']:,} |" in text
    assert "simulated" in text.lower() and "Only " in text and "workdir:" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables and all(len({line.count("|") - line.count("\\|") for line in table}) == 1 for table in tables)
