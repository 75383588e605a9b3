"""The tables as readers need them: views as SQL for Spark or DuckDB, and the data dictionary. Prints to stdout.

python jobs/describe.py --conf-file conf/demo.yaml --views duckdb > views.sql     # then: duckdb -init views.sql
python jobs/describe.py --conf-file conf/demo.yaml --dictionary > tables.md

Each night leaves the views in `<workdir>/views/` too, over the versions that it published (etl/views.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.session import start
from etl.views import ENGINES, dictionary, views_sql
from jobs.common import DONE, conf_of, main, parser, write_whole


def describe(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    asked = options.add_mutually_exclusive_group(required=True)
    asked.add_argument("--views", choices=ENGINES, help="the statements that make the views")
    asked.add_argument("--dictionary", action="store_true", help="every table and column in Markdown")
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    if arguments.dictionary:
        print(dictionary(conf), end="")
        return DONE
    spark = start(conf.spark, f"adtower {conf.name} describe")
    try:
        print(views_sql(spark, conf, arguments.views), end="")
    finally:
        spark.stop()
    return DONE


def write_views(spark: SparkSession, conf: Conf) -> None:
    """Replace the files of SQL, each whole, one after the other: a kill between them leaves one a publication behind until the night is run again."""
    for engine in ENGINES:
        write_whole(Path(conf.workdir).resolve() / "views" / f"{engine}.sql", views_sql(spark, conf, engine))


if __name__ == "__main__":
    main(describe)
