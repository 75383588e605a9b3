"""Tables follow the configuration: adds the columns of new heads, features and sources, retires those that left.

spark-submit jobs/migrate.py --conf-file conf/demo.yaml [--dry-run]

Nothing is ever dropped or rewritten. What was changed stands in `<workdir>/migrations.jsonl`. Afterwards build the days to train on again
(`nightly --from --to --only ingest,build_examples,gate`): days built before have null in what is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from etl.migrations import migrate, planned
from etl.session import start
from jobs.common import DONE, conf_of, main, parser


def run(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--dry-run", action="store_true", help="only print what would be changed")
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    spark = start(conf.spark, f"adtower {conf.name} migrate")
    try:
        changes = planned(spark, conf) if arguments.dry_run else migrate(spark, conf)
    finally:
        spark.stop()
    for change in changes:
        print(f"{change.table:<18} {change.told}")
    print(f"{len(changes)} changes {'planned, none made' if arguments.dry_run else 'made'}")
    return DONE


if __name__ == "__main__":
    main(run)
