"""The gate on `examples`: a good frame passes, each planted fault is found, named and counted. Real Spark, real Great Expectations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl.schemas import examples, scores
from tests.small import rows
from tests.validation.small import FIRST, LAST, MATURE_TO, example, example_rows, good_rows, small_conf
from validation.baseline import History
from validation.checkpoint import Checkpoints, prune_docs
from validation.findings import Finding, GateFailed, GateReport
from validation.gate import Clock, Judged, check_tables

CONF = small_conf()
CLOCK = Clock(MATURE_TO, FIRST, FIRST)
SCORED = {f"p_{head}{stage}": 0.1 for head in CONF.heads for stage in ("", "_raw")} | {"utility": 0.0, "percentile": 1.0}


def gate(frame: DataFrame, docs: Path, conf: Conf = CONF) -> GateReport:
    return check_tables([Judged(examples(conf), frame, FIRST, LAST)], conf, docs, "a-run", CLOCK)


def failed(report: GateReport) -> dict[str, Finding]:
    return {finding.expectation: finding for finding in report.findings if not finding.success}


@pytest.fixture(scope="module")
def good(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GateReport, Path]]:
    docs = tmp_path_factory.mktemp("docs")
    yield gate(example_rows(spark, CONF, good_rows()), docs), docs


def test_a_good_frame_passes_every_expectation(good: tuple[GateReport, Path]) -> None:
    report, _ = good
    assert failed(report) == {}
    report.raise_if_failed()


def test_every_column_head_feature_and_row_rule_is_asked_about(good: tuple[GateReport, Path]) -> None:
    asked = {(finding.expectation, finding.column) for finding in good[0].findings}
    assert {("columns", "(all)"), ("types", "(all)"), ("key_unique", "impression_id"), ("rows_a_day", "day")} <= asked
    assert {("bid_not_negative", "bid_micros"), ("label_good_click_follows_click", "label_good_click"), ("missing_ad_id", "ad_id")} <= asked


def test_data_docs_are_written_with_a_page_for_each_checkpoint(good: tuple[GateReport, Path]) -> None:
    report, docs = good
    assert report.docs == str(docs / "index.html")
    pages = {path.parent.parent.parent.name for path in (docs / "validations").rglob("*.html")}
    assert pages == {"examples_schema", "examples_by_day"}
    assert "bid_micros" in next((docs / "validations" / "examples_by_day").rglob("*.html")).read_text()


def test_data_docs_keep_the_pictures_that_a_page_names_and_no_megabytes_that_none_does(good: tuple[GateReport, Path]) -> None:
    docs = good[1]
    text = "".join(page.read_text() for page in docs.rglob("*.html"))
    kept = [path for path in (docs / "static").rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"favicon.ico", "logo-long.png"} and all(path.name in text for path in kept)
    assert sum(path.stat().st_size for path in kept) < 20_000


def test_data_docs_of_earlier_runs_stay_until_five_newer_ones_stand_beside_them(tmp_path: Path) -> None:
    for run in range(7):
        made = Checkpoints(tmp_path / f"run-{run}", f"run-{run}")
        assert made.judge_schema("examples", {"day": "date"}, {"day": "date"})
        made.build_docs()
        prune_docs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"run-{run}" for run in range(2, 7)]


def test_a_run_whose_name_reads_like_a_time_zone_is_judged(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path, "20260507-095009-6337ad")
    assert made.judge_schema("examples", {"day": "date"}, {"day": "date"})
    assert Path(made.build_docs()).is_file()


def test_the_gate_leaves_no_cache_no_view_and_no_telemetry(spark: SparkSession, tmp_path: Path) -> None:
    def held() -> tuple[set[int], set[str]]:  # one session serves every test: what others left in it is not the gate's
        views = {table.name for table in spark.catalog.listTables() if table.isTemporary}
        return set(spark.sparkContext._jsc.getPersistentRDDs()), views

    rdds, views = held()
    gate(example_rows(spark, CONF, good_rows()), tmp_path)
    rdds_after, views_after = held()
    assert rdds_after <= rdds
    assert views_after <= views
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_every_planted_row_fault_is_found_by_its_own_rule_and_told_by_its_key(spark: SparkSession, tmp_path: Path) -> None:
    planted: list[tuple[dict[str, Any], str]] = [  # what is wrong with the row, the rule that says so
        ({"impression_id": None}, "impression_id_present"),
        ({"source": ""}, "source_present"),
        ({"tower": None}, "tower_present"),
        ({"received_at": datetime(2026, 5, 1, 9, 59, 59)}, "received_after_shown"),
        ({"ad_id": None}, "ad_id_present"),
        ({"bid_micros": -3}, "bid_not_negative"),
        ({"position": -1}, "position_not_negative"),
        ({"shown_at": datetime(2026, 5, 2), "received_at": datetime(2026, 5, 2)}, "day_is_shown_day"),
        ({"labels_as_of": None}, "labels_as_of_present"),
        ({"label_save": 2}, "label_save_valid"),
        ({"label_click": 0, "label_good_click": 1}, "label_good_click_follows_click"),
        ({"look": [0.5]}, "look_width"),
    ]
    rows = good_rows() + [example(100 + number, **wrong) for number, (wrong, _) in enumerate(planted)]
    found = failed(gate(example_rows(spark, CONF, rows), tmp_path))
    assert set(found) == {rule for _, rule in planted}
    assert all(finding.severity == "critical" and finding.unexpected == 1 and finding.unit == "rows" for finding in found.values())
    assert found["bid_not_negative"].sample == (
        "impression_id=2026-05-01-105, source=standard, shown_at=2026-05-01 10:00:00, bid_micros=-3",
    )
    assert found["bid_not_negative"].observed == "1 on 2026-05-01"
    assert found["day_is_shown_day"].observed == "1 on 2026-05-01"


def test_a_childs_label_is_0_where_its_parents_is_0_and_null_where_its_parents_is_null(spark: SparkSession, tmp_path: Path) -> None:
    cases = [  # label_click, label_good_click, is it right?
        (1, 1, True), (1, 0, True), (1, None, True), (0, 0, True), (None, None, True),
        (0, 1, False), (0, None, False), (None, 1, False), (None, 0, False),
    ]  # fmt: skip
    rows = good_rows() + [example(100 + n, label_click=parent, label_good_click=child) for n, (parent, child, _) in enumerate(cases)]
    found = failed(gate(example_rows(spark, CONF, rows), tmp_path))
    assert set(found) == {"label_good_click_follows_click"}
    assert [sample.split(",")[0][-3:] for sample in found["label_good_click_follows_click"].sample] == ["105", "106", "107", "108"]


def test_a_day_without_rows_fails_even_where_all_the_others_are_good(spark: SparkSession, tmp_path: Path) -> None:
    found = failed(gate(example_rows(spark, CONF, [row for row in good_rows() if row["day"] != LAST]), tmp_path))
    assert set(found) == {"rows_a_day"}
    assert (found["rows_a_day"].observed, found["rows_a_day"].knob) == ("0 on 2026-05-03", "gate.min_rows_a_day is 1")


def test_an_empty_frame_does_not_pass(spark: SparkSession, tmp_path: Path) -> None:
    assert failed(gate(example_rows(spark, CONF, []), tmp_path))["rows_a_day"].unexpected == 3


def test_a_repeated_key_and_a_day_outside_the_range_are_found(spark: SparkSession, tmp_path: Path) -> None:
    rows = [*good_rows(), example(0), example(0, date(2026, 5, 9))]
    found = failed(gate(example_rows(spark, CONF, rows), tmp_path))
    assert set(found) == {"key_unique", "day_in_range"}
    assert found["key_unique"].sample == ("impression_id=2026-05-01-000, rows=2",)
    assert found["day_in_range"].observed == "1 rows besides on 2026-05-09"


def test_the_schema_is_judged_before_any_row_is_read(spark: SparkSession, tmp_path: Path) -> None:
    unreadable = F.raise_error(F.lit("a row was read")).cast("string").alias("extra")
    frame = example_rows(spark, CONF, good_rows()).drop("age").withColumn("bid_micros", F.lit("1")).withColumn("look", F.array(F.lit(0.5)))
    report = gate(frame.select("*", unreadable), tmp_path)
    wrong = {(finding.expectation, finding.column): finding.observed for finding in report.failed_critical}
    assert wrong == {
        ("columns", "(all)"): "missing: age; not expected: extra",
        ("type", "bid_micros"): "string",
        ("type", "look"): "array<double>",
    }


def test_the_same_columns_in_another_order_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    frame = example_rows(spark, CONF, good_rows())
    report = gate(frame.select(*reversed(frame.columns)), tmp_path)
    assert [(finding.expectation, finding.observed) for finding in report.failed_critical] == [("columns", "another order")]


def test_label_rates_are_judged_on_mature_days_only(spark: SparkSession, tmp_path: Path) -> None:
    clicked_from = [{**row, "label_click": 1, "label_good_click": 0} if row["day"] >= MATURE_TO else row for row in good_rows()]
    found = failed(gate(example_rows(spark, CONF, clicked_from), tmp_path))
    assert set(found) == {"label_click_rate"}
    assert (found["label_click_rate"].observed, found["label_click_rate"].needed) == ("1 on 2026-05-02", "at most 0.9 a day")
    assert found["label_click_rate"].knob == "gate.max_label_rate is 0.9"


def test_a_head_without_any_label_on_a_mature_day_is_a_warning(spark: SparkSession, tmp_path: Path) -> None:
    report = gate(example_rows(spark, CONF, [{**row, "label_save": None} for row in good_rows()]), tmp_path)
    assert report.failed_critical == ()
    assert [(finding.expectation, finding.observed) for finding in report.failed_warnings] == [("label_save_known", "0 on each of 2 days")]


def test_nan_and_infinity_count_as_missing_and_only_warn(spark: SparkSession, tmp_path: Path) -> None:
    ages = [None, float("nan"), float("inf"), 30.0]  # three of four are missing on each day
    rows = [{**row, "age": ages[number % 4]} for number, row in enumerate(good_rows())]
    report = gate(example_rows(spark, CONF, rows), tmp_path, small_conf(max_missing_share=0.7))
    assert report.failed_critical == ()
    assert [(finding.expectation, finding.observed) for finding in report.failed_warnings] == [("missing_age", "0.75 on each of 3 days")]


def test_the_message_lists_every_failure_with_counts_keys_and_knobs(spark: SparkSession, tmp_path: Path) -> None:
    rows = [*good_rows(), example(100, bid_micros=-3), example(101, bid_micros=-4)]
    report = gate(example_rows(spark, CONF, rows), tmp_path, small_conf(min_rows_a_day=5))
    with pytest.raises(GateFailed) as raised:
        report.raise_if_failed()
    message = str(raised.value)
    assert message.startswith("examples of 2026-05-01 to 2026-05-03: 2 of ")
    assert "bid_not_negative (examples.bid_micros, critical): 2 unexpected rows; observed 2 on 2026-05-01; needed 0 rows a day" in message
    assert "impression_id=2026-05-01-100" in message and "impression_id=2026-05-01-101" in message
    assert "rows_a_day (examples.day, critical): 2 unexpected days; observed 4 on each of 2 days; needed at least 5 a day" in message
    assert "knob: gate.min_rows_a_day is 5" in message
    assert message.endswith(f"Data Docs: {tmp_path / 'index.html'}")


def test_scored_rows_with_values_that_training_never_met_warn_beside_the_scores(spark: SparkSession, tmp_path: Path) -> None:
    conf, clock = small_conf(min_psi_rows=1), Clock(MATURE_TO, FIRST, LAST)
    trained = check_tables(
        [Judged(examples(conf), example_rows(spark, conf, good_rows()), FIRST, LAST)], conf, tmp_path / "trained", "a-run", clock
    )
    scored = LAST + timedelta(days=1)
    for name, value, warned in (("as trained on", "image", set()), ("another", "carousel", {("psi", "format"), ("unseen", "format")})):
        features = example_rows(spark, conf, [example(number, scored, format=value) for number in range(4)])
        given = rows(spark, scores(conf), [{"inventory_id": "n1", "model": "m", "rank": 1, **SCORED}], day=scored)
        judged = Judged(scores(conf), given, scored, scored, usual=False, features=features)
        report = check_tables([judged], conf, tmp_path / name, "a-run", clock, History.of([trained.counts]))
        assert {(finding.expectation, finding.column) for finding in report.failed_warnings} == warned, name
        assert {finding.table for finding in report.findings} == {"scores"} and not report.failed_critical
