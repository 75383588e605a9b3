"""Logs with known truth: the entrance of the simulator. What is written, where, and that a cut-off run leaves nothing half.

<landing>/<source>/impressions|engagements/<day>/  raw logs by delivery day    <landing>/users|ads/<day>/  dated exports
<landing>/inventory/<day>/  candidates of the day scored    <landing>/_SIMULATED.json  the hash of the settings it was made from
<workdir>/truth/impressions|inventory/day=<day>/  true probabilities    <workdir>/truth/planted.json  planted faults by block and day
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from conf.world import load_world
from etl.session import side_by_side
from etl.simulated_deliveries import candidates, canonical_id, engagements_delivered, impressions_delivered
from etl.simulated_draws import entry
from etl.simulated_exports import ad_exports, user_exports
from etl.simulated_levels import Setting
from etl.simulated_logs import FAULTS, LOGS, WRITERS, inventory_file, raw_log
from etl.simulated_truth import KINDS, fit_intercepts, rows_of_sources, shown, with_log_odds, with_probabilities

MARKER = "_SIMULATED.json"


def simulate(spark: SparkSession, conf: Conf, say: Callable[[str], None]) -> bool:
    """Write landing and truth folders; False where they were made from the same settings already."""
    setting = setting_of(conf)
    landing, truth = Path(conf.landing or Path(conf.workdir) / "landing"), Path(conf.workdir) / "truth"
    mark = {"settings": _fingerprint(setting), "rows_a_day": setting.size.impressions_a_day, "days": setting.size.days}
    if truth.is_dir() and (landing / MARKER).is_file() and json.loads((landing / MARKER).read_text(encoding="utf-8")) == mark:
        say(f"{landing} was made from these settings already")
        return False
    scratch = Path(conf.workdir) / "simulating"
    shutil.rmtree(scratch, ignore_errors=True)
    _write_truth(spark, setting, scratch / "truth", say)
    _write_landing(spark, setting, scratch, say)
    (scratch / "truth" / "planted.json").write_text(json.dumps(planted(setting), indent=1) + "\n", encoding="utf-8")
    (scratch / "landing" / MARKER).write_text(json.dumps(mark) + "\n", encoding="utf-8")
    # Landing goes last: only its marker says that both are there.
    for made, place in ((scratch / "truth", truth), (scratch / "landing", landing)):
        _replace(made, place)
    shutil.rmtree(scratch)
    say(f"logs in {landing}, truth in {truth}")
    return True


def setting_of(conf: Conf) -> Setting:
    if conf.simulation is None:
        raise ConfError(f"configuration {conf.name} has no `simulation`; give it one, or use conf/demo.yaml")
    world = load_world(conf.simulation.world)
    if conf.simulation.replicate >= len(world.seeds):
        raise ConfError(f"simulation.replicate is {conf.simulation.replicate}; world {conf.simulation.world} has {len(world.seeds)} seeds")
    return Setting(world, conf.simulation)


def true_rows(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain (kind, id): every served impression and inventory candidate, observed or not, with c_<head> and p_<head>."""
    blocks = [("impressions", day) for day in range(setting.size.days)] + [("inventory", day) for day in setting.inventory_days]
    rows = shown(spark, setting, blocks, rows_of_sources(setting, setting.size.impressions_a_day))
    rows = with_probabilities(with_log_odds(rows, spark, setting, fit_intercepts(spark, setting)), setting)
    source, number, kinds = F.col("source"), F.col("number"), list(KINDS)
    ids = [
        F.when((F.col("kind") == KINDS[kind]) & (source == i), canonical_id(kind, name, number))
        for kind in ("impressions", "inventory")
        for i, name in enumerate(setting.sources)
    ]
    heads = (name for head in setting.heads for name in (f"c_{head}", f"p_{head}"))
    return rows.select(
        entry(kinds, F.col("kind")).alias("kind"),
        F.date_add(F.lit(setting.size.first_day), F.col("day").cast("int")).alias("day"),
        F.coalesce(*ids).alias("id"),
        entry(setting.sources, source).alias("source"),
        "explored",
        F.col("day").alias("day_index"),
        *("row", "number", "place", "user", "ad", "device", "hour", "shown_ms"),
        *heads,
    )


