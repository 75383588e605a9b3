"""What a person watching a training sees: a plain line on stderr every few seconds."""

from __future__ import annotations

import sys
import time

EVERY_SECONDS = 5.0


class Progress:
    """Rate and time left of a training; silent on all ranks but 0. `rows` counts real rows, not padding, of all ranks."""

    def __init__(self, rank: int, steps: int, rows: int) -> None:
        self.rank, self.steps, self.rows = rank, steps, rows
        self.started = self.printed = time.monotonic()

    def step(self, done: int, loss: float) -> None:
        """After `done` of all steps; `loss` of the last batch, summed over heads."""
        now = time.monotonic()
        if self.rank or (now - self.printed < EVERY_SECONDS and done < self.steps):
            return
        self.printed, seconds = now, now - self.started
        share = done / self.steps
        print(
            f"train: step {done}/{self.steps}, loss {loss:.4f}, {self.rows * share / max(seconds, 1e-9):,.0f} rows/s, "
            f"{seconds:.0f} s, {seconds * (1 - share) / share:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
