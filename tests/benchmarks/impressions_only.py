"""A simulated configuration without its inventory, for benchmarks that score nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.load import load


def impressions_only(conf_file: Path, **simulation: object) -> dict[str, Any]:
    """The configuration as a mapping, with these knobs of `simulation`; trained by one process."""
    text = load(conf_file).model_dump(mode="json")
    text["simulation"] |= {"inventory_days": [], **simulation}
    text["sources"] = {name: block for name, block in text["sources"].items() if block["kind"] != "inventory"}
    text["training"] |= {"backend": "single", "ranks": 1}
    return text
