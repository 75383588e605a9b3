"""Every knob of Adtower, with its unit. One reader a knob, no defaults elsewhere; a run stores the whole configuration it used."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from conf.history import History, history_column
from conf.segments import require_segments
from conf.strict import Name, Strict
from conf.template import Template

Kind = Literal["impressions", "engagements", "users", "ads", "inventory"]

#: {day} or {day:format} in a path; the group is the format, empty for the ISO date.
DAY_IN_PATH = re.compile(r"\{day(?::([^{}]*))?\}")

#: Reader options that say how lines are written. None changes what becomes of a broken one, or which columns and files are read.
READER_OPTIONS: dict[str, tuple[str, ...]] = {
    "csv": (
        *("header", "sep", "delimiter", "quote", "escape", "charToEscapeQuoteEscaping", "comment", "encoding", "charset", "lineSep"),
        *("multiLine", "nullValue", "emptyValue", "nanValue", "positiveInf", "negativeInf", "unescapedQuoteHandling", "maxColumns"),
        *("ignoreLeadingWhiteSpace", "ignoreTrailingWhiteSpace", "dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    ),
    "json": (
        *("encoding", "lineSep", "multiLine", "allowComments", "allowUnquotedFieldNames", "allowSingleQuotes", "allowNumericLeadingZeros"),
        *("allowBackslashEscapingAnyCharacter", "allowUnquotedControlChars", "allowNonNumericNumbers", "primitivesAsString"),
        *("dateFormat", "timestampFormat", "timestampNTZFormat", "locale"),
    ),
    "parquet": ("datetimeRebaseMode", "int96RebaseMode"),
    "avro": ("datetimeRebaseMode",),
    "delta": (),
}


class Source(Strict):
    """One log or file set of a feed -> rows of one canonical table.

    Expressions are Spark SQL over the raw columns; they come from configuration files only, never from the command line, and may call
    what etl/expressions.py lists.
    """

    kind: Kind
    source: Name = Field(description="the feed these rows belong to; several blocks may feed one")
    files: str = Field(
        description="path or glob ({a,b} for either); {landing}: landing folder, {cache}: user cache, {day}: day of delivery (of an inventory: "
        "day scored) as 2026-05-14, {day:%Y/%m/%d} or {day:%Y%m%d} as written; *.gz is unpacked; of a delta source the table's folder"
    )
    format: Literal["json", "csv", "parquet", "avro", "delta"]
    options: dict[str, str] = Field(default_factory=dict, description="how a line is written, such as header or sep: READER_OPTIONS")
    raw_schema: str = Field(
        "",
        description="DDL of the raw columns, found by name in files that carry names; a line that does not fit it is unreadable, a file that "
        "lacks one of them too. Empty: those of the first file or table, or of a CSV file's header",
    )
    derive: dict[Name, str] = Field(
        default_factory=dict,
        description="name -> expression over the raw columns of all rows of the block, before `where`; windows allowed, and with daily files a "
        "window sees only the files that this run reads. The names may be used further down here, in `where` and in `columns`",
    )
    where: str = Field("", description="predicate over raw and derived columns: rows for which it is not true are none of this block's")
    time_zone: str = Field("UTC", description="zone of clocks that carry no offset; applied to every timestamp column of this block")
    required: bool = Field(
        True, description="a required block without files stops the night (exit 3); an optional one leaves the day empty"
    )
    damaged_files: Literal["stop", "quarantine"] = Field(
        "stop",
        description="a file that cannot be read (cut, damaged, without a column of raw_schema) stops the night (exit 3), or is set aside as one "
        "row of the quarantine with reason unreadable_file",
    )
    max_quarantined_share: float | None = Field(
        None, ge=0, le=1, description="of this block's rows in; more stops the night at the gate. None: gate.max_quarantined_share"
    )
    columns: dict[Name, str] = Field(
        min_length=1,
        description="canonical column -> expression over raw and derived columns, _file (base name) and _path among them; a value that does "
        "not convert to the column's type puts the row into quarantine",
    )

    @property
    def daily(self) -> bool:
        """Whether the files are one set a day, told apart by {day} in their path."""
        return bool(DAY_IN_PATH.search(self.files))

    @model_validator(mode="after")
    def _lines_have_a_shape(self) -> Source:
        if self.format == "json" and not self.raw_schema:
            raise ValueError(
                "a json source needs raw_schema, the DDL of its raw columns, so that a broken line can be told from a good one"
            )
        return self

    @model_validator(mode="after")
    def _options_say_only_how_lines_are_written(self) -> Source:
        known = READER_OPTIONS[self.format]
        for option in self.options:
            if option.lower() not in {name.lower() for name in known}:
                raise ValueError(
                    f"options.{option} is none of a {self.format} source's: {', '.join(known) or 'it has none'}. What a broken line, an unknown "
                    "column or a path means is the same for every source"
                )
        return self

    @model_validator(mode="after")
    def _days_can_be_read_back(self) -> Source:
        formats = DAY_IN_PATH.findall(self.files)
        if formats and not any(sorted(re.findall("%.", form or "%Y%m%d")) == ["%Y", "%d", "%m"] for form in formats):
            raise ValueError(f"files: {self.files} has no whole day; write {{day}}, or %Y, %m and %d once each, as in {{day:%Y/%m/%d}}")
        unknown = sorted({code for form in formats for code in re.findall("%.", form)} - {"%Y", "%m", "%d"})
        if unknown or "{day" in DAY_IN_PATH.sub("", self.files):
            raise ValueError(f"files: {self.files} has a day that cannot be read; use {{day}} or {{day:…}} with %Y, %m and %d")
        return self


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


class Clock(Strict):
    lateness_hours: float = Field(48, ge=0, le=24 * 60, description="how late an engagement may be received and still count, hours")
    entity_lookback_days: int = Field(2, ge=1, le=400, description="how old a user or ad snapshot may be and still be used, days")
    train_days: int = Field(28, ge=1, description="a full training reads at most this many days")


class Sampling(Strict):
    """Negative downsampling of the training snapshot; off by default."""

    keep_negatives: dict[Name, float] = Field(
        default_factory=dict,
        description="source -> probability with which its rows without any engagement are trained on, each weighing 1 / this",
    )

    @model_validator(mode="after")
    def _are_probabilities(self) -> Sampling:
        wrong = {source: kept for source, kept in self.keep_negatives.items() if not 0 < kept <= 1}
        if wrong:
            raise ValueError(f"keep_negatives holds {wrong}; give each source a probability above 0 and at most 1")
        return self


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


class ModelConf(Strict):
    """The network; see models/engagement.py for the layers. Choices other than the defaults are for comparison, or for other data."""

    embedding_width: int = Field(16, ge=1, le=1024, description="numbers an embedding row")
    bottom: Literal["shared", "mmoe", "ple"] = Field(
        "shared",
        description="under the towers: one bottom for all heads, experts mixed by each head (MMoE), or also experts of its own (PLE)",
    )
    bottom_widths: tuple[int, ...] = Field((128, 64), min_length=1, description="bottom (or expert), units a layer; of PLE a level each")
    experts: int = Field(4, ge=1, le=64, description="mmoe and ple only: experts that all heads share; ple has one more a head")
    cross: Literal["none", "latent", "dcn_v2"] = Field("none", description="products of a tower's inputs, in front of its layers")
    cross_order: int = Field(2, ge=2, le=3, description="factors of the longest product")
    towers: Literal["residual", "plain"] = Field(
        "residual",
        description="a shared tower and a residual of each source's own, or towers whose layers share nothing (worse on small sources)",
    )
    tower_widths: tuple[int, ...] = Field((64, 32), min_length=1, description="each tower (shared and residual), units a layer")
    private_layers: dict[Name, Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="head -> units a layer of fully connected layers of its own, on what its tower gives: for heads that the others say little "
        "about; the other heads share all layers",
    )
    serving: Literal["off", "additive"] = Field(
        "off",
        description="features of family serving: left out, or learned as a term beside the network, which stands at its mean in every score",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="helps on small data only")

    @field_validator("serving", mode="before")
    @classmethod
    def _a_bare_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads it as false


class Training(Strict):
    backend: Literal["horovod_spark", "horovodrun", "torch", "single"] = Field(
        "horovod_spark",
        description="who starts the ranks: Horovod as Spark tasks; Horovod's own launcher or torch.distributed as processes of the driver's "
        "machine (a CPU each, or a GPU each where there are any); single: one rank in the driver's process, whatever `ranks` says",
    )
    ranks: int = Field(2, ge=1, description="number of processes; must divide virtual_shards")
    virtual_shards: int = Field(8, ge=1, description="files of a snapshot; fixes the batches whatever the number of ranks")
    batch_size: int = Field(2048, ge=1, description="rows of a global batch; a multiple of virtual_shards")
    epochs: int = Field(1, ge=1, le=100, description="ID embeddings over-fit after the first, so 1 is the default")
    warm_epochs: int = Field(1, ge=1, le=100, description="epochs over the new days when the night starts warm")
    warm_start: bool = Field(True, description="start from the published model and train on the days after its training end")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW, dense parts; the highest, see warm_up_share")
    embedding_learning_rate: float = Field(0.2, gt=0, description="row-wise Adagrad, embedding rows; the highest")
    linear_learning_rate: float = Field(0.2, gt=0, description="Adagrad, the linear path's weights of ids; the highest")
    linear_prior_rows: float = Field(
        16, ge=0, description="a weight of an id starts as if it had met this many rows: more keeps what rare ids and events say small"
    )
    warm_up_share: float = Field(
        0.2, ge=0, lt=1, description="of the steps, over which both learning rates rise; they then fall to zero at the last step"
    )
    weight_decay: float = Field(1e-4, ge=0, description="AdamW, dense matrices")
    residual_decay: float = Field(
        1e-2, ge=0, description="AdamW decay of the towers' residual layers: what shrinks a tower to the shared one"
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest global norm of the dense gradient")
    head_weighting: Literal["constant", "uncertainty"] = Field(
        "constant", description="every head's mean loss counts once, or by what is learned of its noise: see models/head_weighting.py"
    )
    unknown_user_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the training rows, those that lose all features of their user, other ones each epoch: see models/unknown_user.py",
    )
    start_timeout_seconds: int = Field(120, ge=5)
    stall_shutdown_seconds: int = Field(300, ge=61, description="a rank silent this long ends the job; above Horovod's 60 s warning")
    checkpoint_seconds: float = Field(
        60, ge=0, description="least time between two checkpoints, from which a killed training goes on; 0: one after every step"
    )

    @property
    def deciding(self) -> dict[str, object]:
        """The knobs that decide what is learned: all but those of how and where it runs."""
        how = {"backend", "ranks", "start_timeout_seconds", "stall_shutdown_seconds", "checkpoint_seconds"}
        return self.model_dump(mode="json", exclude=how)

    @model_validator(mode="after")
    def _shards_divide(self) -> Training:
        if self.virtual_shards % self.ranks:
            raise ValueError(f"training.ranks is {self.ranks} and does not divide virtual_shards {self.virtual_shards}; choose a divisor")
        if self.batch_size % self.virtual_shards:
            raise ValueError(f"training.batch_size is {self.batch_size}; make it a multiple of virtual_shards {self.virtual_shards}")
        return self


class Tracking(Strict):
    """How a person follows trainings; decides nothing of what is learned, and none of it can fail a night. Needs adtower[tracking]."""

    tensorboard: bool = Field(True, description="write each training's curves as TensorBoard event files, <workdir>/tensorboard/<model>")
    mlflow_uri: str = Field(
        "", description="MLflow store that finished trainings are told to, such as sqlite:///var/mlflow.db or https://…; empty: none"
    )
    mlflow_seconds: float = Field(60, gt=0, description="a store that takes longer than this for one training is left with a warning")


class Calibration(Strict):
    min_positives: int = Field(
        200, ge=1, description="a head x tower cell with fewer positives among its fit rows is the identity, and says so"
    )
    fit_days: int = Field(
        3, ge=1, le=400, description="a calibrator is fitted on at most this many days up to M-1, of those after its model's training end"
    )
    ece_bins: int = Field(15, ge=2, le=1000, description="equal-mass bins of the calibration error and the reliability diagram")
    method: Literal["platt", "featured"] = Field(
        "platt",
        description="two parameters a head and tower, or these and a weight for values of `features`; which one is better is for a person to "
        "say so far, a choice by backtest comes later",
    )
    features: tuple[Name, ...] = Field(
        (),
        max_length=6,
        description="featured only: columns of examples and inventory with one string a row, such as country, device and format; `served` gets "
        "them too, so a table that is there already has to be taken along by jobs/migrate.py",
    )
    segment_values: int = Field(
        50, ge=1, le=64, description="featured only: the most frequent values of a feature that may have a weight; others have weight 0"
    )
    ridge: float = Field(
        20,
        gt=0,
        allow_inf_nan=False,
        description="featured only, positives: a value with this many among its fit rows goes about half the way from the two parameters of its "
        "head and tower to a level of its own, one with far fewer stays; best near 1 / (spread of the values' log-odds)^2, so 20 for .22",
    )

    @model_validator(mode="after")
    def _features_and_method_agree(self) -> Calibration:
        if self.method == "featured" and not self.features:
            raise ValueError("method is featured and features is empty; name a few columns, such as country, or set method to platt")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features names a column twice: {', '.join(self.features)}; keep each once")
        return self


class Publication(Strict):
    """What a candidate has to show on the held-out day, beside the model in production, before it serves (models/verdict.py)."""

    max_ne_rise: float = Field(
        0.005, ge=0, description="relative rise of normalised entropy over production's that is still accepted: 0.005 is half a per cent"
    )
    max_auc_fall: float = Field(0.005, ge=0, description="fall of AUC below production's that is still accepted")
    max_ratio: float = Field(
        1.25, gt=1, description="predicted over observed after calibration, this many times either way, is still accepted"
    )
    max_shift: float = Field(
        0.5, gt=0, description="population stability index of a cell's predictions against production's on the same rows; more refuses"
    )
    min_positives: int = Field(
        100, ge=1, description="a head x tower cell with fewer positives on the held-out day is shown, and refuses nobody"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals; of those of single cells, for all judged cells together")
    challenger: bool = Field(
        False, description="score the inventory with a candidate that does not serve too, into the table challenger_scores"
    )


class Gate(Strict):
    """What the Great Expectations checkpoints on a night's tables ask beside exact schemas, row rules and unique keys.

    Critical ones stop the night; the others are warnings of the report.
    """

    min_rows_a_day: int = Field(1, ge=0, description="fewer examples on a day than this stops the night")
    max_quarantined_share: float = Field(0.05, ge=0, le=1, description="of a source's rows in; more stops the night")
    max_label_rate: float = Field(0.9, ge=0, le=1, description="a head positive more often than this on a mature day stops the night")
    max_missing_share: float = Field(0.9, ge=0, le=1, description="a feature missing more often than this is a warning")
    max_count_ratio: float = Field(
        5, gt=1, description="a source's rows beyond this many times the usual, or below one in this many, stop the night"
    )
    warn_count_ratio: float = Field(2, gt=1, description="the same as a warning")
    warn_label_ratio: float = Field(2, gt=1, description="a head's rate in a source, in times the usual rate, either way; a warning")
    min_expected_rows: int = Field(100, ge=1, description="rows (or positives) that must be usual before their ratio is judged")
    min_same_weekdays: int = Field(
        3, ge=1, description="earlier days of the same weekday that make a baseline; with fewer it is all earlier days"
    )
    max_psi: float = Field(0.25, gt=0, description="population stability index of a feature, newest day against training; a warning")
    min_psi_rows: int = Field(1000, ge=1, description="rows on both sides before shift and unseen values are judged")
    max_unseen_share: float = Field(
        0.3, ge=0, le=1, description="of the newest day's rows, those with a feature value that training never met; a warning"
    )
    seen_bits: int = Field(
        65536, ge=1024, le=2**20, multiple_of=8, description="hash positions by which the values of a feature are remembered, bits a day"
    )
    skew_rows: int = Field(
        20_000,
        ge=0,
        description="of a day's scored inventory, about how many rows are held against the training window, feature by feature",
    )
    max_unknown_share: float = Field(
        0.05, ge=0, le=1, description="of a day's rows, those that name a user, ad or impression that no log brought; a warning"
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
