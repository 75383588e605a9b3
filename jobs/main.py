"""The one file that spark-submit is given on a cluster: runs the job that is named first, as `python jobs/<job>.py` would.

spark-submit … main.py nightly --conf-file prod.yaml --day 2026-05-16

The code itself is imported from the environment that the package brings (`./build.sh package`); exit codes are the job's own.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

COMMAND = 'if __name__ == "__main__":'
OF_A_CHECKOUT = {"doctor", "main", "package"}  # they ask after, or make, what a cluster is not set up from


def jobs() -> list[str]:
    """Every module of jobs/ that is a command."""
    spec = find_spec("jobs")
    assert spec is not None and spec.origin is not None
    files = Path(spec.origin).parent.glob("*.py")
    return sorted({file.stem for file in files if COMMAND in file.read_text(encoding="utf-8")} - OF_A_CHECKOUT)


def main() -> None:
    job = sys.argv[1] if len(sys.argv) > 1 else ""
    if job not in jobs():
        print(f"main.py: there is no job {job!r}; name one of {', '.join(jobs())}, and then its options", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{job}.py", *sys.argv[2:]]
    runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
