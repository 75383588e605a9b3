"""A rank's side: it joins the others, does its work, and tells the process that started it how far it is and what ended it."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from models import logs
from models.collectives import Collective, HorovodCollective, TorchCollective
from models.errors import PeerLost
from models.rank_voices import Failure, Voice


def as_rank(
    voice: Voice,
    join: Callable[[], HorovodCollective | TorchCollective],
    work: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    """`work(collective, *args)` among the ranks that `join` joins; its result. A failure is told, and ends this process."""
    sys.stderr, begun = voice, time.monotonic()
    logs.in_a_rank(voice.rank, voice.on_terminal)
    try:
        with exchange(voice):
            collective = join()
        logs.tell("rank joined", ranks=collective.size)
        result = work(Spoken(collective, voice), *args)
        logs.tell("rank done", seconds=round(time.monotonic() - begun, 1))
    except Exception as error:
        logs.tell("rank failed", logging.ERROR, error, message=f"{type(error).__name__}: {error}")
        # Said here, as launchers hand on results alone. And out at once: leaving in good order would wait for ranks that may never answer.
        voice.failed(failure_of(voice.rank, error))
        os._exit(1)
    voice.done()
    collective.leave()
    return result


def failure_of(rank: int, error: Exception) -> Failure:
    return Failure(rank, f"{type(error).__name__}: {error}", traceback.format_exc(), knock_on=isinstance(error, PeerLost))


@contextmanager
def exchange(voice: Voice) -> Iterator[None]:
    """An exchange with the other ranks: counted, so that the one that others wait for can be told from them, and failing by their doing."""
    voice.exchanges += 1
    try:
        yield
    except RuntimeError as error:  # gloo's, NCCL's and Horovod's
        raise PeerLost(f"exchange {voice.exchanges} with the other ranks failed ({type(error).__name__}: {error})") from error


class Spoken:
    """A collective, each exchange of which the rank's voice counts."""

    def __init__(self, collective: Collective, voice: Voice) -> None:
        self.collective, self.voice = collective, voice
        self.rank, self.size, self.device = collective.rank, collective.size, collective.device

    def sum_(self, flat: Tensor) -> None:
        with exchange(self.voice):
            self.collective.sum_(flat)

    def gather(self, rows: Tensor) -> Callable[[], Tensor]:
        with exchange(self.voice):
            under_way = self.collective.gather(rows)

        def gathered() -> Tensor:
            with exchange(self.voice):
                return under_way()

        return gathered

    def broadcast_(self, tensor: Tensor) -> None:
        with exchange(self.voice):
            self.collective.broadcast_(tensor)

    def barrier(self) -> None:
        with exchange(self.voice):
            self.collective.barrier()
