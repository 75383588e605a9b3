"""The whole line on simulated logs, in one process: simulate, build the first days as a range, run the last nights, compare with the truth.

python jobs/demo.py --conf-file conf/demo.yaml --backfill-from 2026-05-01 --from 2026-05-15 --to 2026-05-16

Does what the three jobs that it names would do one after the other, with one start of Java and of Python instead of three.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from jobs import nightly, simulate, truth
from jobs.common import DONE, main

Job = Callable[[Sequence[str] | None], int]


def run(argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    options = nightly.options()
    options.description = "Simulate logs, run nights on them (the options are jobs/nightly.py's), and compare the last one with the truth."
    asked = options.parse_args(given)
    conf, (_, last) = ["--conf-file", asked.conf_file], nightly.span(asked)
    steps: list[tuple[str, Job, list[str]]] = [
        ("simulate", simulate.run, conf),
        ("nightly", nightly.nightly, given),
        ("truth", truth.run, [*conf, f"--day={last}"]),
    ]
    for name, job, arguments in steps:
        print(f"+ python jobs/{name}.py {shlex.join(arguments)}", file=sys.stderr, flush=True)
        code = job(arguments)
        if code != DONE:
            return code
    return DONE


if __name__ == "__main__":
    main(run)