def planted(setting: Setting) -> list[dict[str, Any]]:
    """The faults planted: block of conf/demo.yaml, delivery day, how many, and of which kind."""
    return [
        {
            "block": f"{source}_{log}",
            "day": setting.date(day).isoformat(),
            "count": setting.size.corrupt_lines_a_day,
            "kind": FAULTS[source],
        }
        for source in setting.sources
        for log in LOGS
        for day in range(setting.size.days)
    ]


def _write_truth(spark: SparkSession, setting: Setting, folder: Path, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    # Hardly a probability is there twice: dictionaries would cost more than they save.
    true_rows(spark, setting).write.option("parquet.enable.dictionary", "false").partitionBy("kind", "day").parquet(str(folder))
    for kind in ("impressions", "inventory"):
        if (folder / f"kind={kind}").is_dir():
            (folder / f"kind={kind}").rename(folder / kind)
    say(f"truth: {setting.size.days} days of {setting.size.impressions_a_day:,} impressions ({time.monotonic() - began:.0f} s)")


def _write_landing(spark: SparkSession, setting: Setting, scratch: Path, say: Callable[[str], None]) -> None:
    landing, truth = scratch / "landing", scratch / "truth"
    served, files = spark.read.parquet(str(truth / "impressions")), setting.size.days * setting.files_a_day
    deliver = {"impressions": impressions_delivered, "engagements": engagements_delivered}

    def log(source: str, name: str) -> None:
        rows = raw_log(deliver[name](served.where(F.col("source") == source), setting), source, name)
        writer, options = WRITERS[source]
        _by_day(rows.repartition(files, "day", "file").drop("file"), landing / source / name, writer, options)

    def exports(name: str) -> None:
        frame = {"users": user_exports, "ads": ad_exports}[name](spark, setting)
        _by_day(frame.withColumn("day", F.date_add(F.lit(setting.size.first_day), F.col("day").cast("int"))), landing / name)

    def inventory() -> None:
        if setting.inventory_days:
            rows = candidates(spark.read.parquet(str(truth / "inventory")), setting)
            _by_day(inventory_file(rows), landing / "inventory")

    steps: list[tuple[str, Callable[[], None]]] = [
        *((f"{source} {name}", lambda source=source, name=name: log(source, name)) for source in setting.sources for name in LOGS),
        *((name, lambda name=name: exports(name)) for name in ("users", "ads")),
        ("inventory", inventory),
    ]

    def timed(step: tuple[str, Callable[[], None]]) -> None:
        began = time.monotonic()
        step[1]()
        say(f"{step[0]} ({time.monotonic() - began:.0f} s)")

    side_by_side(timed, steps)


def _by_day(rows: DataFrame, folder: Path, writer: str = "parquet", options: dict[str, str] | None = None) -> None:
    """Files by the date `day`, in folders that bear the plain date, as a platform would lay them out."""
    rows.write.format(writer).options(**(options or {})).partitionBy("day").save(str(folder))
    for partition in folder.glob("day=*"):
        partition.rename(folder / partition.name.removeprefix("day="))


def _replace(made: Path, place: Path) -> None:
    """`made` takes the place of the folder `place`; a cut between the two renames leaves no `place`, so the next run makes it anew."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(made.parent / f"old_{place.name}")
    made.rename(place)


def _fingerprint(setting: Setting) -> str:
    """Hash of world, size and the simulator's own code."""
    text = json.dumps([setting.world.model_dump(mode="json"), setting.size.model_dump(mode="json")], sort_keys=True)
    code = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("simulate*.py")))
    return hashlib.sha256(b"\0".join([text.encode(), *code])).hexdigest()[:16]
