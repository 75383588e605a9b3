"""Logs of a simulated ad platform, with known truth.

python jobs/simulate.py --conf-file conf/demo.yaml [--set-impressions-a-day N]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from conf.load import load_text
from conf.schema import Conf
from etl.session import start
from etl.simulate import simulate
from jobs.common import DONE, conf_of, main, parser


def run(argv: Sequence[str] | None) -> int:
    options = parser(
        "Write the logs of a simulated ad platform and, apart from them, the truth; nothing to do where they are there already."
    )
    options.add_argument(
        "--set-impressions-a-day", type=int, metavar="N", help="another size than the configuration's: 1,000 to 100,000,000"
    )
    arguments = options.parse_args(argv)
    conf, began = conf_of(arguments), time.monotonic()
    if arguments.set_impressions_a_day is not None:
        conf = resized(conf, arguments.set_impressions_a_day)
    spark = start(conf.spark, f"adtower {conf.name} simulate")
    try:
        simulate(spark, conf, lambda line: print(f"simulate: {line}", file=sys.stderr, flush=True))
    finally:
        spark.stop()
    print(f"simulate: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return DONE


def resized(conf: Conf, impressions_a_day: int) -> Conf:
    if conf.simulation is None:
        return conf
    return load_text(conf.name, conf.model_dump() | {"simulation": conf.simulation.model_dump() | {"impressions_a_day": impressions_a_day}})


if __name__ == "__main__":
    main(run)
