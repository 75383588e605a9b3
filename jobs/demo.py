"""The whole line on simulated logs, in one process: simulate, build the first days as a range, run the last nights, compare with the truth.

python jobs/demo.py --conf-file conf/demo.yaml --backfill-from 2026-05-01 --from 2026-05-15 --to 2026-05-16

Does what the three jobs that it names would do one after the other, with one start of Java and of Python instead of three.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from jobs import nightly, simulate, truth
from jobs.common import DONE, day_option, main, parser

Job = Callable[[Sequence[str] | None], int]


def run(argv: Sequence[str] | None) -> int:
    options = parser("Simulate logs, run nights on them, and compare the last one with the truth.")
    for name, what in (("backfill-from", "first day of the range that is built before"), ("from", "first night"), ("to", "last night")):
        options.add_argument(f"--{name}", type=day_option, required=True, help=f"{what}, such as 2026-05-01 (UTC)")
    days = vars(options.parse_args(argv))
    conf = ["--conf-file", days["conf_file"]]
    nights = [f"--{name}={days[name.replace('-', '_')]}" for name in ("backfill-from", "from", "to")]
    steps: list[tuple[str, Job, list[str]]] = [
        ("simulate", simulate.run, conf),
        ("nightly", nightly.nightly, [*conf, *nights]),
        ("truth", truth.run, [*conf, f"--day={days['to']}"]),
    ]
    for name, job, arguments in steps:
        print(f"+ python jobs/{name}.py {shlex.join(arguments)}", file=sys.stderr, flush=True)
        code = job(arguments)
        if code != DONE:
            return code
    return DONE


if __name__ == "__main__":
    main(run)
