"""Removes people: their rows in every table, snapshot and quarantine, and their ids in reports; and keeps them from coming back.

python jobs/forget.py --conf-file conf/prod.yaml --user-file leaving.txt [--dry-run]

`--user-file`: one user id a line, as the sources deliver it, UTF-8. No night runs meanwhile (exit 7 while one does). Files of older table
versions are deleted at once, so versions that models were trained on can be read no more: which, is told and stands in the ledger (stage
`forget`), without any id. Reruns and later deliveries set the people's rows aside with the reason forgotten_user. Cut off, the same command
finishes. Not reached: the files in the landing folder, backups and exports, and what the weights of a model learned until one is trained from nothing
(`nightly --full`).
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from etl.contents import Contents
from etl.forgetting import Removed, purge, remove
from etl.lock import upkeep_lock
from etl.privacy import forgotten_ids, hashed, remember, user_key
from etl.runs import FORGET, Ledger, Record, fingerprint
from etl.schemas import MODELS, PUBLICATIONS, examples
from etl.session import start
from etl.splits import Night
from etl.tables import create_tables, pin, read
from jobs.common import DONE, conf_of, main, parser
from jobs.describe import write_views

LONGEST_ID = 1000


def forget(argv: Sequence[str] | None) -> int:
    arguments = options().parse_args(argv)
    conf, named = conf_of(arguments), ids_in(arguments.user_file)
    key = user_key(conf)
    people = [hashed(key, one) for one in named] if key else named
    run_id = f"forget-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    spark = start(conf.spark, f"adtower {conf.name} forget")
    try:
        create_tables(spark, conf)
        with upkeep_lock(conf.workdir, run_id):
            if arguments.dry_run:
                tell(len(people), remove(spark, conf, people, named, dry_run=True), [], dry_run=True)
            else:
                forget_people(spark, conf, people, named, run_id)
    finally:
        spark.stop()
    return DONE


def options() -> argparse.ArgumentParser:
    given = parser((__doc__ or "").splitlines()[0])
    given.add_argument("--user-file", required=True, type=Path, help="user ids, one a line, as the sources deliver them")
    given.add_argument("--dry-run", action="store_true", help="only count what would be removed")
    return given


def ids_in(file: Path) -> list[str]:
    """The ids of a file, each once; ConfError for one that can't be read, is empty or holds what is no id."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(f"--user-file {file} cannot be read: {error}; give a UTF-8 text with one user id a line") from error
    ids = list(dict.fromkeys(line for line in lines if line))
    if not ids:
        raise ConfError(f"--user-file {file} names nobody; write one user id a line")
    if any(len(one) > LONGEST_ID for one in ids):
        raise ConfError(f"--user-file {file} has a line of more than {LONGEST_ID} characters, which is no user id")
    return ids


def forget_people(spark: SparkSession, conf: Conf, people: Sequence[str], named: Sequence[str], run_id: str) -> None:
    started, begun = datetime.now(UTC), time.monotonic()
    known = forgotten_ids(spark, conf)
    before = {row["user_id"] for row in known.collect()} if known is not None else set()
    # First of all they are kept from coming back: a removal that is cut off is then finished by the next.
    remember(spark, conf, [one for one in people if one not in before], run_id, asked_at=started, day=started.date())
    trained_on = pin(spark, conf.workdir, examples(conf)).version
    removed = remove(spark, conf, people, named)
    if not read(spark, conf.workdir, PUBLICATIONS).where("what = 'scores'").isEmpty():
        write_views(spark, conf)  # those that stand name versions whose files go now
    purge(spark, conf)
    unreadable = models_without_rows(spark, conf, trained_on, removed)
    counts: dict[str, Any] = {
        "people": len(people),
        "rows": removed.rows,
        "folders": removed.folders,
        "files": removed.files,
        "models_without_rows": unreadable,
    }
    ledger, contents = Ledger(spark, conf), Contents(spark, conf)
    names = [f"{table}/{day}" for table, days in removed.days.items() if table != "runs" for day in sorted(days)]
    day = max((record.day for record in ledger.done), default=started.date())
    ledger.add(
        Record(
            day,
            run_id,
            FORGET,
            "done",
            Night.of(day, conf).as_of,
            started,
            time.monotonic() - begun,
            fingerprint(run_id),
            contents.of(names),  # a night whose outputs were changed here, and by nothing else, is still as recorded
            counts,
            f"{len(people)} people forgotten",
        )
    )
    tell(len(people), removed, unreadable, dry_run=False)


def models_without_rows(spark: SparkSession, conf: Conf, version: int, removed: Removed) -> list[str]:
    """Models whose version of `examples` can be read no more."""
    if "examples" not in removed.days:
        return []
    rows = read(spark, conf.workdir, MODELS).where(F.col("examples_version") <= F.lit(version)).select("model").distinct().collect()
    return sorted(row["model"] for row in rows)


def tell(people: int, removed: Removed, unreadable: Sequence[str], dry_run: bool) -> None:
    print(f"{people} people {'would be' if dry_run else 'are'} forgotten")
    for table, days in sorted(removed.days.items()):
        shown: tuple[date, date] = (min(days), max(days))
        print(f"{table:<18} {removed.rows[table]:>10,} rows, {shown[0]} to {shown[1]}")
    print(
        f"folders to be made again when needed: {', '.join(removed.folders) or 'none'}; reports and summaries that named someone: {removed.files}"
    )
    if unreadable:
        print(f"models whose training rows can be read no more: {', '.join(unreadable)}")
    if not dry_run:
        print("landing files and backups are not reached, nor what a model learned: train one from nothing with nightly --full")


if __name__ == "__main__":
    main(forget)
