"""What a person watching a training sees: a plain line on stderr every few seconds."""

from __future__ import annotations

import sys
import time

EVERY_SECONDS = 5.0


class Progress:
    """Rate and time left of a training; silent on all ranks but 0. `rows` counts real rows, not padding, of all ranks and steps.

    The first `begun` steps are an earlier run's: they count as done, and not for the rate.
    """

    def __init__(self, rank: int, steps: int, rows: int, begun: int = 0) -> None:
        self.rank, self.steps, self.rows, self.begun = rank, steps, rows, begun
        self.started = self.printed = time.monotonic()

    def step(self, done: int, loss: float) -> None:
        """After `done` of all steps; `loss` of the last batch, summed over heads."""
        now = time.monotonic()
        if self.rank or (now - self.printed < EVERY_SECONDS and done < self.steps):
            return
        self.printed, seconds = now, now - self.started
        print(
            f"train: step {done}/{self.steps}, loss {loss:.4f}, {self.rows_per_second(done):,.0f} rows/s, "
            f"{seconds:.0f} s, {seconds * (self.steps - done) / (done - self.begun):.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def rows_per_second(self, done: int) -> float:
        """Of this run alone, `done` of all steps being done."""
        return self.rows * (done - self.begun) / self.steps / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
