"""What a person watching a training sees: on a terminal a bar in place, elsewhere a plain line every few seconds, and TensorBoard's files."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from models import terminal
from models.scalars import Scalars

LINE_SECONDS, BAR_SECONDS, SCALAR_SECONDS = 5.0, 0.5, 1.0
BAR_WIDTH = 20


class Seen(NamedTuple):
    """Of the epoch so far, all ranks' rows, each measured before it was learned from; not finite where there is nothing to tell from.

    `loss`: mean log-loss a head. `ratio`: a head's predicted positives / observed ones. `pace`: the learning rates' share of their highest.
    """

    loss: list[float]
    ratio: list[float]
    pace: float


class Progress:
    """Rate, time left, loss and calibration of a training; silent on all ranks but 0. `rows` counts real rows, not padding, of all ranks and
    steps.

    The first `begun` steps are an earlier run's: they count as done, and not for the rate.
    """

    def __init__(self, rank: int, steps: int, rows: int, begun: int = 0, heads: Sequence[str] = (), tensorboard: str | None = None) -> None:
        self.rank, self.steps, self.rows, self.begun, self.heads = rank, steps, rows, begun, heads
        self.scalars = Scalars(tensorboard, begun) if tensorboard and rank == 0 else None
        self.on_terminal = sys.stderr.isatty()
        self.started = self.told = self.written = time.monotonic()

    def step(self, done: int, seen: Callable[[], Seen]) -> None:
        """After `done` of all steps; `seen` is asked only where something is shown."""
        if self.rank:
            return
        now, last = time.monotonic(), done == self.steps
        if self.scalars is not None and (last or now - self.written >= SCALAR_SECONDS):
            self.written = now
            self.scalars.write(done, self._named(done, seen()))
        if last or now - self.told >= (BAR_SECONDS if self.on_terminal else LINE_SECONDS):
            self.told = now
            self._tell(done, now - self.started, seen(), in_place=self.on_terminal and not last)

    def _tell(self, done: int, seconds: float, seen: Seen, in_place: bool) -> None:
        left = f"{seconds * (self.steps - done) / (done - self.begun):.0f} s left"
        rate = f"{self.rows_per_second(done):,.0f} rows/s"
        heads = ", ".join(
            f"{head} {_or_dash(loss, '.4f')} x{_or_dash(ratio, '.2f')}"
            for head, loss, ratio in zip(self.heads, seen.loss, seen.ratio, strict=True)
        )
        if in_place:
            full = BAR_WIDTH * done // self.steps
            terminal.bar(f"train [{'#' * full}{'.' * (BAR_WIDTH - full)}] {100 * done // self.steps}%, {rate}, {left}; {heads}")
        else:
            terminal.say(f"train: step {done}/{self.steps}, {rate}, {seconds:.0f} s, {left}; loss and predicted/observed: {heads}")

    def _named(self, done: int, seen: Seen) -> dict[str, float]:
        losses = {f"loss/{head}": loss for head, loss in zip(self.heads, seen.loss, strict=True)}
        ratios = {f"ratio/{head}": ratio for head, ratio in zip(self.heads, seen.ratio, strict=True)}
        return losses | ratios | {"rows_per_second": self.rows_per_second(done), "learning_rate_share": seen.pace}

    def close(self) -> None:
        if self.scalars is not None:
            self.scalars.close()

    def rows_per_second(self, done: int) -> float:
        """Of this run alone, `done` of all steps being done."""
        return self.rows * (done - self.begun) / self.steps / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def _or_dash(number: float, form: str) -> str:
    return format(number, form) if math.isfinite(number) else "-"
