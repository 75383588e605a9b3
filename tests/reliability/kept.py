"""What trials found, kept so that a run of them that was stopped goes on with those that are missing."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A file of JSON lines, one a trial. Only lines that have `mark` count: others are of other code, or of other settings."""

    file: Path
    mark: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        return [row for row in map(json.loads, lines) if self.mark.items() <= row.items()]

    def add(self, row: dict[str, Any], said: str = "") -> None:
        """Keep and tell it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.mark | row) + "\n")
        print(f"{said}{json.dumps(row)}", file=sys.stderr, flush=True)
