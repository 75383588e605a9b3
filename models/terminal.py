"""The last line of a terminal, written in place, by whoever has more to say."""

from __future__ import annotations

import shutil
import sys
import time

IN_PLACE = "\r\x1b[K"  # back to the beginning of the line, which is emptied
HELD_SECONDS = 3.0

_bar_shown_at = float("-inf")


def in_place(text: str) -> None:
    """`text`, or as much of it as one line holds."""
    print(IN_PLACE + text[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)


def bar(text: str) -> None:
    """As `in_place`, and for some seconds nobody else's text."""
    global _bar_shown_at
    _bar_shown_at = time.monotonic()
    in_place(text)


def say(text: str) -> None:
    """A line that stays, in place of a bar where one stands."""
    # In one piece: a print's line end is written by itself, and lines of several ranks would run into each other.
    sys.stderr.write(f"{IN_PLACE if held() else ''}{text}\n")
    sys.stderr.flush()


def held() -> bool:
    """Whether a bar stands there."""
    return time.monotonic() - _bar_shown_at < HELD_SECONDS
