"""The gate on `examples`: a Great Expectations checkpoint, its Data Docs, and the findings that stop a night or warn it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.schema import Conf
from etl.schemas import Table
from etl.schemas import examples as examples_table
from validation.checkpoint import Checkpoints, exception_message
from validation.expectations import DayCheck, day_checks, day_expectations, frame_expectations, key_expectation
from validation.findings import Finding, GateReport, Severity

SAMPLE = 5
MEND_SCHEMA = "build_examples with the same configuration; a new head or feature needs a new `workdir`"


def check_examples(examples: DataFrame, conf: Conf, docs_dir: Path, *, first: date, last: date, mature_to: date) -> GateReport:
    """Check the days first..last of `examples` and write Data Docs under `docs_dir`. A failure raises in raise_if_failed only.

    Labels are final on days up to `mature_to` (M), which may lie before `first`. The schema is judged first: where it is not exact, the
    rows are not read. They are read once whole and twice for their key, so give a table that was written, or a frame that is cached:
    caching here costs more than it saves (240,000 rows of 45 columns from Delta on 2 busy cores: 6 s without, 18 s with).
    """
    table = examples_table(conf)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    what = f"examples of {first} to {last}"
    made = Checkpoints(docs_dir, f"{first}_{last}")
    found_types = dict(examples.dtypes)
    schema = [_schema_finding(result, table, found_types) for result in made.judge("examples_schema", examples, frame_expectations(table))]
    if not all(finding.success for finding in schema):
        return GateReport(what, tuple(schema), made.build_docs())
    checks = day_checks(conf, mature_to)
    counted = _counted(examples, checks, days)
    by_day = made.judge("examples_by_day", counted, day_expectations(checks, days))
    keys = made.judge("examples_key", examples, [key_expectation(table)])
    by_name = {check.name: check for check in checks}
    found = [_day_finding(result, by_name, counted, examples, conf) for result in by_day]
    found += [_key_finding(result, table) for result in keys]
    return GateReport(what, (*schema, *found), made.build_docs())


def _counted(rows: DataFrame, checks: Sequence[DayCheck], days: Sequence[date]) -> pd.DataFrame:
    """One row a day: `day` (ISO text) and a float a check, NaN where there is nothing to judge. A day without rows is a row too."""
    found = rows.groupBy("day").agg(*(F.expr(check.counted).alias(check.name) for check in checks)).collect()
    by_day: dict[str, dict[str, Any]] = {day.isoformat(): {"rows_a_day": 0} for day in days}
    by_day.update({str(row["day"]): row.asDict() for row in found})
    names = [check.name for check in checks]
    table = pd.DataFrame([{name: counts.get(name) for name in names} for counts in by_day.values()], columns=names, dtype="float64")
    table.insert(0, "day", list(by_day))
    return table.sort_values("day", ignore_index=True)


def _schema_finding(result: ExpectationValidationResult, table: Table, found_types: Mapping[str, str]) -> Finding:
    """`found_types`: column -> type as the frame has them, in its order."""
    check, column = _named(result)
    needed_types = {field.name: field.dataType.simpleString() for field in table.columns}
    good = bool(result.success)
    knob = "" if good else MEND_SCHEMA
    if check == "columns":
        missing, foreign = sorted(needed_types.keys() - found_types.keys()), sorted(found_types.keys() - needed_types.keys())
        names = f"missing: {', '.join(missing) or 'none'}; not expected: {', '.join(foreign) or 'none'}"
        observed = "as needed" if good else names if missing or foreign else "another order"
        needed = f"{len(needed_types)} columns in the order of etl/schemas.py"
        return Finding(check, column, "critical", good, observed, needed, len(missing) + len(foreign), "columns", knob=knob)
    # GX reports a column that is not there as an ordinary failure, with an exception beside it.
    found = found_types.get(column, "no such column")
    why = exception_message(result) if column in found_types else ""
    return Finding(check, column, "critical", good, found, needed_types[column], int(not good), "columns", knob=knob, why=why)


def _key_finding(result: ExpectationValidationResult, table: Table) -> Finding:
    check, column = _named(result)
    repeated = (result.result.get("details") or {}).get("unexpected_rows") or []
    sample = tuple(sorted(_told(row) for row in repeated)[:SAMPLE])
    count = int(result.result.get("observed_value") or 0)
    why = exception_message(result) or f"{', '.join(table.key)} is the key: an impression counted twice is learned twice"
    observed = f"{count:,} keys more than once"
    return Finding(check, column, "critical", bool(result.success), observed, "each key once", count, "keys", sample, why=why)


def _day_finding(
    result: ExpectationValidationResult, checks: Mapping[str, DayCheck], counted: pd.DataFrame, rows: DataFrame, conf: Conf
) -> Finding:
    name, column = _named(result)
    good, failed_to_run = bool(result.success), exception_message(result)
    if name == "day_in_range":
        foreign = [str(value) for value in result.result.get("partial_unexpected_list") or []]
        observed = f"{', '.join(foreign)} besides" if foreign else "only those"
        return Finding(name, column, "critical", good, observed, "only days of the range", len(foreign), "days", why=failed_to_run)
    check, numbers = checks[name], counted.set_index("day")[name].dropna()
    low, high = -math.inf if check.low is None else check.low, math.inf if check.high is None else check.high
    wrong = numbers[~numbers.between(low, high)]
    unexpected, unit = (int(numbers.sum()), "rows") if check.broken else (len(wrong), "days")
    return Finding(
        name,
        column,
        check.severity,
        good,
        _days_told(numbers if good else wrong),
        check.needed,
        unexpected,
        unit,
        sample=_offending(rows, check) if check.broken and len(wrong) else (),
        knob=f"{check.knob} is {getattr(conf.gate, check.knob.removeprefix('gate.'))}" if check.knob else "",
        why=failed_to_run or check.why,
    )


def _days_told(numbers: pd.Series) -> str:
    """The range over the days, or the first few days one by one if those are all there are."""
    if not len(numbers):
        return "nothing to judge"
    if numbers.min() == numbers.max() and len(numbers) > 1:
        return f"{numbers.min():.4g} on each of {len(numbers)} days"
    if len(numbers) > SAMPLE:
        return f"{numbers.min():.4g} to {numbers.max():.4g} on {len(numbers)} days"
    return ", ".join(f"{number:.6g} on {day}" for day, number in numbers.items())


def _offending(rows: DataFrame, check: DayCheck) -> tuple[str, ...]:
    """The first few offending rows by key: what one looks up in the logs, and the value that is wrong."""
    shown = list(dict.fromkeys(["impression_id", "source", "shown_at", check.column]))
    first = rows.where(F.expr(check.broken)).orderBy("impression_id", "shown_at").limit(SAMPLE)
    return tuple(_told(row.asDict()) for row in first.select(*(F.col(name).cast("string") for name in shown)).collect())


def _told(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={'null' if value is None else value}" for key, value in row.items())


def _named(result: ExpectationValidationResult) -> tuple[str, str]:
    assert result.expectation_config is not None
    meta: Mapping[str, str] = result.expectation_config.meta or {}
    return meta["check"], meta["column"]


def check_account(account: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """No row is lost: rows_in = kept + duplicates + quarantined for each block and day. `account`: rows of etl.sources.account."""
    off = [row for row in account if row["rows_in"] != row["kept"] + row["duplicates"] + row["quarantined"]]
    return (
        Finding(
            "account_balances",
            "(row account)",
            "critical",
            not off,
            f"{len(account) - len(off)} of {len(account)} blocks and days balance",
            "rows in = kept + duplicates + quarantined",
            len(off),
            "blocks and days",
            sample=tuple(
                f"{row['block']} {row['day']}: {row['rows_in']} in, {row['kept']} + {row['duplicates']} + {row['quarantined']} out"
                for row in off[:SAMPLE]
            ),
            why="a row that is nowhere is a bug; the landing files hold it still",
        ),
    )


def check_quarantine(account: Sequence[Mapping[str, Any]], max_share: float) -> tuple[Finding, ...]:
    """A source's quarantined share over all its blocks and days stops the night above `max_share`; that of one block and day warns."""
    findings = [_quarantine_finding(name, rows, max_share, "critical") for name, rows in _grouped(account, "source").items()]
    for block, rows in _grouped(account, "block").items():
        finding = _quarantine_finding(f"{block}, worst day", [max(rows, key=_share)], max_share, "warning")
        findings += [] if finding.success else [finding]
    return tuple(findings)


def _quarantine_finding(of: str, rows: Sequence[Mapping[str, Any]], max_share: float, severity: Severity) -> Finding:
    quarantined, rows_in = sum(row["quarantined"] for row in rows), sum(row["rows_in"] for row in rows)
    share = quarantined / rows_in if rows_in else 0.0
    worst = sorted((row for row in rows if row["quarantined"]), key=_share, reverse=True)[:SAMPLE]
    return Finding(
        "quarantined_share",
        of,
        severity,
        share <= max_share,
        f"{share:.2%} of {rows_in:,} rows in",
        f"at most {max_share:.2%}",
        quarantined,
        sample=tuple(f"{row['block']} {row['day']}: {row['quarantined']} of {row['rows_in']}" for row in worst),
        knob=f"gate.max_quarantined_share is {max_share}",
        why="the reasons stand in the quarantine table, with file and row",
    )


def _share(row: Mapping[str, Any]) -> float:
    return row["quarantined"] / row["rows_in"] if row["rows_in"] else 0.0


def _grouped(account: Sequence[Mapping[str, Any]], by: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in account:
        groups.setdefault(str(row[by]), []).append(row)
    return groups
