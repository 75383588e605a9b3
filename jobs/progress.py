"""Progress of a night for a person: one line a stage, and on a terminal a live one while it runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from models import terminal


class Progress:
    """Prints to stderr, so that stdout stays for results."""

    def __init__(self, spark: SparkSession, stages: int) -> None:
        self._tracker = spark.sparkContext.statusTracker()
        self._stages, self._at = stages, 0
        self._live = sys.stderr.isatty()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show `name` with seconds and Spark tasks until the block ends; on a terminal only."""
        self._at += 1
        if not self._live:
            yield
            return
        stop = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(name, stop), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            stop.set()
            ticker.join()

    def line(self, name: str, status: str, seconds: float, message: str) -> None:
        print(f"[{self._at}/{self._stages}] {name:<15} {status:<8} {seconds:7.1f} s  {message}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _tick(self, name: str, stop: threading.Event) -> None:
        begun = time.monotonic()
        while not stop.wait(0.5):
            if not terminal.held():  # a training shows a bar of its own
                terminal.in_place(f"[{self._at}/{self._stages}] {name:<15} {time.monotonic() - begun:5.0f} s {self._tasks()}")
        terminal.in_place("")

    def _tasks(self) -> str:
        stages = [info for info in map(self._tracker.getStageInfo, self._tracker.getActiveStageIds()) if info is not None]
        return f"{sum(info.numCompletedTasks for info in stages)} of {sum(info.numTasks for info in stages)} tasks" if stages else ""
