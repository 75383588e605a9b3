"""A training's curves as TensorBoard's event files; the only file that writes them. They decide nothing, so no trouble with them ends a training."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class Scalars:
    """Event files in `directory`; those of an earlier run are kept up to its step `begun`, from where this one goes on."""

    def __init__(self, directory: str, begun: int) -> None:
        self.directory = directory
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(directory, purge_step=begun + 1)
        except ImportError as error:
            _without(f"{error}; install adtower[tracking], or set tracking.tensorboard to false")
        except OSError as error:
            _without(f"{directory}: {error}")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """What is not finite is left out. On the disk when this returns, so that a curve can be watched."""
        if self.writer is None:
            return
        try:
            for name, value in scalars.items():
                if math.isfinite(value):
                    self.writer.add_scalar(name, value, step)
            self.writer.flush()
        except OSError as error:
            self.writer = None
            _without(f"{self.directory}: {error}")

    def close(self) -> None:
        with suppress(OSError):  # all that was written is on the disk
            if self.writer is not None:
                self.writer.close()


def _without(reason: str) -> None:
    print(f"train: goes on without TensorBoard files ({reason})", file=sys.stderr, flush=True)
