"""A configuration: every knob of Adtower, with its unit. One reader a knob, no defaults elsewhere; a run stores the whole of it.

Blocks of their own files: conf/source.py, conf/training.py, conf/gates.py, conf/history.py, conf/retention.py and conf/template.py.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from pydantic import Field, model_validator

from conf.gates import Calibration, Gate, Publication
from conf.history import History, history_column
from conf.retention import Retention
from conf.segments import require_segments
from conf.source import Source
from conf.strict import Name, Strict
from conf.template import Template
from conf.training import ModelConf, Sampling, Tracking, Training


class Head(Strict):
    """One engagement to predict. A label is 1, 0 or null (masked)."""

    action: Name = Field(description="the engagement action that makes an impression positive")
    window_hours: float = Field(24, ge=0, le=24 * 60, description="how long after being shown an engagement counts, hours")
    min_dwell_seconds: float = Field(0, ge=0, description="an engagement counts only with this much dwell, seconds")
    applies_to: str = Field("true", description="predicate over impressions; where it is not true the label is masked")
    attribution: Literal["impression", "last_touch"] = Field(
        "impression",
        description="impression: the engagement names its impression_id; last_touch: the newest impression of its user, ad and session before it",
    )
    observed_by: Name | None = Field(
        None, description="an action that shows the outcome was seen at all: without one inside the window the label is masked, never 0"
    )
    parent: Name | None = Field(None, description="head under which this one is conditional: p = p(parent) x p(this | parent)")
    utility_weight: float = Field(0.0, description="weight of this head's probability in utility (negative for hide)")
    utility_times_bid: bool = Field(
        False,
        description="whether its part of the utility is multiplied by the row's bid, in the account's currency; a row without a bid gets 0 for it, "
        "and the flag unknown_bid",
    )


class Clock(Strict):
    lateness_hours: float = Field(48, ge=0, le=24 * 60, description="how late an engagement may be received and still count, hours")
    entity_lookback_days: int = Field(2, ge=1, le=400, description="how old a user or ad snapshot may be and still be used, days")
    train_days: int = Field(28, ge=1, description="a full training reads at most this many days")


class SparkConf(Strict):
    master: str = Field(
        "local[2,4]",
        description="used when spark-submit gives no --master; local[slots,tries]: a task is tried again, as a cluster would",
    )
    driver_memory: str = Field("4g", description="heap of a driver that this process starts itself")
    driver_java_options: str = Field(
        "-XX:+UseParallelGC -XX:ReservedCodeCacheSize=512m -XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
        "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000",
        description="of a driver that this process starts itself; these compile well only what runs ten times as often as Java would wait "
        "for, and collect garbage by throughput: right for short nights on one machine",
    )
    shuffle_partitions: int = Field(4, ge=1)
    snapshot_partitions: int = Field(2, ge=1, description="spark.databricks.delta.snapshotPartitions: small for small tables")


class Privacy(Strict):
    hash_user_ids: bool = Field(
        False,
        description="keep user ids as keyed hashes (HMAC-SHA256, the key from the environment variable ADTOWER_USER_KEY), and of broken rows not "
        "what may name a user",
    )


class Simulation(Strict):
    world: Name = Field(description="file under conf/worlds/")
    replicate: int = Field(
        0, ge=0, description="which of the world's seeds, counted from 0: another seed is another world of the same kind"
    )
    first_day: date
    days: int = Field(ge=1, le=400)
    impressions_a_day: int = Field(ge=1000, le=100_000_000)
    users: int = Field(20_000, ge=100)
    ads_alive: int = Field(3_000, ge=30, description="ads alive at a time, each for 30 days")
    campaigns: int = Field(800, ge=10)
    corrupt_lines_a_day: int = Field(5, ge=0, description="planted in each text log of a source and day")
    duplicate_share: float = Field(0.01, ge=0, le=0.5, description="of the delivered rows, delivered once more")
    files_a_day: int = Field(2, ge=1, description="files of each log and day")
    inventory_days: tuple[int, ...] = Field((), description="days with an inventory file, counted from 1; may lie after the last day")


class Conf(Strict):
    name: Name
    workdir: str = Field(description="where tables, snapshots, models and runs live; relative to the working directory")
    landing: str = Field("", description="folder of the sources' files; <workdir>/landing if empty")
    seed: int = Field(1, ge=1)
    spark: SparkConf = SparkConf()
    simulation: Simulation | None = None
    clock: Clock = Clock()
    privacy: Privacy = Privacy()
    sources: dict[Name, Source] = Field(min_length=1)
    history: History = History()
    tower: str = Field("source", description="expression over canonical impression and inventory columns")
    heads: dict[Name, Head] = Field(min_length=1)
    template: Template
    model: ModelConf = ModelConf()
    training: Training = Training()
    tracking: Tracking = Tracking()
    sampling: Sampling = Sampling()
    calibration: Calibration = Calibration()
    publication: Publication = Publication()
    gate: Gate = Gate()
    retention: Retention = Retention()

    @model_validator(mode="after")
    def _heads_and_sources_agree(self) -> Conf:
        for name, head in self.heads.items():
            if head.parent is None:
                continue
            if head.parent not in self.heads:
                raise ValueError(f"head {name} names parent {head.parent}, which is no head; heads: {', '.join(self.heads)}")
            if self.heads[head.parent].parent is not None:
                raise ValueError(f"head {name} has parent {head.parent}, itself a child; a child's parent must be a top head")
            if list(self.heads).index(head.parent) > list(self.heads).index(name):
                raise ValueError(f"head {name} stands before its parent {head.parent}; list the parent first")
        for feature in self.template.of_family("history"):
            history_column(feature.column, self.history.keys, self.heads)
        require_segments(self.calibration.features, self.template)
        strangers = sorted(set(self.model.private_layers) - set(self.heads))
        if strangers:
            raise ValueError(f"model.private_layers names {', '.join(strangers)}, which is no head; heads: {', '.join(self.heads)}")
        if self.model.serving == "additive" and not self.template.of_family("serving"):
            raise ValueError("model.serving is additive and no feature is of family serving; add one to the template, or set it to off")
        feeds = sorted({source.source for source in self.sources.values()})
        unknown = sorted(set(self.sampling.keep_negatives) - set(feeds))
        if unknown:
            raise ValueError(
                f"sampling.keep_negatives names {', '.join(unknown)}, no source of this configuration; sources: {', '.join(feeds)}"
            )
        kinds = {source.kind for source in self.sources.values()}
        if "impressions" not in kinds:
            raise ValueError("no source block of kind impressions; add one to `sources`")
        return self

    @property
    def label_delay(self) -> timedelta:
        """Time from being shown until a label is final: the longest window plus the allowed lateness."""
        return timedelta(hours=max(head.window_hours for head in self.heads.values()) + self.clock.lateness_hours)

    @property
    def label_days(self) -> int:
        """K: how many days, the night's own among them, a night rebuilds; M is the first of them."""
        whole, rest = divmod(self.label_delay, timedelta(days=1))
        return whole + (1 if rest else 0) + 1
