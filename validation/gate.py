"""The gate on a night's tables: Spark counts, Great Expectations judges, and what was found stops the night or warns it.

The schema is judged first: where a table's is not exact its rows are not read. Everything else of all tables is counted side by side, once
a table, and every failure is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame

from conf.schema import Conf
from etl.schemas import Table
from etl.session import as_done
from etl.splits import days_between
from validation.baseline import History, count_checks, label_checks
from validation.checks import Check
from validation.counting import id_counts, key_of, offending, repeated_keys, sums_by_day, unknown_ids
from validation.expectations import Sums, example_checks, labels_by_source, row_checks, rows_by_source, sums_of, unknown_check
from validation.findings import Finding, GateReport
from validation.profiling import profiled, shift_checks

if TYPE_CHECKING:  # Great Expectations takes half the time that a night's imports take: only what judges waits for it
    from validation.checkpoint import Checkpoints

MEND_SCHEMA = (
    "jobs/migrate.py adds the columns of a new head or feature; else build the table again by this configuration, in a new `workdir`"
)

KEY = "key"
Counted = Mapping[tuple[str, str], Any]  # (table, question) -> its answer


@dataclass(frozen=True)
class Known:
    """The rows of a table that knows an id: `rows` has a column of the same name."""

    table: str
    rows: DataFrame


@dataclass(frozen=True)
class Judged:
    """A table as a gate reads it: `rows` of its days `first` to `last`, those from `new_from` on never judged before.

    `known`: id column -> who must know it; only new days are asked for theirs. Rows of a table that is judged too span its judged days.
    `usual`: whether its rows a day are held against earlier nights; what has a row for each row of another table need not.
    `features`: rows of these days with every feature of the template, whose newest day is held against the training window; `examples` are
    their own.
    """

    table: Table
    rows: DataFrame
    first: date
    last: date
    known: Mapping[str, Known] = field(default_factory=dict)
    new_from: date | None = None
    usual: bool = True
    features: DataFrame | None = None

    @property
    def profiled(self) -> DataFrame | None:
        return self.rows if self.table.name == "examples" else self.features

    @property
    def new_rows(self) -> DataFrame:
        return self.rows if self.new_from is None else self.rows.where(self.rows["day"] >= self.new_from)

    @property
    def days(self) -> list[date]:
        return list(days_between(self.first, self.last))


@dataclass(frozen=True)
class Clock:
    """`mature_to`: labels are final up to it (it may lie before the tables' days); the training window, to measure shift against."""

    mature_to: date
    train_from: date
    train_to: date


def check_tables(
    judged: Sequence[Judged], conf: Conf, docs_dir: Path, run_id: str, clock: Clock, history: History | None = None
) -> GateReport:
    """Judge the tables, write Data Docs to `docs_dir`. A failure raises in raise_if_failed only."""
    from validation.checkpoint import Checkpoints

    history = history or History()
    made = Checkpoints(docs_dir, run_id)
    schemas = {of.table.name: _schema_findings(made, of) for of in judged}
    exact = [of for of in judged if all(finding.success for finding in schemas[of.table.name])]
    counted: dict[tuple[str, str], Any] = {}
    found: dict[str, list[Finding]] = {}
    for question, answer in _answered(exact, conf, history):
        counted[question] = answer
        for of in exact:
            if of.table.name not in found and counted.keys() >= _questions(of, exact):
                found[of.table.name] = _judge(made, of, exact, counted, conf, clock, history)
    findings = [finding for of in judged for finding in (*schemas[of.table.name], *found.get(of.table.name, ()))]
    what = " and ".join([f"{of.table.name} of {of.first} to {of.last}" for of in judged][-1:])
    what = f"{len(judged)} tables, {what}" if len(judged) > 1 else what
    return GateReport(what, tuple(findings), made.build_docs(), _for_the_ledger(exact, counted, conf, clock))


def _schema_findings(made: Checkpoints, of: Judged) -> list[Finding]:
    """One finding for the columns and their order, and one for each column of a wrong type."""
    found, needed = dict(of.rows.dtypes), {column.name: column.dataType.simpleString() for column in of.table.columns}
    good, name = made.judge_schema(of.table.name, found, needed), of.table.name
    missing, foreign = sorted(needed.keys() - found.keys()), sorted(found.keys() - needed.keys())
    wrong = [column for column in needed if found.get(column, needed[column]) != needed[column]]
    names = f"missing: {', '.join(missing) or 'none'}; not expected: {', '.join(foreign) or 'none'}"
    same_order = list(found) == list(needed)
    observed = names if missing or foreign else "as needed" if same_order else "another order"
    text = f"{len(needed)} columns in the order of etl/schemas.py"
    knob, columns = "" if good else MEND_SCHEMA, len(missing) + len(foreign)
    findings = [Finding("columns", "(all)", "critical", same_order, observed, text, columns, "columns", knob=knob, table=name)]
    for column in wrong:
        findings.append(Finding("type", column, "critical", False, found[column], needed[column], 1, "columns", knob=knob, table=name))
    if not wrong:
        told, text = f"{len(needed) - len(missing)} of {len(needed)} columns", "the types of etl/schemas.py"
        findings.append(Finding("types", "(all)", "critical", True, told, text, 0, "columns", table=name))
    return findings


def _answered(exact: Sequence[Judged], conf: Conf, history: History) -> Iterator[tuple[tuple[str, str], Any]]:
    """(table, question) and what Spark counted, as it is answered; all are asked side by side, the longest first."""
    asked: dict[tuple[str, str], Callable[[], Any]] = {}
    for of in sorted(exact, key=lambda of: of.table.name != "examples"):
        name = of.table.name
        asked[(name, "sums")] = partial(sums_by_day, of.rows, sums_of(of.table, conf), of.days)
        if of.profiled is not None:
            asked[(name, "profile")] = partial(profiled, of.profiled, conf, of.days, history)
        asked |= {(name, column): partial(id_counts, known.rows, (column,), of.new_rows) for column, known in of.known.items()}
        if _key_question(of, exact) == (name, KEY):
            asked[(name, KEY)] = partial(id_counts, of.rows, key_of(of.table))
    return as_done(lambda question: asked[question](), asked)


def _questions(of: Judged, exact: Sequence[Judged]) -> set[tuple[str, str]]:
    """What must be answered before a table can be judged. References are questions of their column."""
    own = {"sums", *of.known, *(["profile"] if of.profiled is not None else [])}
    return {(of.table.name, question) for question in own} | {_key_question(of, exact)}


def _key_question(of: Judged, exact: Sequence[Judged]) -> tuple[str, str]:
    """What tells whether the key is unique: a reference of another table to the whole of it counts that too."""
    for other in exact:
        for column, known in other.known.items():
            if known.table == of.table.name and key_of(of.table) == (column,):
                return other.table.name, column
    return of.table.name, KEY


def _judge(
    made: Checkpoints, of: Judged, exact: Sequence[Judged], counted: Counted, conf: Conf, clock: Clock, history: History
) -> list[Finding]:
    name = of.table.name
    checks = [_key_check(of, counted[_key_question(of, exact)].repeated), _range_check(of, counted[(name, "sums")])]
    checks += _table_checks(of, counted, conf, clock, history)
    for column in of.known:
        ids = counted[(name, column)]
        checks.append(unknown_check(column, ids.unknown, ids.needed, of.last.isoformat(), conf))
    verdicts = made.judge(name, checks)
    findings = []
    for check in checks:
        good, failed_to_run = verdicts[check.label]
        findings.append(check.finding(name, good, () if good else _sample(of, check), failed_to_run))
    return findings


def _sample(of: Judged, check: Check) -> tuple[str, ...]:
    """Rows to look up, where rows can be named."""
    if check.broken:
        return offending(of.rows, of.table, check) if check.wrong else ()
    if check.name == "key_unique":
        return repeated_keys(of.rows, of.table)
    return unknown_ids(of.new_rows, check.column, of.known[check.column].rows) if check.name == "known_id" else ()


def _table_checks(of: Judged, counted: Counted, conf: Conf, clock: Clock, history: History) -> list[Check]:
    name, sums = of.table.name, counted[(of.table.name, "sums")]
    kind = "impressions" if name == "examples" else name
    blocks = [source for source in conf.sources.values() if source.kind == kind]
    optional = {block.source for block in blocks} - {block.source for block in blocks if block.required}
    inside: Sums = {day: sums[day] for day in (day.isoformat() for day in of.days)}
    checks = row_checks(of.table, conf, sums)
    if of.usual:
        checks += count_checks(history.rows.get(name, {}), rows_by_source(inside), conf.gate, optional)
    if name == "examples":
        labels = labels_by_source(inside, conf, clock.mature_to)
        log_began = min([*inside, *history.rows.get(name, {})])
        checks = [*example_checks(conf, inside, labels, log_began), *checks, *label_checks(history.labels, labels, conf.gate)]
    if of.profiled is not None:
        checks += shift_checks(counted[(name, "profile")], conf, history, clock.train_from, clock.train_to)
    return checks


def _key_check(of: Judged, repeated: int) -> Check:
    key, last = ", ".join(of.table.key), of.last.isoformat()
    why = f"{key} is the key: a row that is there twice is counted and learned twice"
    told = {last: f"{repeated:,} keys more than once"}
    return Check("key_unique", key, {last: float(repeated)}, why, high=0, needed="each key once", told=told)


def _range_check(of: Judged, sums: Sums) -> Check:
    inside = {day.isoformat() for day in of.days}
    foreign = {day: sum(source["rows"] for source in sources.values()) for day, sources in sums.items() if day not in inside}
    told = {day: f"{rows:,.0f} rows besides" for day, rows in foreign.items()}
    why = "only days of the range that was built belong here"
    return Check("day_in_range", "day", foreign, why, high=0, needed="only days of the range", told=told, nothing="only those")


def _for_the_ledger(exact: Sequence[Judged], counted: Counted, conf: Conf, clock: Clock) -> dict[str, Any]:
    """What later nights compare with; it becomes history only if this gate passes (see baseline.History)."""
    rows: dict[str, Any] = {}
    kept: dict[str, Any] = {"rows": rows}
    for of in exact:
        sums = counted[(of.table.name, "sums")]
        rows[of.table.name] = {day: sources for day, sources in rows_by_source(sums).items() if sources}
        if of.table.name == "examples":
            made = counted[(of.table.name, "profile")]
            kept |= {"labels": labels_by_source(sums, conf, clock.mature_to), "bins": made.bins, "profiles": made.profiles}
    return kept
