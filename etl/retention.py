"""What may go of the days, models and versions that nights left behind, by conf.retention; decides alone, jobs/retain.py does it.

Days are counted from the newest night of the ledger, never from the wall clock. A version of a table that a kept model, a kept snapshot or the
published scores name stays readable: VACUUM then keeps what was written over since that version was committed, and a day more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from etl import schemas
from etl.commits import committed_at
from etl.contents import EMPTY, Contents
from etl.entities import first_state_day
from etl.history import first_history_day, first_impression_day, wanted
from etl.runs import UPKEEP, Ledger
from etl.schemas import MODELS, PUBLICATIONS, Table
from etl.splits import Night
from etl.tables import read, table_path

MARGIN = timedelta(days=1)  # a write that began before a version was committed may remove its files with an earlier time than that


@dataclass(frozen=True)
class Cut:
    """The days of a table up to `last` that hold rows. `hashes`: name -> content hash, as the ledger names them."""

    table: Table
    last: date
    hashes: dict[str, str]
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Pinned:
    """A version of a table that must stay readable, and what names it."""

    table: str
    version: int
    named_by: str


def newest_night(ledger: Ledger) -> date | None:
    return max((record.day for record in ledger.done if record.stage not in UPKEEP), default=None)


def least_days(conf: Conf) -> dict[str, int]:
    """Table -> how many days of it, its own among them, a night reads or writes; a table that is not named: one."""
    night = Night.of(date(2000, 1, 1), conf)
    first = night.held_out
    shown = first_impression_day(first, conf) if wanted(conf) else first
    earliest = {
        **dict.fromkeys(("impressions", "quarantine"), first),
        "engagements": shown,
        "users": first_state_day(first, conf),
        "ads": first_state_day(first, conf),
        "history": first_history_day(first, conf),
        "examples": min(shown, night.train_from),
        "served": night.fit_from(date.min, conf.calibration.fit_days),
    }
    return {table: (night.day - of).days + 1 for table, of in earliest.items()}


def require_enough(conf: Conf) -> None:
    """ConfError where retention names no table of ours, or would take from nights what they read."""
    tables, least = schemas.all_tables(conf), least_days(conf)
    strangers = sorted(set(conf.retention.days) - set(tables))
    short = [f"{name} {days} (at least {least[name]})" for name, days in conf.retention.days.items() if days and days < least.get(name, 1)]
    if strangers:
        raise ConfError(f"retention.days names {', '.join(strangers)}, no table; tables: {', '.join(sorted(tables))}")
    if short:
        raise ConfError(f"retention.days is below what a night reads: {', '.join(short)}; raise it, or leave the table out to keep all")


def cuts(spark: SparkSession, conf: Conf, ledger: Ledger, contents: Contents, newest: date) -> Iterator[Cut]:
    """What goes of each table; one that loses nothing is left out."""
    tables = schemas.all_tables(conf)
    for name, days in conf.retention.days.items():
        if days is None:
            continue
        last = newest - timedelta(days=days)
        old = read(spark, conf.workdir, tables[name]).where(F.col("day") <= F.lit(last))
        names = [f"{name}/{row['day']}" for row in old.select("day").distinct().collect()]
        # A table of several models is known to the ledger by model and day, too.
        parts = {of for record in ledger.done for of in record.outputs if of.startswith(f"{name}@") and of[-10:] <= last.isoformat()}
        hashes = {of: value for of, value in contents.of([*sorted(names), *sorted(parts)]).items() if value != EMPTY}
        if names:
            files = [file for file in data_files(spark, conf, name) if day_of(file) <= last.isoformat()]
            rows = sum(int(hashes[of].split(":")[0]) for of in names)
            yield Cut(tables[name], last, hashes, rows, len(files), sum(file.stat().st_size for file in files))


def data_files(spark: SparkSession, conf: Conf, table: str, version: int | None = None) -> list[Path]:
    """Of a version, whether they are there or not."""
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return [Path(unquote(urlparse(file).path)) for file in reader.load(table_path(conf.workdir, table)).inputFiles()]


def day_of(file: Path) -> str:
    found = re.search(r"/day=(\d{4}-\d{2}-\d{2})/", str(file))
    return found[1] if found else "9999"


@dataclass(frozen=True)
class Models:
    """`used`: those that serve, would serve after a rollback, or may serve next; `kept`: those, and what conf.retention.model_days keeps."""

    known: frozenset[str]
    used: frozenset[str]
    kept: frozenset[str]


def models(spark: SparkSession, conf: Conf, newest: date) -> Models:
    registered = [(row["day"], row["model"]) for row in read(spark, conf.workdir, MODELS).select("day", "model").collect()]
    published = read(spark, conf.workdir, PUBLICATIONS).where("what = 'model'").select("day", "model").collect()
    served = sorted((row["day"], row["model"]) for row in published)
    known = frozenset(model for _, model in [*registered, *served])
    used = {model for _, model in served[-2:]} | {model for _, model in sorted(registered)[-1:]}
    if served:  # a model may have served for many nights: the one before it is what a second rollback would take
        used |= {model for _, model in [of for of in served if of[1] != served[-1][1]][-1:]}
    since = newest - timedelta(days=conf.retention.model_days) if conf.retention.model_days is not None else date.min
    kept = {model for day, model in [*registered, *served] if day > since} | used
    return Models(known, frozenset(used), frozenset(kept))


def old_folders(conf: Conf, of: Models) -> dict[str, list[Path]]:
    """What goes of the working folder, by kind: training's snapshots and checkpoints that no model in use needs, and models that are not kept."""
    workdir = Path(conf.workdir).resolve()
    gone: dict[str, list[Path]] = {"snapshots": [], "checkpoints": [], "models": [], "tensorboard": []}
    for kind in ("snapshots", "checkpoints"):
        folders = sorted((folder for folder in (workdir / kind).glob("*") if folder.is_dir()), key=lambda folder: folder.stat().st_mtime)
        for folder in folders:
            whole = (workdir / "models" / folder.name / "bundle.json").is_file()
            # The newest may be of a training that was cut off, and goes on from it.
            unfinished = not whole and folder.name not in of.known and folder == folders[-1]
            if not unfinished and (folder.name not in of.used or kind == "checkpoints"):
                gone[kind].append(folder)
    for kind in ("models", "tensorboard"):
        gone[kind] = [folder for model in sorted(of.known - of.kept) if (folder := workdir / kind / model).is_dir()]
    return gone


