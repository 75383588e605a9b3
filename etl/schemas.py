"""Every table on one page: columns, types, units, key, partition, who writes it. All clocks are UTC.

`day` partitions each table. For impressions, examples and served it is the UTC day of shown_at; for engagements, users and ads the day
of received_at; for history the day on which what it counts became known; for inventory and scores the day scored; for quarantine the day
the broken row would have had, or its file's (a rebuilt day then replaces its own broken rows, where a partition a night would repeat them
K times); for metrics, calibration_daily, calibration_segments, models, publications and runs the night's `--day`; for backtest the first day
measured; for forgotten the day on which it was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from conf.schema import Conf
from conf.template import Feature, Template

ALL = "(all)"  # where a table's line stands for every source, tower or head together
STRING, LONG, INT, DOUBLE = StringType(), LongType(), IntegerType(), DoubleType()
TIME, DATE, BOOLEAN = TimestampType(), DateType(), BooleanType()


def column(name: str, kind: DataType, comment: str, nullable: bool = True) -> StructField:
    return StructField(name, kind, nullable, {"comment": comment})


@dataclass(frozen=True)
class Table:
    """A Delta table. `key` is unique within it; `lineage` columns say how a row came about and are left out of content hashes.

    `partitions`: day, and what else a write replaces by, so that no write has to read what it leaves alone.
    """

    name: str
    columns: tuple[StructField, ...]
    key: tuple[str, ...]
    lineage: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ("day",)
    checks: tuple[tuple[str, str], ...] = ()

    @property
    def schema(self) -> StructType:
        return StructType(list(self.columns))


DAY = column("day", DATE, "partition", nullable=False)
RUN = column("run_id", STRING, "the run that wrote the row")

IMPRESSION_COLUMNS = (
    column("impression_id", STRING, "unique", nullable=False),
    column("source", STRING, "the feed it came through", nullable=False),
    column("tower", STRING, "which tower of the model reads it", nullable=False),
    column("shown_at", TIME, "when the ad was shown", nullable=False),
    column("received_at", TIME, "when the log received it", nullable=False),
    column("user_id", STRING, "null when the user is unknown"),
    column("ad_id", STRING, "the ad shown", nullable=False),
    column("campaign_id", STRING, "the ad's campaign"),
    column("advertiser_id", STRING, "who pays"),
    column("session", STRING, "the session it was shown in; last-touch attribution stays within it"),
    column("position", INT, "slot on the page, 0 is the first; known only once served"),
    column("explored", BOOLEAN, "whether the ad was drawn to explore, not chosen by the policy; null where the log does not say"),
    column("bid_micros", LONG, "bid, millionths of the account's currency"),
)
INVENTORY_COLUMNS = (
    column("inventory_id", STRING, "unique: a candidate impression to be scored", nullable=False),
    column("source", STRING, "the feed it belongs to", nullable=False),
    column("tower", STRING, "which tower of the model reads it", nullable=False),
    column("received_at", TIME, "when the inventory was received", nullable=False),
    column("user_id", STRING, "null when the user is unknown"),
    column("ad_id", STRING, "the candidate ad", nullable=False),
    column("campaign_id", STRING, "the ad's campaign"),
    column("advertiser_id", STRING, "who pays"),
    column("bid_micros", LONG, "bid, millionths of the account's currency"),
    column("expected_impressions", DOUBLE, "how many impressions the row stands for"),
)
ENGAGEMENTS = Table(
    "engagements",
    (
        column("impression_id", STRING, "the impression engaged with; null when the log names only user, ad and session"),
        column("source", STRING, "the feed it came through", nullable=False),
        column("user_id", STRING, "who engaged"),
        column("ad_id", STRING, "the ad engaged with"),
        column("session", STRING, "the session it happened in"),
        column("action", STRING, "what was done: click, save, hide, ...", nullable=False),
        column("acted_at", TIME, "when it was done", nullable=False),
        column("received_at", TIME, "when the log received it", nullable=False),
        column("dwell_ms", LONG, "time spent, milliseconds"),
        DAY,
    ),
    key=("impression_id", "user_id", "ad_id", "session", "action", "acted_at"),
)
QUARANTINE = Table(
    "quarantine",
    (
        column("table_name", STRING, "the table it was meant for", nullable=False),
        column("block", STRING, "the block of configuration that read it", nullable=False),
        column("source", STRING, "the feed", nullable=False),
        column("file", STRING, "base name of the file it stood in"),
        column("reasons", ArrayType(STRING, False), "every row rule it breaks", nullable=False),
        column("raw", STRING, "the row as it came, as JSON or as the unreadable line"),
        RUN,
        DAY,
    ),
    key=("table_name", "block", "file", "raw"),
    lineage=("run_id",),
    partitions=("day", "table_name"),
)
METRICS = Table(
    "metrics",
    (
        column("model", STRING, "model id", nullable=False),
        column("head", STRING, "engagement head; a child head stands for p(child | parent) on rows with parent 1", nullable=False),
        column("source", STRING, "feed, or (all)", nullable=False),
        column("tower", STRING, "tower, or (all)", nullable=False),
        column("stage", STRING, "raw or calibrated", nullable=False),
        column("measured_day", DATE, "the held-out day M", nullable=False),
        column("rows", LONG, "labelled rows"),
        column("positives", LONG, "rows with label 1"),
        column("predicted", DOUBLE, "sum of probabilities"),
        column("ratio", DOUBLE, "predicted / positives; null without positives"),
        column("top_ratio", DOUBLE, "ratio of the tenth of the rows with the highest probability; null without positives among them"),
        column("ne", DOUBLE, "normalised entropy: log-loss / entropy of the base rate; null with one class"),
        column("auc", DOUBLE, "null with one class"),
        column("gauc", DOUBLE, "mean over rows of their user's own AUC, of users with both classes; null without any"),
        column("brier", DOUBLE, "mean squared difference of probability and label"),
        column("ece", DOUBLE, "calibration error over calibration.ece_bins bins of equally many rows, ties together"),
        column("ece_low", DOUBLE, "95% limit of ece without its noise, by bootstrap; may lie below ece itself"),
        column("ece_high", DOUBLE, "the other limit"),
        column("ece_chance", DOUBLE, "ece that right probabilities would show on as many rows"),
        RUN,
        DAY,
    ),
    key=("day", "model", "head", "source", "tower", "stage"),
    lineage=("run_id",),
)
CALIBRATION_DAILY = Table(
    "calibration_daily",
    (
        column("model", STRING, "model id", nullable=False),
        column("head", STRING, "engagement head", nullable=False),
        column("tower", STRING, "tower", nullable=False),
        column("stage", STRING, "raw or calibrated", nullable=False),
        column("measured_day", DATE, "the held-out day M", nullable=False),
        column("bin", INT, "equal-mass bin, from the lowest probability", nullable=False),
        column("rows", LONG, "rows in the bin"),
        column("predicted", DOUBLE, "mean probability"),
        column("observed", DOUBLE, "share of positives"),
        RUN,
        DAY,
    ),
    key=("day", "model", "head", "tower", "stage", "bin"),
    lineage=("run_id",),
)
CALIBRATION_SEGMENTS = Table(
    "calibration_segments",
    (
        column("model", STRING, "model id", nullable=False),
        column("head", STRING, "engagement head; a child head stands for p(child | parent) on rows with parent 1", nullable=False),
        column("tower", STRING, "tower", nullable=False),
        column(
            "by",
            STRING,
            "feature of a closed list whose value makes the segment; or (hour), (advertiser), (ad), (explored)",
            nullable=False,
        ),
        column("value", STRING, "its value; (missing) where there is none", nullable=False),
        column("measured_day", DATE, "the held-out day M", nullable=False),
        column("rows", LONG, "labelled rows"),
        column("positives", LONG, "rows with label 1"),
        column("predicted_raw", DOUBLE, "sum of probabilities before calibration"),
        column("predicted", DOUBLE, "sum of probabilities after calibration"),
        column("ratio", DOUBLE, "predicted / positives; null without positives"),
        column("ratio_low", DOUBLE, "95% limit of ratio by the chance of its positives (Poisson), for all segments of the model together"),
        column("ratio_high", DOUBLE, "the other limit; null without positives"),
        RUN,
        DAY,
    ),
    key=("day", "model", "head", "tower", "by", "value"),
    lineage=("run_id",),
)
BACKTEST = Table(
    "backtest",
    (
        column("regime", STRING, "fresh: a model of its own for each day; stale: the first day's model for all", nullable=False),
        column("kind", STRING, "measured: the held-out days; scored: those on which a night's scores are used", nullable=False),
        column("head", STRING, "engagement head; a child head stands for p(child | parent) on rows with parent 1", nullable=False),
        column("tower", STRING, "tower", nullable=False),
        column("method", STRING, "way to calibrate; oracle and noise floor know the true probabilities of a simulation", nullable=False),
        column("chose", STRING, "what the method `chosen` was on that day"),
        column("trained_to", DATE, "last training day of the model", nullable=False),
        column("fit_positives", LONG, "positives of the cell in the last window before the measured days"),
        column("rows", LONG, "labelled rows"),
        column("positives", LONG, "rows with label 1"),
        column("expected", DOUBLE, "sum of true probabilities; null where no truth is known"),
        column("predicted", DOUBLE, "sum of probabilities"),
        column("error_observed", DOUBLE, "|predicted / positives - 1|; null without positives"),
        column("error_true", DOUBLE, "|predicted / expected - 1|"),
        column("segments_observed", DOUBLE, "sum over segments of |predicted - positives|, as a share of positives"),
        column("segments_true", DOUBLE, "sum over segments of |predicted - expected|, as a share of expected"),
        column("log_loss", DOUBLE, "mean cross-entropy, nats; null for the noise floor, of which only sums are kept"),
        RUN,
        column("day", DATE, "first of the measured days, whatever the kind", nullable=False),
    ),
    key=("day", "regime", "kind", "head", "tower", "method"),
    lineage=("run_id",),
    partitions=("day", "regime"),
)
MODELS = Table(
    "models",
    (
        column("model", STRING, "id: the hash of what it was made from", nullable=False),
        column("parent", STRING, "the model it started from; null when trained from nothing"),
        column("trained_from", DATE, "first training day", nullable=False),
        column("trained_to", DATE, "last training day", nullable=False),
        column("verdict", STRING, "publish, refuse, or too little (data to tell)", nullable=False),
        column("reason", STRING, "the verdict in words"),
        column("production", STRING, "the model it was compared with on the held-out day; null without one"),
        column("comparison", STRING, "JSON: the numbers of the verdict, as models/verdict.py writes them"),
        column("examples_version", LONG, "Delta version of examples it was trained on"),
        column("path", STRING, "bundle folder, relative to the working folder"),
        RUN,
        DAY,
    ),
    key=("day", "model"),
    lineage=("run_id", "examples_version"),
)
PUBLICATIONS = Table(
    "publications",
    (
        column(
            "what",
            STRING,
            "model or scores: what is current since this night; rollback: a person's order of which model is to serve",
            nullable=False,
        ),
        column("model", STRING, "model id", nullable=False),
        column("scored_day", DATE, "the day whose scores became current; null for a model"),
        column("published_at", TIME, "wall clock"),
        RUN,
        DAY,
    ),
    key=("day", "what"),
    partitions=("day", "what"),
    lineage=("run_id", "published_at"),
)
FORGOTTEN = Table(
    "forgotten",
    (
        column("user_id", STRING, "who must not come back, as the tables have the id", nullable=False),
        column("asked_at", TIME, "wall clock", nullable=False),
        RUN,
        column("day", DATE, "the day it was asked on, by the wall clock", nullable=False),
    ),
    key=("user_id",),
    lineage=("asked_at", "run_id"),
)
RUNS = Table(
    "runs",
    (
        RUN,
        column("stage", STRING, "stage of the night", nullable=False),
        column("status", STRING, "done, skipped or failed", nullable=False),
        column("as_of", TIME, "the night's clock", nullable=False),
        column("started_at", TIME, "wall clock"),
        column("seconds", DOUBLE, "duration"),
        column("fingerprint", STRING, "hash of inputs, configuration read and code"),
        column("depends", STRING, "JSON: those inputs with hashes and versions, that configuration, that code by package"),
        column("why", STRING, "why it was done and not skipped"),
        column("outputs", STRING, "JSON: output name -> content hash"),
        column("counts", STRING, "JSON: what the stage counted"),
        column("message", STRING, "in words"),
        DAY,
    ),
    key=("run_id", "stage"),
)


def feature_type(feature: Feature) -> DataType:
    if feature.is_list:
        return ArrayType(STRING, True)
    return {"continuous": DOUBLE, "dense": ArrayType(FloatType(), True)}.get(feature.type, STRING)


def feature_columns(template: Template, *families: str) -> tuple[StructField, ...]:
    """Columns that exist only because the template reads them; a feature that names a fixed column adds none."""
    fixed = {field.name for field in IMPRESSION_COLUMNS + INVENTORY_COLUMNS}
    return tuple(
        column(feature.column, feature_type(feature), f"{feature.family} feature, {feature.type}")
        for feature in template.features
        if feature.family in families and feature.column not in fixed
    )


def impressions(conf: Conf) -> Table:
    return Table("impressions", (*IMPRESSION_COLUMNS, *feature_columns(conf.template, "context", "serving"), DAY), key=("impression_id",))


def inventory(conf: Conf) -> Table:
    return Table("inventory", (*INVENTORY_COLUMNS, *feature_columns(conf.template, "context"), DAY), key=("inventory_id",))


def entity(conf: Conf, family: str) -> Table:
    """`users` (family user) or `ads` (family ad): grain (id, valid_from)."""
    name = {"user": "users", "ad": "ads"}[family]
    fixed = (
        column(f"{family}_id", STRING, "whose state this is", nullable=False),
        column("valid_from", TIME, "from when on it holds", nullable=False),
        column("received_at", TIME, "when it was received", nullable=False),
    )
    return Table(name, (*fixed, *feature_columns(conf.template, family), DAY), key=(f"{family}_id", "valid_from"))


def examples(conf: Conf) -> Table:
    labels = tuple(column(f"label_{head}", INT, f"1, 0, or null where {head} is masked") for head in conf.heads)
    return Table(
        "examples",
        (
            *IMPRESSION_COLUMNS,
            *feature_columns(conf.template, "user", "ad", "history", "context", "serving"),
            *labels,
            column("labels_as_of", TIME, "labels use what was received by then", nullable=False),
            DAY,
        ),
        key=("impression_id",),
    )


def history(conf: Conf) -> Table:
    """What became known on a day, by what it is counted for: grain (day, kind, key)."""
    return Table(
        "history",
        (
            column("kind", STRING, "what is counted by: user, ad, ...; a name of history.keys", nullable=False),
            column("key", STRING, "whose counts these are", nullable=False),
            column("impressions", LONG, "impressions received on the day"),
            *(column(f"engaged_{head}", LONG, f"impressions whose {head} became known on the day") for head in conf.heads),
            DAY,
        ),
        key=("day", "kind", "key"),
    )


def segment_columns(conf: Conf) -> tuple[str, ...]:
    """Columns that `served` has only because calibration.features names them."""
    return tuple(name for name in conf.calibration.features if name not in ("user_id", "source"))


def served(conf: Conf) -> Table:
    """What a named model gives to later traffic: conditional log-odds before calibration, with matured labels."""
    return Table(
        "served",
        (
            column("impression_id", STRING, "the impression", nullable=False),
            column("model", STRING, "model id", nullable=False),
            column("user_id", STRING, "null when the user is unknown"),
            column("source", STRING, "feed", nullable=False),
            column("tower", STRING, "tower", nullable=False),
            *(column(name, STRING, "as in examples, for the calibrator") for name in segment_columns(conf)),
            *(
                column(f"logit_{head}", DOUBLE, f"log-odds of {head} given its parent, if any; null of a model without that head")
                for head in conf.heads
            ),
            *(column(f"label_{head}", INT, "as in examples") for head in conf.heads),
            DAY,
        ),
        key=("impression_id", "model"),
        partitions=("day", "model"),
    )


#: Columns of `scores` that are alike in all rows of a day and model.
MADE_FROM = ("model", "calibrator", "inventory_version", "run_id", "scored_at")


def scores(conf: Conf) -> Table:
    """One row an inventory row. Checked by Delta at each write: probabilities inside (0, 1), a child's at most its parent's."""
    heads = conf.heads
    return Table(
        "scores",
        (
            column("inventory_id", STRING, "the candidate impression", nullable=False),
            column("model", STRING, "model id", nullable=False),
            *(
                field
                for field in INVENTORY_COLUMNS
                if field.name in ("source", "tower", "campaign_id", "advertiser_id", "bid_micros", "expected_impressions")
            ),
            *(column(f"p_{head}_raw", DOUBLE, "probability before calibration (a child's includes its parent's)") for head in heads),
            *(column(f"p_{head}", DOUBLE, "calibrated probability (a child's includes its parent's)") for head in heads),
            column("utility", DOUBLE, "sum of utility_weight x calibrated probability, and x bid where a head asks for it"),
            column("rank", LONG, "1 is the highest utility of the day; ties by inventory_id"),
            column("percentile", DOUBLE, "share of the day's other rows ranked below, in [0, 1]"),
            *(column(f"expected_{head}", DOUBLE, "p x expected_impressions") for head in heads),
            column("unseen_share", DOUBLE, "of the row's ids (user, ad, campaign, ...), the share that the model never met in training"),
            column(
                "flags",
                ArrayType(STRING, False),
                "unknown_user; unknown_tower: scored by the shared tower; imputed: a number was missing, and its mean stands in; "
                "out_of_range: a number beyond what training clipped at; unknown_bid: a head asks for the bid, and there is none",
            ),
            column("calibrator", STRING, "hash of the calibrator"),
            column("inventory_version", LONG, "Delta version of inventory it was made from"),
            RUN,
            column("scored_at", TIME, "wall clock"),
            DAY,
        ),
        key=("day", "inventory_id", "model"),
        lineage=("inventory_version", "run_id", "scored_at"),
        checks=tuple((f"p_{head}_is_open_unit", f"p_{head} > 0 AND p_{head} < 1") for head in heads)
        + tuple((f"p_{head}_at_most_p_{spec.parent}", f"p_{head} <= p_{spec.parent}") for head, spec in heads.items() if spec.parent),
    )


def challenger_scores(conf: Conf) -> Table:
    """The day's inventory by a candidate that does not serve, to be laid beside `scores`; nothing of it is published."""
    return replace(scores(conf), name="challenger_scores")


def all_tables(conf: Conf) -> dict[str, Table]:
    tables = (
        impressions(conf), ENGAGEMENTS, entity(conf, "user"), entity(conf, "ad"), inventory(conf), QUARANTINE, history(conf),
        examples(conf), served(conf), scores(conf), challenger_scores(conf), METRICS, CALIBRATION_DAILY, CALIBRATION_SEGMENTS, BACKTEST,
        MODELS, PUBLICATIONS, FORGOTTEN, RUNS,
    )  # fmt: skip
    return {table.name: table for table in tables}
