"""The row account and the quarantined shares, as findings: no row is lost, and not too many are broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from validation.checks import SAMPLE
from validation.findings import Finding, Severity


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


def check_quarantine(
    account: Sequence[Mapping[str, Any]], max_share: float, of_block: Mapping[str, float] | None = None, min_rows: int = 1
) -> tuple[Finding, ...]:
    """A source's quarantined share over all its blocks and days stops the night above `max_share`; that of one block and day warns,
    where it has `min_rows` or more rows in.

    A block with a share of its own in `of_block` is judged by that, alone, and is left out of its source's sum.
    """
    own = of_block or {}
    findings = [
        _quarantine_finding(name, rows, max_share, "gate.max_quarantined_share", "critical")
        for name, rows in _grouped([row for row in account if row["block"] not in own], "source").items()
    ]
    for block, rows in _grouped(account, "block").items():
        share, knob = own.get(block, max_share), f"sources.{block}.max_quarantined_share" if block in own else "gate.max_quarantined_share"
        if block in own:
            findings.append(_quarantine_finding(block, rows, share, knob, "critical"))
        enough = [row for row in rows if row["rows_in"] >= min_rows]
        worst = [_quarantine_finding(f"{block}, worst day", [max(enough, key=_share)], share, knob, "warning")] if enough else []
        findings += [finding for finding in worst if not finding.success]
    return tuple(findings)


def _quarantine_finding(of: str, rows: Sequence[Mapping[str, Any]], max_share: float, knob: str, severity: Severity) -> Finding:
    quarantined, rows_in = sum(map(_broken, rows)), sum(row["rows_in"] for row in rows)
    share = quarantined / rows_in if rows_in else 0.0
    worst = sorted((row for row in rows if _broken(row)), key=_share, reverse=True)[:SAMPLE]
    return Finding(
        "quarantined_share",
        of,
        severity,
        share <= max_share,
        f"{share:.2%} of {rows_in:,} rows in",
        f"at most {max_share:.2%}",
        quarantined,
        sample=tuple(f"{row['block']} {row['day']}: {_broken(row)} of {row['rows_in']}" for row in worst),
        knob=f"{knob} is {max_share}",
        why="the reasons stand in the quarantine table, with file and row",
    )


def _broken(row: Mapping[str, Any]) -> int:
    """Quarantined rows that something is wrong with: those of people who were forgotten are not."""
    return row["quarantined"] - row.get("forgotten", 0)


def _share(row: Mapping[str, Any]) -> float:
    return _broken(row) / row["rows_in"] if row["rows_in"] else 0.0


def _grouped(account: Sequence[Mapping[str, Any]], by: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in account:
        groups.setdefault(str(row[by]), []).append(row)
    return groups
