"""What a stage of a night is made from, and in words what of that has changed since it was last done: why it is not skipped.

The ledger keeps it with each stage that did its work (`runs.depends`): content hashes of its inputs, the versions of their tables, the
configuration that it read and the hash of each package whose code it may import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from etl.contents import TABLE_DAY
from etl.runs import fingerprint
from models.logs import without_secrets

NEVER_DONE = "never done before"
#: Stands for a knob that is not there.
ABSENT = object()


@dataclass(frozen=True)
class Depends:
    """Names and hashes of inputs; sections of the configuration; package -> hash of its source; the first day asked for."""

    stage: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    code: dict[str, str]
    asked: str

    @property
    def mark(self) -> str:
        """A stage of the same mark is made from the same."""
        return fingerprint(asdict(self))

    def kept(self, versions: Mapping[str, str]) -> dict[str, Any]:
        """For the ledger, with the tables' versions; what looks like a secret is left out."""
        return {**asdict(self), "settings": without_secrets(self.settings), "versions": dict(versions)}

    def changes(self, before: Mapping[str, Any]) -> str:
        """In words, against what was kept; empty where nothing that is kept differs."""
        told = [
            amount("inputs changed", spans(self._differing("inputs", before, here=True, there=True))),
            amount("new inputs", spans(self._differing("inputs", before, here=True, there=False))),
            amount("inputs gone", spans(self._differing("inputs", before, here=False, there=True))),
            amount("configuration changed", knobs(before["settings"], without_secrets(self.settings))),
            amount("code changed", self._differing("code", before, here=True, there=True)),
        ]
        if self.asked != before["asked"]:
            told.append(f"days are built from {self.asked} on, and were from {before['asked']} on")
        return "; ".join(line for line in told if line)

    def _differing(self, part: str, before: Mapping[str, Any], here: bool, there: bool) -> list[str]:
        """Names that stand now (`here`) or stood then (`there`), those that stand in both by another value."""
        now, then = getattr(self, part), before[part]
        return sorted(name for name in now | then if now.get(name) != then.get(name) and (name in now, name in then) == (here, there))


def spans(names: Iterable[str]) -> list[str]:
    """Days of tables from first to last; other names as they are."""
    days: dict[str, list[date]] = {}
    others = []
    for name in names:
        if found := TABLE_DAY.match(name):
            days.setdefault(found[1], []).append(date.fromisoformat(found[3]))
        else:
            others.append(name)
    told = []
    for table, of in sorted(days.items()):
        told.append(f"{table}/{of[0]}" if len(set(of)) == 1 else f"{table} of {len(set(of))} days from {min(of)} to {max(of)}")
    return told + others


def knobs(before: Any, now: Any, path: str = "") -> list[str]:
    """Each knob that differs, by its path in the configuration, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = sorted(before.keys() | now.keys())
        return [
            line for name in names for line in knobs(before.get(name, ABSENT), now.get(name, ABSENT), f"{path}.{name}" if path else name)
        ]
    return [] if before == now else [f"{path} was {value(before)}, is {value(now)}"]


def value(of: Any, longest: int = 60) -> str:
    if of is ABSENT:
        return "not there"
    told = str(of)
    return told if len(told) <= longest else f"{told[:longest]}…"


def amount(what: str, names: list[str]) -> str:
    return f"{what}: {some(names)}" if names else ""


def some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
