"""Removes what conf.retention no longer keeps: old days of tables, models, training snapshots and checkpoints, versions that were written over.

python jobs/retain.py --conf-file conf/prod.yaml --dry-run
python jobs/retain.py --conf-file conf/prod.yaml

Without a block `retention` no day and no model goes, only versions older than a week that nothing names. The ledger gets a row of it first, so
that later nights know why days are gone; cut off, it is finished by running it again. Not while a night is under way (exit 7).
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import retention
from etl.commits import folder_bytes
from etl.contents import EMPTY, Contents
from etl.lock import upkeep_lock
from etl.retention import Cut, Pinned
from etl.runs import RETAIN, VACUUM, Ledger, Record, fingerprint
from etl.schemas import PUBLICATIONS, all_tables
from etl.session import side_by_side, start
from etl.splits import Night
from etl.tables import delete_days, read, table_stands
from etl.vacuum import keep_logs, vacuum
from jobs.common import DONE, conf_of, main, parser
from jobs.describe import write_views


def retain(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    retention.require_enough(conf)
    with nullcontext() if arguments.dry_run else upkeep_lock(conf.workdir, "retain"):
        spark = start(conf.spark, f"adtower {conf.name} retain")
        try:
            if not all([table_stands(spark, conf.workdir, table) for table in all_tables(conf).values()]):
                print(f"no tables in {conf.workdir}; nothing to remove")
                return DONE
            return removed(spark, conf, arguments.dry_run)
        finally:
            spark.stop()


@dataclass(frozen=True)
class Going:
    """All that goes but versions: days, folders by kind, and their hashes by the names that the ledger has for them."""

    cuts: list[Cut]
    folders: dict[str, list[Path]]
    hashes: dict[str, str]

    def told(self) -> list[str]:
        days = [
            f"{cut.table.name}: {cut.rows:,} rows of days up to {cut.last}, {cut.files:,} files, {cut.bytes:,} bytes" for cut in self.cuts
        ]
        return days + [
            f"{kind}: {', '.join(folder.name for folder in folders)}, {sum(map(folder_bytes, folders)):,} bytes"
            for kind, folders in self.folders.items()
            if folders
        ]


def removed(spark: SparkSession, conf: Conf, dry_run: bool) -> int:
    ledger, contents = Ledger(spark, conf), Contents(spark, conf)
    newest = retention.newest_night(ledger)
    if newest is None:
        print("no night was run yet; nothing to remove")
        return DONE
    models = retention.models(spark, conf, newest)
    folders = retention.old_folders(conf, models)
    going = going_of(conf, contents, list(retention.cuts(spark, conf, ledger, contents, newest)), folders)
    pins = retention.pinned(spark, conf, models, [folder for of in folders.values() for folder in of])
    print(f"newest night {newest}; {'would remove' if dry_run else 'removes'}:")
    for line in going.told() or ["no day, no folder"]:
        print(f"  {line}")
    for pin in pins:
        print(f"  keeps {pin.table}@v{pin.version}, named by {pin.named_by}")
    lost = retention.unreadable(spark, conf, pins)
    for pin, why in lost.items():
        print(f"  {pin.table}@v{pin.version}, named by {pin.named_by}, was unreadable before: {why}")
    if dry_run:
        vacuumed(spark, conf, pins, dry_run=True)
        return DONE
    note = noting(conf, ledger, newest)
    if going.told():
        note(RETAIN, dict.fromkeys(going.hashes, EMPTY), {"removed": going.hashes}, "; ".join(going.told()))
    for cut in going.cuts:
        delete_days(spark, conf.workdir, cut.table, cut.last)
    for folder in (folder for of in going.folders.values() for folder in of):
        shutil.rmtree(folder)
    if not read(spark, conf.workdir, PUBLICATIONS).where("what = 'scores'").isEmpty():
        write_views(spark, conf)  # those that stand name versions whose files may go now
    keep_logs(spark, conf.workdir)
    counts = vacuumed(spark, conf, pins, dry_run=False)
    note(VACUUM, {}, counts, f"{counts['files']:,} files of versions written over, {counts['bytes']:,} bytes")
    now_lost = {pin: why for pin, why in retention.unreadable(spark, conf, pins).items() if pin not in lost}
    if now_lost:
        raise RuntimeError("; ".join(f"{pin.table}@v{pin.version}, named by {pin.named_by}: {why}" for pin, why in now_lost.items()))
    return DONE


def going_of(conf: Conf, contents: Contents, cuts: list[Cut], folders: dict[str, list[Path]]) -> Going:
    workdir = Path(conf.workdir).resolve()
    files = [file for folder in folders["models"] for file in [folder / "bundle.json", *sorted(folder.glob("calibrators/*.json"))]]
    hashes = {name: value for cut in cuts for name, value in cut.hashes.items()}
    for file in files:
        hashes |= contents.of_file(file.relative_to(workdir).as_posix())
    return Going(cuts, folders, hashes)


def noting(conf: Conf, ledger: Ledger, newest: date) -> Callable[[str, dict[str, str], dict[str, Any], str], None]:
    """Writes rows of the ledger, under the day of the newest night."""
    run_id, started, begun = f"retain-{uuid.uuid4().hex[:6]}", datetime.now(UTC), time.monotonic()

    def note(stage: str, outputs: dict[str, str], counts: dict[str, Any], message: str) -> None:
        as_of, seconds = Night.of(newest, conf).as_of, time.monotonic() - begun
        mark = fingerprint(stage, outputs, counts)
        ledger.add(Record(newest, run_id, stage, "done", as_of, started, seconds, mark, outputs, counts, message))

    return note


def vacuumed(spark: SparkSession, conf: Conf, pins: Sequence[Pinned], dry_run: bool) -> dict[str, Any]:
    """Files and bytes that go of each table's versions, told and counted."""

    def of(table: str) -> tuple[int, int, int]:
        hours = retention.vacuum_hours(conf, table, pins)
        return hours, *vacuum(spark, conf.workdir, table, hours, dry_run)

    tables = list(all_tables(conf))
    found = {table: counts for table, counts in zip(tables, side_by_side(of, tables), strict=True) if counts[1]}
    for table, (hours, files, size) in found.items():
        print(f"  {table}: {files:,} files of versions written over more than {hours:,} hours ago, {size:,} bytes")
    return {
        "files": sum(files for _, files, _ in found.values()),
        "bytes": sum(size for _, _, size in found.values()),
        "tables": {table: {"hours": hours, "files": files, "bytes": size} for table, (hours, files, size) in found.items()},
    }


if __name__ == "__main__":
    main(retain)
