"""What ranks write, read by the process that started them: lines for people, and notices for it: that a rank lives, and what ended it.

Notices go through stderr, since that is the one way that is still open when a rank ends in error or its neighbour no longer answers.
"""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

NOTICE = "adtower rank: "
BEAT_SECONDS = 1.0
#: How much longer than the others a rank must have been silent to be the one to look at.
SILENT_SECONDS = 4.0


@dataclass(frozen=True)
class Failure:
    """The error that ended a rank. `knock_on`: it only says that another rank was gone."""

    rank: int
    error: str
    trace: str
    knock_on: bool


def tell(failure: Failure) -> None:
    """In a rank's process."""
    _notice({"failure": asdict(failure)})


def beat(rank: int) -> None:
    """In a rank's process: from now on say every second that it lives, until it ends."""

    def beats() -> None:
        while True:
            _notice({"rank": rank, "host": socket.gethostname(), "at": time.time()})
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=beats, name="beats", daemon=True).start()


def _notice(what: dict[str, object]) -> None:
    sys.stderr.write(f"{NOTICE}{json.dumps(what)}\n")  # in one piece: ranks print from several threads
    sys.stderr.flush()


@dataclass
class Heard:
    """`alive`: rank -> (when it last spoke, by its own clock, since lines may be held up; its host); `failures` in the order in which they
    came."""

    alive: dict[int, tuple[float, str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def take(self, notice: str) -> None:
        told = json.loads(notice)
        if "failure" in told:
            self.failures.append(Failure(**told["failure"]))
        else:
            self.alive[int(told["rank"])] = told["at"], told["host"]

    def cause(self) -> Failure | None:
        """The first failure that is no other rank's doing."""
        return next((failure for failure in self.failures if not failure.knock_on), None)

    def silent(self) -> dict[int, tuple[float, str]]:
        """Ranks that fell silent while others went on: rank -> (for how many seconds by then, its host)."""
        latest = max((at for at, _ in self.alive.values()), default=0.0)
        behind = {rank: (latest - at, host) for rank, (at, host) in sorted(self.alive.items())}
        return {rank: found for rank, found in behind.items() if found[0] >= SILENT_SECONDS}


class Relay(io.TextIOBase):
    """Ranks' output -> this process's stderr, line by line, without Horovod's `[0]<stderr>:`; notices go to `heard`. Stdout stays the
    caller's.

    Text comes cut anywhere, and each rank's by a thread of its own.
    """

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.begun: dict[int, str] = {}  # thread -> its line so far

    def write(self, text: str) -> int:
        *lines, rest = (self.begun.get(threading.get_ident(), "") + text).split("\n")
        self.begun[threading.get_ident()] = rest
        for line in lines:
            plain = re.sub(r"^\[\d+\]<std(out|err)>:", "", line)
            if plain.startswith(NOTICE):
                self.heard.take(plain.removeprefix(NOTICE))
            else:
                print(plain, file=sys.stderr, flush=True)
        return len(text)
