"""Great Expectations checkpoints on the night's tables, and the row account: a critical failure stops the night. A stage of jobs/nightly.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from etl import schemas
from etl.entities import first_state_day
from etl.history import wanted
from etl.runs import fingerprint
from etl.splits import ONE_DAY
from etl.tables import read_days
from jobs.build_examples import bounds
from jobs.common import VALIDATION, NotYet, Outcome, Run, Stage, StageFailed
from validation.account import check_account, check_quarantine
from validation.baseline import History
from validation.findings import GateFailed, GateReport
from validation.gate import Clock, Judged, Known, check_tables


def spans(run: Run) -> dict[str, tuple[date, date]]:
    """First and last day judged of each table: what this night wrote. An inventory that was not delivered is for the score stage to tell."""
    first, last = bounds(run)
    found = {"impressions": (first, last)}
    kinds = {source.kind for source in run.conf.sources.values()}
    for kind in ("engagements", "users", "ads"):
        if kind in kinds:
            found[kind] = (run.asked, run.last_writable("ingest", kind))
    if run.contents.of_days("inventory", run.night.scored, run.night.scored):
        found["inventory"] = (run.night.scored, run.night.scored)
    if wanted(run.conf):
        found["history"] = (first, last)
    return {name: days for name, days in {**found, "examples": (first, last)}.items() if days[0] <= days[1]}


def known_spans(run: Run) -> dict[str, dict[str, tuple[str, date, date]]]:
    """Table -> id column -> the table that must know the id, and its days."""
    judged = spans(run)
    links: dict[str, dict[str, tuple[str, date, date]]] = {"engagements": {"impression_id": ("impressions", run.first, run.night.day)}}
    if "examples" in judged:
        first, last = judged["examples"]
        states = {"user_id": "users", "ad_id": "ads"}
        links["examples"] = {column: (name, first_state_day(first, run.conf), last) for column, name in states.items() if name in judged}
    return {table: of for table, of in links.items() if table in judged}


def history_of(run: Run, last: date | None = None) -> History:
    """What the gates of earlier nights that passed had counted; of nights up to `last`, where given."""
    last = last or run.night.day - ONE_DAY
    passed = [record for record in run.ledger.done if record.stage == "gate" and record.day <= last]
    return History.of(record.counts for record in sorted(passed, key=lambda record: record.day))


def inputs(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for table, (first, last) in spans(run).items():
        found |= run.contents.of_days(table, first, last)
    for links in known_spans(run).values():
        for table, first, last in links.values():
            found |= run.contents.of_days(table, first, last)
    account = run.counts_of("ingest").get("account", [])
    return found | {"history": fingerprint(asdict(history_of(run))), "account": fingerprint(account)}


def judged_alone(run: Run, *judged: Judged) -> dict[str, Any]:
    """Judge what a stage has just written, before anything is made of it; what the stage counts of that."""
    history = history_of(run, run.night.day) if any(of.features is not None for of in judged) else None
    return require_passed(report_on(run, judged, history, docs_in=judged[0].table.name))


def of_this_night(run: Run, table: schemas.Table) -> Judged:
    """A table whose `day` is the night's, such as `metrics`: the rows of this night."""
    day = run.night.day
    return Judged(table, read_days(run.spark, run.conf.workdir, table, day, day), day, day, usual=False)


def report_on(run: Run, judged: Sequence[Judged], history: History | None = None, docs_in: str = "") -> GateReport:
    """What the gate finds; its Data Docs lie in the run's folder, or in `docs_in` of it, and those of old runs go."""
    from validation.checkpoint import prune_docs  # not before: see validation/gate.py

    docs, night = run.run_dir / "data_docs", run.night
    clock = Clock(night.held_out, night.train_from, night.train_to)
    report = check_tables(judged, run.conf, docs / run.run_id / docs_in, run.run_id, clock, history)
    prune_docs(docs)
    return report


def require_passed(report: GateReport) -> dict[str, Any]:
    """Findings and Data Docs, for the ledger and the report; a critical failure ends the stage with them."""
    counts = {"findings": [asdict(finding) for finding in report.findings], "docs": report.docs}
    try:
        report.raise_if_failed()
    except GateFailed as error:
        raise StageFailed(str(error), VALIDATION, counts) from error
    return counts


def work(run: Run) -> Outcome:
    conf, days = run.conf, spans(run)
    if "examples" not in days:
        raise NotYet("a later night built these days")
    tables, links = schemas.all_tables(conf), known_spans(run)
    judged = []
    for name, (first, last) in days.items():
        known = {
            column: Known(of, read_days(run.spark, conf.workdir, tables[of], since, until))
            for column, (of, since, until) in links.get(name, {}).items()
        }
        rows = read_days(run.spark, conf.workdir, tables[name], first, last)
        judged.append(Judged(tables[name], rows, first, last, known, new_from=run.asked))
    report = report_on(run, judged, history_of(run))
    account = run.counts_of("ingest").get("account", [])
    own = {name: source.max_quarantined_share for name, source in conf.sources.items() if source.max_quarantined_share is not None}
    quarantined = check_quarantine(account, conf.gate.max_quarantined_share, own, conf.gate.min_expected_rows)
    report = report.with_findings([*check_account(account), *quarantined])
    counts = {**report.counts, **require_passed(report)}
    passed, warned = len(report.findings), len(report.failed_warnings)
    return Outcome((), counts, f"{passed - warned} of {passed} expectations hold, {warned} warnings")


STAGE = Stage(
    name="gate",
    packages=("etl", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "clock", "template", "gate", "sources"}),
    inputs=inputs,
    work=work,
)
