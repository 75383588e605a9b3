"""What a gate found, in plain values: the gate makes findings, the report shows them, the ledger stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Finding:
    """One expectation and what it met. `unexpected` counts `unit` (rows, days, columns, ...); None where nothing is counted.

    `number`: what was found, where it is a single one, and `limit` the most it may be: for tables of it over many nights.
    """

    expectation: str
    column: str
    severity: Severity
    success: bool
    observed: str
    needed: str
    unexpected: int | None = None
    unit: str = "rows"
    sample: tuple[str, ...] = ()
    knob: str = ""
    why: str = ""
    table: str = ""
    number: float | None = None
    limit: float | None = None

    def lines(self) -> list[str]:
        """The finding as an operator reads it: what was found, what is needed, which rows, which knob to turn."""
        count = "" if self.unexpected is None else f"{self.unexpected:,} unexpected {self.unit}; "
        of = f"{self.table}.{self.column}" if self.table else self.column
        lines = [f"- {self.expectation} ({of}, {self.severity}): {count}observed {self.observed}; needed {self.needed}"]
        if self.why:
            lines.append(f"    why: {self.why}")
        if self.sample:
            lines.append(f"    such as: {' | '.join(self.sample)}")
        if self.knob:
            lines.append(f"    knob: {self.knob}")
        return lines


@dataclass(frozen=True)
class GateReport:
    """Every finding of a gate. `docs` is the path of the Data Docs index, None where there are none; `counts` is for the ledger."""

    what: str
    findings: tuple[Finding, ...]
    docs: str | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed_critical(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.success and finding.severity == "critical")

    @property
    def failed_warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.success and finding.severity == "warning")

    def with_findings(self, more: Sequence[Finding]) -> GateReport:
        return GateReport(self.what, (*self.findings, *more), self.docs, self.counts)

    def raise_if_failed(self) -> None:
        if self.failed_critical:
            raise GateFailed(self)


class GateFailed(Exception):
    """A critical expectation failed; the message lists every failed expectation, the warnings last."""

    def __init__(self, report: GateReport) -> None:
        self.report = report
        critical, warnings = report.failed_critical, report.failed_warnings
        also = f", and {len(warnings)} warnings" if warnings else ""
        head = f"{report.what}: {len(critical)} of {len(report.findings)} expectations failed{also}"
        lines = [line for finding in (*critical, *warnings) for line in finding.lines()]
        docs = [f"Data Docs: {report.docs}"] if report.docs else []
        super().__init__("\n".join([head, *lines, *docs]))
