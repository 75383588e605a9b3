"""What a command of jobs/nightly.py would do, stage by stage, and why: --dry-run. Writes nothing: no table, no folder, no lock, no record.

skip   inputs, configuration and code are unchanged and its outputs as recorded; or there is nothing to do yet
do     it has work to do, and why
later  an earlier stage of the plan makes what it reads, so only then is it known
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl.contents import EMPTY, TABLE_DAY, Contents
from etl.landing import InputMissing, LandedFile, files_by_day, pattern
from etl.runs import Ledger
from etl.schemas import RUNS, all_tables
from etl.session import side_by_side
from etl.splits import Night
from etl.tables import pin, table_stands
from jobs.common import DONE, INPUT, NotYet, Run, Stage
from jobs.ingest import Landed, blocks_of
from jobs.nights import Nights
from jobs.stages import UNCHANGED, asked_of

#: Stage -> the stages, of this night or of one before it, that make what it reads.
READS = {
    "ingest": (),
    "build_examples": ("ingest", "build_examples"),
    "gate": ("ingest", "build_examples", "gate"),
    "train": ("build_examples", "publish_model"),
    "calibrate": ("build_examples", "train", "publish_model"),
    "evaluate": ("build_examples", "train", "calibrate", "publish_model"),
    "publish_model": ("train", "calibrate", "evaluate", "publish_model"),
    "score": ("ingest", "build_examples", "train", "calibrate", "publish_model"),
    "report": ("ingest", "build_examples", "gate", "train", "calibrate", "evaluate", "publish_model", "score", "report"),
}


def plan(spark: SparkSession, conf: Conf, runs: Sequence[Nights]) -> int:
    """Print the plan; the exit code is 3 where a night would stop for want of files, else 0."""
    tables = all_tables(conf)
    stand = dict(zip(tables, side_by_side(lambda table: table_stands(spark, conf.workdir, table), tables.values()), strict=True))
    lacking = [name for name, there in stand.items() if not there]
    if lacking:
        print(f"creates {len(lacking)} tables in {conf.workdir}: {', '.join(lacking)}")
    pending: set[str] = set()
    return max([Planner(spark, conf, night, stand, pending).told() for night in runs], default=DONE)


class Standing(Contents):
    """Contents, where a table that is not there yet has no rows."""

    def __init__(self, spark: SparkSession, conf: Conf, stand: dict[str, bool]) -> None:
        super().__init__(spark, conf)
        self.stand = stand

    def _of_table(self, table: str, model: str | None, names: Sequence[str]) -> dict[str, str]:
        return super()._of_table(table, model, names) if self.stand[table] else dict.fromkeys(names, EMPTY)


class Nothing(Ledger):
    """The ledger of a working folder that has none."""

    def __init__(self) -> None:
        self.done = []


class Planner:
    """One night, or one range. `pending`: stages of the plan so far that have, or may have, work to do."""

    def __init__(self, spark: SparkSession, conf: Conf, night: Nights, stand: dict[str, bool], pending: set[str]) -> None:
        ledger = Ledger(spark, conf) if stand[RUNS.name] else Nothing()
        self.run = Run(spark, conf, Night.of(night.last, conf), night.first, "", ledger, Standing(spark, conf, stand))
        self.night, self.stand, self.pending = night, stand, pending

    def told(self) -> int:
        run = self.run
        kind = "range" if self.night.first != self.night.last else "night"
        print(f"{kind} {self.night.told}, as of {run.night.as_of:%Y-%m-%d %H:%M} UTC, builds from {run.first}, scores {run.night.scored}")
        for stage in self.night.stages:
            try:
                state, why, details = self.stage(stage)
            except InputMissing as missing:
                print(f"  {stage.name:<15} stops  exit {INPUT}: {missing}")
                return INPUT
            print(f"  {stage.name:<15} {state:<5}  {why}")
            for line in details:
                print(f"  {'':<15} {'':<5}    {line}")
            if state != "skip":
                self.pending.add(stage.name)
        return DONE

    def stage(self, stage: Stage) -> tuple[str, str, Iterable[str]]:
        """(state, why, lines about the inputs)"""
        before = [name for name in READS[stage.name] if name in self.pending]
        if before:
            return "later", f"reads what {in_words(before)} will have made", self.inventory() if stage.name == "score" else ()
        if stage.name == "report":
            return "do", "made anew by each run", ()
        if stage.name != "ingest" and not all(self.stand.values()):
            return "do", "never done before: its tables are not there yet", ()
        try:
            asked = asked_of(self.run, stage)
        except NotYet as nothing:
            return "skip", str(nothing), ()
        details = self.landed() if stage.name == "ingest" else self.versions(asked.depends.inputs)
        return ("do", asked.why, details) if asked.why else ("skip", UNCHANGED, details)

    def landed(self) -> Iterator[str]:
        """What lies in the landing folders for ingest, by block."""
        for kind, found in self.run.landed.items():
            for block, files in found.files.items():
                yield f"{block} ({kind}, {span(found)}): {amount(files)}"

    def inventory(self) -> Iterator[str]:
        """Without an inventory a night has nothing to score, and says so once it gets there."""
        day, conf = self.run.night.scored, self.run.conf
        blocks = blocks_of(conf, "inventory")
        if not any(files_by_day(self.run.spark, conf, source, day, day)[day] for source in blocks.values()):
            wanted = " or ".join(pattern(conf, source, day) for source in blocks.values()) or "no block of kind inventory is configured"
            yield f"no inventory for {day} so far ({wanted}): if a model serves by then, the night stops here with exit {INPUT}"

    def versions(self, inputs: dict[str, str]) -> Iterator[str]:
        """The tables that a stage reads, each at its newest version, and what else it depends on."""
        days: dict[tuple[str, str], dict[date, int]] = {}
        other = []
        for name, value in inputs.items():
            if found := TABLE_DAY.match(name):
                days.setdefault((found[1], found[2] or ""), {})[date.fromisoformat(found[3])] = int(value.split(":")[0])
            else:
                other.append(f"{name} {value[:16]}")
        for (table, model), rows in days.items():
            version = pin(self.run.spark, self.run.conf.workdir, all_tables(self.run.conf)[table]).version
            of = f" of model {model}" if model else ""
            yield f"{table}@v{version}{of}: {min(rows)} to {max(rows)}, {len(rows)} days with {sum(rows.values()):,} rows"
        if other:
            yield ", ".join(other)


def in_words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def span(found: Landed) -> str:
    return f"{found.first} to {found.last}" if found.first != found.last else f"{found.last}"


def amount(files: Sequence[LandedFile]) -> str:
    tables = [file.path.rsplit("/", 1)[-1] for file in files if file.table]
    if tables:
        return f"tables {', '.join(tables)}"
    return f"{len(files):,} files, {sum(file.size for file in files):,} bytes" if files else "no files"
