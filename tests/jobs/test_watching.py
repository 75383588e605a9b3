"""What a monitor sees of a night: its log, its metrics, its lineage; and that none of them can fail it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyspark.sql import SparkSession

from etl.tables import table_path
from jobs.common import DONE, VALIDATION, Outcome, Run, Stage, StageFailed, day_option
from jobs.exposition import metrics_file
from jobs.lineage import table_of
from jobs.nightly import STAGES, run_night
from tests.jobs.nights import Place, copied, day

SEVENTH = day_option(day(7))


def log_of(of: Place, number: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (of.workdir / "runs" / day(number) / "log.jsonl").read_text().splitlines()]


def metrics_of(of: Place) -> dict[tuple[str, ...], float]:
    """(name, values of its labels in the order of their names) -> value"""
    text = metrics_file(str(of.workdir)).read_text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples}


def stage(work: Any, inputs: dict[str, str] | None = None) -> Stage:
    return Stage("ingest", packages=(), reads=lambda conf: {}, inputs=lambda run: inputs or {}, work=work)


def broken(run: Run) -> Outcome:
    raise KeyError("a bug of //ada:s3cret@host")


def test_the_log_tells_each_stage_of_a_night_in_order_under_one_run_id(clean: Place) -> None:
    log, summary = log_of(clean, 7), json.loads((clean.workdir / "runs" / day(7) / "run_summary.json").read_text())
    night = [line for line in log if line["run_id"] == log[0]["run_id"]]
    names = [of.name for of in STAGES]
    assert [line["stage"] for line in night if line["event"] == "stage started"] == names
    done = {line["stage"]: line for line in night if line["event"] == "stage done"}
    assert list(done) == names and all(line["seconds"] >= 0 and line["day"] == day(7) for line in done.values())
    assert done["score"]["rows"] == 3000 and done["ingest"]["bytes"] > 100_000
    assert (night[0]["event"], night[-1]["event"], night[-1]["exit_code"]) == ("night started", "night ended", 0)
    assert {row["stage"] for row in summary["stages"]} == set(names)


def test_ranks_and_scorers_write_their_lines_under_the_run_id_of_the_night(clean: Place) -> None:
    told = (clean.workdir / "stderr.txt").read_text().splitlines()
    lines = [json.loads(line) for line in told if line.startswith("{")]
    assert {line["run_id"] for line in lines} == {log_of(clean, 7)[0]["run_id"]}
    assert {line["rank"] for line in lines if line["event"] == "rank done"} == {0, 1}
    assert {line["stage"] for line in lines if line["event"] == "worker began"} == {"calibrate", "score"}


def test_the_metrics_of_a_night_are_those_of_its_tables(clean: Place) -> None:
    found = metrics_of(clean)
    assert found[("adtower_night_exit_code",)] == 0 and found[("adtower_night_success",)] == 1
    assert found[("adtower_scored_rows",)] == 3000
    assert found[("adtower_scored_day_timestamp_seconds",)] - found[("adtower_night_day_timestamp_seconds",)] == 86_400
    rows = {key[1:]: value for key, value in found.items() if key[0] == "adtower_ingest_rows"}
    sources = {source for _, source in rows}
    assert len(sources) >= 3 and sum(rows["quarantined", source] for source in sources) > 0
    for source in sources:
        assert rows["in", source] == sum(rows[outcome, source] for outcome in ("kept", "duplicates", "quarantined"))
    assert {key[1] for key in found if key[0] == "adtower_stage_duration_seconds"} == {of.name for of in STAGES}
    assert {key[1] for key in found if key[0] == "adtower_candidate_auc"} == set(clean.conf.heads)
    assert found[("adtower_table_bytes", "examples")] > 1_000_000


def test_a_failed_night_keeps_what_it_cannot_know_and_its_log_has_the_traceback_without_secrets(
    spark: SparkSession, clean: Place, tmp_path: Path
) -> None:
    failed = copied(clean, tmp_path / "failed")
    before = metrics_of(failed)
    with pytest.raises(KeyError):
        run_night(spark, failed.conf, SEVENTH, SEVENTH, (stage(broken),))
    after = metrics_of(failed)
    assert (after[("adtower_night_exit_code",)], after[("adtower_night_success",)]) == (1, 0)
    for kept in ("adtower_last_success_timestamp_seconds", "adtower_scored_day_timestamp_seconds"):
        assert after[(kept,)] == before[(kept,)]
    line = next(line for line in log_of(failed, 7) if line["event"] == "stage failed")
    assert "in broken" in line["traceback"] and line["level"] == "ERROR"
    assert "s3cret" not in (failed.workdir / "runs" / day(7) / "log.jsonl").read_text()


def test_neither_log_nor_metrics_nor_lineage_can_fail_a_night(
    spark: SparkSession, built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hindered = copied(built, tmp_path / "hindered", tracking={"openlineage": str(tmp_path)})  # a folder stands in each place
    (hindered.workdir / "runs" / day(7) / "log.jsonl").mkdir(parents=True)
    metrics_file(str(hindered.workdir)).unlink()
    metrics_file(str(hindered.workdir)).mkdir()
    assert run_night(spark, hindered.conf, SEVENTH, SEVENTH, (stage(lambda run: Outcome(())),)) == DONE
    told = capsys.readouterr().err
    assert "no log at" in told and "no metrics at" in told and "something is not told in log or lineage" in told


def test_openlineage_is_told_what_a_stage_read_and_made_with_versions_and_what_ended_it(
    spark: SparkSession, clean: Place, tmp_path: Path
) -> None:
    file = tmp_path / "lineage.jsonl"
    told = copied(clean, tmp_path / "told", tracking={"openlineage": str(file)})
    landed = f"users {day(4)} {day(7)}"
    inputs = {f"examples/{day(7)}": "1:a", f"served@ab12/{day(4)}": "2:b", "parent": "none", landed: "f00"}

    def refused(run: Run) -> Outcome:
        raise StageFailed("rows are wrong", VALIDATION)

    score = next(of for of in STAGES if of.name == "score")
    run_night(spark, told.conf, SEVENTH, SEVENTH, (replace(score, reads=lambda conf: {"seed": "another"}),))
    with pytest.raises(StageFailed):
        run_night(spark, told.conf, SEVENTH, SEVENTH, (stage(refused, inputs),))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(event["eventType"], event["job"]["name"]) for event in events] == [
        ("START", "score"),
        ("COMPLETE", "score"),
        ("START", "ingest"),
        ("FAIL", "ingest"),
    ]
    began, scored, _, failed = events
    assert began["run"]["runId"] == scored["run"]["runId"] != failed["run"]["runId"]
    assert {of["name"] for of in scored["outputs"]} == {table_path(told.workdir, name) for name in ("scores", "publications")}
    assert all(of["facets"]["version"]["datasetVersion"] == "2" for of in scored["outputs"] if of["name"].endswith("scores"))
    files, *tables = (of["name"] for of in failed["inputs"])
    assert files.endswith("/users/{day}/part-*") and tables == [table_path(told.workdir, name) for name in ("examples", "served")]
    assert failed["run"]["facets"]["errorMessage"]["message"] == "StageFailed: rows are wrong"


def test_the_table_of_an_input_is_read_off_its_name() -> None:
    cases = {"examples/2026-05-14": "examples", "served@ab12/2026-05-14": "served", "models/ab12/bundle.json": "", "parent": ""}
    assert {name: table_of(name) for name in cases} == cases
