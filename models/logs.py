"""A run's log: one JSON object a line, the same from the driver, from scorers in Spark's Python workers and from ranks of a training.

The driver appends to `<workdir>/runs/<day>/log.jsonl`. The others write to their stderr, where a log collector finds them: what names the run
travels to ranks in the environment (CONTEXT) and to scorers with the function that they call (Named). Imports the standard library alone.

  time (UTC), level, run_id, day, stage, event, then what the event tells, such as seconds, rows, message, traceback
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: In a rank's environment: what names the run, as JSON.
CONTEXT = "ADTOWER_LOG"
LOGGER = logging.getLogger("adtower")
SECRETS = (
    (re.compile(r"//[^/@\s]+@"), "//***@"),  # a password in an address
    (
        re.compile(r"(?i)((?:password|passwd|secret|token|credential|access.?key|api.?key)[\w.-]*[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+"),
        r"\1***",
    ),
)

_context: dict[str, Any] = {}


class JsonLine(logging.Formatter):
    """A record as one line; what looks like a secret is left out."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
        }
        told |= {**_context, "event": record.getMessage(), **getattr(record, "told", {})}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: without_secrets(value) for name, value in told.items()}, default=str)


def without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_secrets(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(part) for part in value]
    if isinstance(value, str):
        for secret, instead in SECRETS:
            value = secret.sub(instead, value)
    return value


def tell(event: str, level: int = logging.INFO, error: BaseException | None = None, **told: Any) -> None:
    """One line to whoever listens; with `error` its traceback. Told to nobody where no log was begun."""
    if heard():
        LOGGER.log(level, event, exc_info=error, extra={"told": told})


def heard() -> bool:
    """Whether a log was begun in this process; handlers of others, such as a test's, are not meant."""
    return any(isinstance(handler.formatter, JsonLine) for handler in LOGGER.handlers)


@contextmanager
def naming(**names: Any) -> Iterator[None]:
    """What every line told inside says besides, such as run_id and stage."""
    before = dict(_context)
    _context.update(names)
    try:
        yield
    finally:
        _context.clear()
        _context.update(before)


@contextmanager
def to_file(path: Path, trouble: Callable[[str], None]) -> Iterator[None]:
    """Append what is told inside to `path`. A line that cannot be written is lost, and the first such told to `trouble`."""
    handler: logging.Handler | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Appended(path, trouble)
        _listen(handler)
    except OSError as error:
        trouble(f"no log at {path}: {error}")
    try:
        yield
    finally:
        if handler is not None:
            LOGGER.removeHandler(handler)
            with suppress(OSError):
                handler.close()


class _Appended(logging.FileHandler):
    def __init__(self, path: Path, trouble: Callable[[str], None]) -> None:
        super().__init__(path, encoding="utf-8")
        self.trouble, self.failed = trouble, False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            self.trouble(f"lines are missing from the log {self.baseFilename}: {sys.exc_info()[1]}")


class _Stderr(logging.Handler):
    """Whatever stderr is at the moment: a rank replaces its own."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def _listen(handler: logging.Handler) -> None:
    handler.setFormatter(JsonLine())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(handler)


def for_ranks() -> dict[str, str]:
    """What a rank's environment needs so that its lines name the run; nothing where no log was begun."""
    return {CONTEXT: json.dumps(_context, default=str)} if heard() else {}


def in_a_rank(rank: int, on_terminal: bool) -> None:
    """Tell this rank's lines to its stderr from now on, where the process that started it has a log."""
    if CONTEXT in os.environ:
        _to_stderr(json.loads(os.environ[CONTEXT]) | {"rank": rank}, _level(on_terminal))


def _level(on_terminal: bool) -> int:
    """A person at a terminal sees a bar and lines of plain text; JSON would only get in between."""
    return logging.WARNING if on_terminal else logging.INFO


def _to_stderr(names: Mapping[str, Any], level: int) -> None:
    _context.clear()
    _context.update(names, host=socket.gethostname(), pid=os.getpid())
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        _listen(_Stderr())
    LOGGER.setLevel(level)


@dataclass(frozen=True)
class Named:
    """A function for Spark's Python workers, pickled with what names the run; says once a worker that it begins, and whatever ends it."""

    work: Callable[..., Any]
    names: tuple[tuple[str, str], ...]
    level: int

    def __call__(self, *given: Any) -> Any:
        if set(self.names) - _context.items():  # this worker's first call for this stage; another run may have used it before
            _to_stderr(dict(self.names), self.level)
            tell("worker began")
        try:
            return self.work(*given)
        except Exception as error:
            tell("worker failed", logging.ERROR, error, message=f"{type(error).__name__}: {error}")
            raise


def named(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, whose lines in Spark's workers name the run as the driver's do; `work` itself where no log was begun."""
    if not heard():
        return work
    return Named(work, tuple((name, str(value)) for name, value in _context.items()), _level(sys.stderr.isatty()))