def pinned(spark: SparkSession, conf: Conf, of: Models, gone: Collection[Path]) -> list[Pinned]:
    """Versions that must stay readable: of `examples` for kept models and snapshots, of `inventory` for the last two days that were published."""
    rows = read(spark, conf.workdir, MODELS).where("examples_version IS NOT NULL").select("model", "examples_version").distinct().collect()
    found = {Pinned("examples", row["examples_version"], f"model {row['model']}") for row in rows if row["model"] in of.kept}
    for manifest in sorted((Path(conf.workdir).resolve() / "snapshots").glob("*/manifest.json")):
        if manifest.parent not in gone:
            version = json.loads(manifest.read_text(encoding="utf-8"))["examples_version"]
            found.add(Pinned("examples", version, f"snapshot {manifest.parent.name}"))
    scored = read(spark, conf.workdir, PUBLICATIONS).where("what = 'scores'").orderBy(F.col("day").desc()).select("scored_day").limit(2)
    days = [row["scored_day"] for row in scored.collect()]
    for table in (schemas.scores(conf), schemas.challenger_scores(conf)):
        versions = read(spark, conf.workdir, table).where(F.col("day").isin(days)).select("day", "inventory_version").distinct().collect()
        found |= {Pinned("inventory", row["inventory_version"], f"{table.name} of {row['day']}") for row in versions}
    return sorted(found, key=lambda pin: (pin.table, pin.version, pin.named_by))


def vacuum_hours(conf: Conf, table: str, pins: Collection[Pinned]) -> int:
    """How long ago a file must have been written over to go, hours."""
    times = [committed_at(conf.workdir, table, pin.version) for pin in pins if pin.table == table]
    since = datetime.now(UTC) - min(times) + MARGIN if times else timedelta()
    return max(conf.retention.version_hours, math.ceil(since.total_seconds() / 3600))


def unreadable(spark: SparkSession, conf: Conf, pins: Collection[Pinned]) -> dict[Pinned, str]:
    """Pinned versions that lack a file, or whose log is gone; a count would still answer."""
    found = {}
    for pin in pins:
        try:
            lost = [file for file in data_files(spark, conf, pin.table, pin.version) if not file.is_file()]
        except Exception as error:  # Delta has one class for each way in which a version can be gone
            found[pin] = str(error).splitlines()[0]
        else:
            if lost:
                found[pin] = f"{len(lost)} files are gone, such as {lost[0]}"
    return found
