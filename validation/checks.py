"""A check: a number a day and the bounds it must keep. Checks are made from counts by plain functions, and judged by Great Expectations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from validation.findings import Finding, Severity

SAMPLE = 5
NOTHING = "nothing to judge"


@dataclass(frozen=True)
class Check:
    """Numbers by day (ISO text), and the bounds (both included) that each must keep; a day without a number is not judged.

    `broken` is the SQL predicate of an offending row where rows can be named; then a number counts such rows. `told` says a day's number in
    words where the number alone says too little, `needed` the bounds, and `nothing` why there is no number at all.
    """

    name: str
    column: str
    numbers: Mapping[str, float]
    why: str
    low: float | None = None
    high: float | None = None
    severity: Severity = "critical"
    knob: str = ""
    broken: str = ""
    needed: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    nothing: str = NOTHING

    @property
    def label(self) -> str:
        """Names the check within its table: a rule may be asked of several columns, heads or sources."""
        return f"{self.name} {self.column}"

    @property
    def bounds(self) -> str:
        if self.needed:
            return self.needed
        if self.broken:
            return "0 rows a day"
        parts = [f"at least {self.low:g}" if self.low is not None else "", f"at most {self.high:g}" if self.high is not None else ""]
        return f"{' and '.join(part for part in parts if part)} a day"

    @property
    def wrong(self) -> dict[str, float]:
        """The days whose number lies outside the bounds."""
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        return {day: number for day, number in self.numbers.items() if not low <= number <= high}

    def finding(self, table: str, success: bool, sample: tuple[str, ...] = (), why: str = "") -> Finding:
        """`success` as judged; `why` replaces the check's own reason, where it could not be judged."""
        wrong = self.wrong
        counted, unit = (int(sum(wrong.values())), "rows") if self.broken else (len(wrong), "days")
        observed = self._observed(self.numbers if success else wrong)
        single = next(iter(self.numbers.values())) if len(self.numbers) == 1 else None
        return Finding(
            self.name,
            self.column,
            self.severity,
            success,
            observed,
            self.bounds,
            counted,
            unit,
            sample=sample,
            knob=self.knob,
            why=why or self.why,
            table=table,
            number=single,
            limit=self.high,
        )

    def _observed(self, numbers: Mapping[str, float]) -> str:
        """The days one by one if they are few, else their range."""
        if not numbers:
            return self.nothing
        low, high = min(numbers.values()), max(numbers.values())
        if self.told and len(numbers) <= SAMPLE:
            return "; ".join(f"{self.told.get(day, f'{number:.4g}')} on {day}" for day, number in sorted(numbers.items()))
        if low == high and len(numbers) > 1:
            return f"{low:.4g} on each of {len(numbers)} days"
        if len(numbers) > SAMPLE:
            return f"{low:.4g} to {high:.4g} on {len(numbers)} days"
        return ", ".join(f"{number:.6g} on {day}" for day, number in sorted(numbers.items()))
