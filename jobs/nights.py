"""Several nights one after the other, going on after one that failed: jobs/nightly.py --on-failure go-on."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from conf.schema import Conf
from jobs.common import AGAIN, BUG, CONFLICT, DONE, REFUSED, USAGE, Stage, code_of, runs_dir, say, write_summary

GO_ON = "go-on"
#: After these the next nights are not tried. 2: options and configuration are those of all nights. 7: another run is under way in this working
#: folder, and what it ends with decides what the next night starts from. 75: Spark, or the place that a rank had, is gone.
POINTLESS = (USAGE, CONFLICT, AGAIN)
SAID = {DONE: "done", REFUSED: "done, candidate refused: the model before it serves"}


@dataclass(frozen=True)
class Nights:
    """One night, or several days as one range (`first` before `last`), and its stages."""

    first: date
    last: date
    stages: tuple[Stage, ...]

    @property
    def told(self) -> str:
        return f"{self.first} to {self.last}" if self.first != self.last else f"{self.last}"


@dataclass(frozen=True)
class Ended:
    night: Nights
    code: int | None  # None: it was not run
    reason: str

    @property
    def failed(self) -> bool:
        return self.code is not None and self.code not in SAID


def in_order(nights: Sequence[Nights], run: Callable[[Nights], int], conf: Conf, summary: Path | None) -> int:
    """Run every night, also after one that failed, unless what ended it would end the next ones too; then say how each ended.

    The exit code is that of the first night that failed, and `summary`, where given, is then that night's.
    """
    ended: list[Ended] = []
    for night in nights:
        ended.append(tried(night, run))
        if ended[-1].code in POINTLESS:
            break
    last = ended[-1]
    ended += [Ended(night, None, f"not run, after exit {last.code} of {last.night.told}") for night in nights[len(ended) :]]
    for of in ended:
        say(f"night {of.night.told}  {'not run' if of.code is None else f'exit {of.code}'}  {of.reason}")
    first_failed = next((of for of in ended if of.failed), None)
    if first_failed is None:
        return max(of.code for of in ended if of.code is not None)
    if summary:
        write_summary(summary, summary_of(conf, first_failed))
    assert first_failed.code is not None
    return first_failed.code


def tried(night: Nights, run: Callable[[Nights], int]) -> Ended:
    try:
        code = run(night)
        return Ended(night, code, SAID[code])
    except Exception as error:
        if code_of(error) == BUG:
            traceback.print_exception(error)
        return Ended(night, code_of(error), f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def summary_of(conf: Conf, of: Ended) -> dict[str, object]:
    """The night's own; a night that ended before it began (its lock was held) wrote none."""
    told: dict[str, object] = {"day": of.night.last, "exit_code": of.code, "reason": of.reason, "waiting": []}
    file = runs_dir(conf, of.night.last) / "run_summary.json"
    written = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return written if written.get("exit_code") == of.code else told
