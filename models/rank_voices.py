"""What ranks say to the process that started them, as they say it: lines for people, that they live, and what ended them.

Over a socket of our own, since Horovod on Spark hands output on by the 64 KiB: a night's progress would come when the night is over, and a
stopped rank would look like a quiet one. Messages are JSON; both ends prove that they know the key (multiprocessing.connection).
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from models import terminal

BEAT_SECONDS = 1.0
#: In a rank's environment: 1 where the starting process has a terminal.
ON_TERMINAL = "ADTOWER_ON_TERMINAL"
#: A rank that was silent for so long when another failed is the one to look at.
SILENT_SECONDS = 4.0


@dataclass(frozen=True)
class Failure:
    """The error that ended a rank. `knock_on`: it only says that another rank was gone."""

    rank: int
    error: str
    trace: str
    knock_on: bool


class Lines(io.TextIOBase):
    """Text that comes cut anywhere, each thread's its own, -> whole lines."""

    def __init__(self) -> None:
        self.begun: dict[int, str] = {}  # thread -> its line so far

    def write(self, text: str) -> int:
        *lines, rest = (self.begun.get(threading.get_ident(), "") + text).split("\n")
        self.begun[threading.get_ident()] = rest
        for line in lines:
            self.line(line)
        return len(text)

    def line(self, text: str) -> None:
        raise NotImplementedError


class Voice(Lines):
    """A rank's end. As its stderr: whole lines go to the starting process at once. Where that cannot be reached, to the old stderr."""

    def __init__(self, rank: int, address: tuple[str, int], key: bytes) -> None:
        super().__init__()
        self.rank, self.lock, self.old = rank, threading.Lock(), sys.stderr
        self.connection: Connection | None = None
        self.exchanges = 0  # with other ranks, begun
        self.on_terminal = os.environ.get(ON_TERMINAL) == "1"
        try:
            self.connection = Client(address, authkey=key)
        except (OSError, EOFError, AuthenticationError) as error:
            print(f"rank {rank}: no connection to {address[0]}:{address[1]} ({error}); its lines come late", file=self.old, flush=True)
        self.beats = threading.Thread(target=self._beats, name="beats", daemon=True)
        self.beats.start()

    def _beats(self) -> None:
        while self._send({"host": socket.gethostname()}):
            time.sleep(BEAT_SECONDS)

    def _send(self, what: dict[str, object]) -> bool:
        with self.lock:
            try:
                if self.connection is not None:
                    self.connection.send_bytes(json.dumps({"rank": self.rank, "exchanges": self.exchanges, **what}).encode())
            except OSError:  # the starting process is gone, and so will this one be
                self.connection = None
            return self.connection is not None

    def isatty(self) -> bool:
        """Whether the starting process's stderr is a terminal."""
        return self.on_terminal

    def flush(self) -> None:
        """A line written in place has no end; it goes out as it stands."""
        begun = self.begun.get(threading.get_ident(), "")
        if begun.startswith(terminal.IN_PLACE):
            self.begun[threading.get_ident()] = ""
            self._send({"bar": begun.removeprefix(terminal.IN_PLACE)})

    def line(self, text: str) -> None:
        text = text.removeprefix(terminal.IN_PLACE)  # where that is, the starting process knows
        if not self._send({"line": text}):
            print(text, file=self.old, flush=True)

    def failed(self, failure: Failure) -> None:
        if not self._send({"failure": asdict(failure)}):
            print(failure.trace, file=self.old, flush=True)

    def done(self) -> None:
        self._send({"done": True})


@dataclass
class Heard:
    """`alive`: rank -> when it was last heard (monotonic), of those whose process has not ended; `hosts` of all; `failures` in the order in
    which they came; `done`: ranks that finished; `lost`: ranks that ended without a word; `stopped`: those that were silent when the training was
    given up, and for how many seconds; `exchanges`: how many with others a rank had begun when it last spoke; `given_up`: who ends from now on
    is ended by the starting process, and not lost."""

    alive: dict[int, float] = field(default_factory=dict)
    hosts: dict[int, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    lost: list[int] = field(default_factory=list)
    stopped: dict[int, float] = field(default_factory=dict)
    exchanges: dict[int, int] = field(default_factory=dict)
    given_up: bool = False

    def take(self, message: dict[str, Any]) -> None:
        rank = message["rank"]
        self.alive[rank] = time.monotonic()
        self.exchanges[rank] = message.get("exchanges", 0)
        if "host" in message:
            self.hosts[rank] = message["host"]
        elif "line" in message:
            terminal.say(message["line"])
        elif "bar" in message:
            terminal.bar(message["bar"])
        elif "failure" in message:
            self.failures.append(Failure(**message["failure"]))
        else:
            self.done.add(rank)

    def ended(self, rank: int) -> None:
        """Its process is gone."""
        self.alive.pop(rank, None)
        if not self.given_up and rank not in self.done and all(failure.rank != rank for failure in self.failures):
            self.lost.append(rank)

    def cause(self) -> Failure | None:
        """The first failure that is no other rank's doing."""
        return next((failure for failure in self.failures if not failure.knock_on), None)

    def behind(self) -> list[int]:
        """Ranks that have begun fewer exchanges than the others, which waited for them; none where all are level."""
        farthest = max(self.exchanges.values(), default=0)
        return [rank for rank, begun in sorted(self.exchanges.items()) if begun < farthest]

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts.get(rank, '?')}"

    def silent(self, seconds: float) -> dict[int, float]:
        """Ranks whose process stands and says nothing: rank -> for how many seconds, at least `seconds`."""
        now = time.monotonic()
        return {rank: now - at for rank, at in sorted(self.alive.items()) if now - at >= seconds}


class Ears:
    """The starting process's end: hears every rank that knows the key, until it is closed."""

    def __init__(self, host: str, heard: Heard) -> None:
        self.heard, self.key, self.closed = heard, secrets.token_bytes(32), threading.Event()
        self.listener = Listener((host, 0), authkey=self.key)
        self.port = int(self.listener.address[1])
        threading.Thread(target=self._accept, name="ears", daemon=True).start()

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                connection = self.listener.accept()
            except (OSError, EOFError, AuthenticationError):  # somebody who does not know the key, or went away
                continue
            threading.Thread(target=self._listen, args=(connection,), name="ear", daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        rank = None
        try:
            while True:
                message = json.loads(connection.recv_bytes())
                rank = int(message["rank"])
                self.heard.take(message)
        except (EOFError, OSError):
            if rank is not None:
                self.heard.ended(rank)

    def close(self) -> None:
        self.closed.set()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass  # wakes the thread that accepts
        self.listener.close()


class Relay(Lines):
    """What ranks' processes write beside their voice -> this process's stderr, without Horovod's `[0]<stderr>:`. Stdout stays the caller's."""

    def line(self, text: str) -> None:
        print(re.sub(r"^\[\d+\]<std(out|err)>:", "", text), file=sys.stderr, flush=True)
