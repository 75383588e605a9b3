"""`<workdir>/metrics/adtower.prom`: the last night as Prometheus metrics, for node_exporter's textfile collector or any reader of that format.

Written whole as each night ends, also one that failed; of a night in several commands it tells what all of them did so far. Times are
seconds since 1970, sizes bytes. What a night did not get to (scored day, last success) stands as the night before left it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from etl.commits import folder_bytes
from etl.splits import start_of
from jobs.common import DONE, REFUSED, Run, write_whole

LAST_SUCCESS, SCORED_DAY = "adtower_last_success_timestamp_seconds", "adtower_scored_day_timestamp_seconds"
OUTCOMES = ("rows_in", "kept", "duplicates", "quarantined")


def metrics_file(workdir: str) -> Path:
    return Path(workdir).resolve() / "metrics" / "adtower.prom"


def write_metrics(run: Run, code: int, seconds: float, trouble: Callable[[str], None]) -> None:
    """Whatever is in the way is a line for `trouble`, and no error."""
    file = metrics_file(run.conf.workdir)
    try:
        known = kept_from(file.read_text(encoding="utf-8")) if file.is_file() else {}
        write_whole(file, generate_latest(registry_of(run, code, seconds, known)).decode())
    except Exception as error:  # the night is worth more than what is told of it
        trouble(f"no metrics at {file} ({type(error).__name__}: {error}); nothing else depends on them")


def kept_from(text: str) -> dict[str, float]:
    """What an earlier night told, and this one may not know."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.name in (LAST_SUCCESS, SCORED_DAY)}


class Exposition:
    """Gauges of one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def one(self, name: str, told: str, value: float | None) -> None:
        self.by(name, told, (), [((), value)])

    def by(self, name: str, told: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float | None]]) -> None:
        """A value for each combination of labels; None is left out, and a metric without a value too."""
        known = [(of, value) for of, value in values if value is not None]
        if not known:
            return
        gauge = Gauge(name, told, labels, registry=self.registry)
        for of, value in known:
            (gauge.labels(*of) if labels else gauge).set(value)


def registry_of(run: Run, code: int, seconds: float, known: Mapping[str, float]) -> CollectorRegistry:
    told, now, night = Exposition(), time.time(), run.night
    done = {row["stage"]: run.counts_of(row["stage"]) for row in run.records if row["status"] != "failed"} | run.failed_counts
    whole = code in (DONE, REFUSED)
    told.by("adtower_night_info", "The last night: its configuration, day and run.", ("configuration", "day", "run_id"),
            [((run.conf.name, night.day.isoformat(), run.run_id), 1)])  # fmt: skip
    told.one("adtower_night_exit_code", "Exit code of the last night; 0 and 8 (candidate refused) ended whole.", code)
    told.one("adtower_night_success", "1 if the last night ended whole, else 0.", int(whole))
    told.one("adtower_night_day_timestamp_seconds", "Start of the day that the last night was of.", start_of(night.day).timestamp())
    told.one("adtower_night_end_timestamp_seconds", "When the last night ended.", now)
    told.one("adtower_night_duration_seconds", "How long the last night's last command took.", seconds)
    scored_too = whole and "score" in done
    told.one(LAST_SUCCESS, "When a night last ended whole, up to its scores.", now if scored_too else known.get(LAST_SUCCESS))
    scored = (
        start_of(night.scored).timestamp() if done.get("score", {}).get("scored") == night.scored.isoformat() else known.get(SCORED_DAY)
    )
    told.one(SCORED_DAY, "Start of the day that was scored last.", scored)
    told.by("adtower_stage_duration_seconds", "How long each stage of the last night took.", ("stage", "status"),
            [((row["stage"], row["status"]), row["seconds"]) for row in run.records])  # fmt: skip
    told.by("adtower_stage_added_bytes", "Files that each stage committed to the tables when it last did its work.", ("stage",),
            [((stage,), counts.get("bytes")) for stage, counts in done.items()])  # fmt: skip
    _tell_rows(told, done)
    _tell_model(told, done)
    tables = Path(run.conf.workdir).resolve() / "tables"
    told.by("adtower_table_bytes", "Files in each table's folder, versions before the newest among them.", ("table",),
            [((folder.name,), folder_bytes(folder)) for folder in sorted(tables.glob("*"))])  # fmt: skip
    return told.registry


def _tell_rows(told: Exposition, done: Mapping[str, Mapping[str, Any]]) -> None:
    by_source: dict[str, Counter[str]] = {}
    for row in done.get("ingest", {}).get("account", []):
        by_source.setdefault(row["source"], Counter()).update({name: int(row[name]) for name in OUTCOMES})
    told.by("adtower_ingest_rows", "Rows of the days that ingest built: in = kept + duplicates + quarantined.", ("source", "outcome"),
            [((source, name.removeprefix("rows_")), rows[name]) for source, rows in sorted(by_source.items()) for name in OUTCOMES])  # fmt: skip
    told.one("adtower_examples_rows", "Examples of the days that were built.", done.get("build_examples", {}).get("rows"))
    told.one("adtower_scored_rows", "Rows of inventory that were scored.", done.get("score", {}).get("rows"))
    findings = [finding for counts in done.values() for finding in counts.get("findings", [])]
    held = Counter(_outcome(finding) for finding in findings)
    told.by("adtower_gate_expectations", "Expectations of all gates: they held, warned, or stopped the night.", ("outcome",),
            [((outcome,), held[outcome]) for outcome in ("held", "warned", "failed") if findings])  # fmt: skip


def _outcome(finding: Mapping[str, Any]) -> str:
    return "held" if finding["success"] else "failed" if finding["severity"] == "critical" else "warned"


def _tell_model(told: Exposition, done: Mapping[str, Mapping[str, Any]]) -> None:
    trained, verdict, heads = done.get("train", {}), done.get("publish_model", {}), done.get("evaluate", {}).get("overall", {})
    told.one("adtower_training_rows", "Rows of the training snapshot.", trained.get("rows"))
    told.one("adtower_training_rows_per_second", "Pace of the training, all ranks together.", trained.get("rows_per_second"))
    told.by("adtower_candidate_verdict", "1 for the verdict on the night's candidate.", ("verdict",),
            [((one,), int(one == verdict["verdict"])) for one in ("publish", "refuse", "too little") if "verdict" in verdict])  # fmt: skip
    for name, meant in (
        ("normalized_entropy", "Log-loss over that of the mean rate"),
        ("auc", "Area under the ROC curve"),
        ("predicted_over_observed", "Predicted over observed positives"),
    ):
        told.by(f"adtower_candidate_{name}", f"{meant}, of the night's candidate on the held-out day, calibrated.", ("head",),
                [((head,), figures.get(name)) for head, figures in heads.items()])  # fmt: skip
