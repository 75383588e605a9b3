"""The row rules of each table: those of the quarantine for what was read, and here those of what the stages build from it.

All are Spark SQL over the columns of etl/schemas.py, and hold or are broken row by row (rules.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from conf.schema import Conf
from conf.source import Kind
from conf.template import Feature
from etl.history import kinds
from etl.schemas import Table
from etl.utility import utility
from validation.rules import Rule, present, row_rules

CLOSE = 1e-9  # sums in another order differ in their last bits


def rules_of(table: Table, conf: Conf) -> tuple[Rule, ...]:
    if table.name in BUILT:
        return tuple(BUILT[table.name](conf))
    return row_rules(next(kind for kind in get_args(Kind) if kind == table.name))


def _example_rules(conf: Conf) -> list[Rule]:
    return [
        *row_rules("impressions"),
        Rule("day_is_shown_day", "day = to_date(shown_at)", "the partition is the UTC day of shown_at", "day"),
        Rule("labels_as_of_present", "labels_as_of IS NOT NULL", "without it nobody knows what the labels could know", "labels_as_of"),
        *_label_rules(conf),
        *(_width_rule(feature) for feature in conf.template.of_type("dense")),
    ]


def _label_rules(conf: Conf) -> list[Rule]:
    rules = []
    for name, head in conf.heads.items():
        label = f"label_{name}"
        rules.append(Rule(f"{label}_valid", f"{label} IS NULL OR {label} IN (0, 1)", "a label is 1, 0, or null where it is masked", label))
        if head.parent is None:
            continue
        parent = f"label_{head.parent}"
        holds = f"CASE WHEN {parent} = 1 THEN true WHEN {parent} = 0 THEN {label} = 0 ELSE {label} IS NULL END"
        why = f"{name} happens only under {head.parent}: 0 where that is 0, null where that is null"
        rules.append(Rule(f"{label}_follows_{head.parent}", holds, why, label))
    return rules


def _width_rule(feature: Feature) -> Rule:
    name = feature.column
    holds = f"`{name}` IS NULL OR size(`{name}`) = {feature.width}"
    return Rule(f"{name}_width", holds, f"the template reads {feature.width} numbers; see its `width`", name)


def _history_rules(conf: Conf) -> list[Rule]:
    engaged = [f"engaged_{head}" for head in conf.heads]
    known = ", ".join(f"'{kind}'" for kind in kinds(conf))
    something = " + ".join(["impressions", *engaged])
    return [
        Rule("kind_known", f"kind IN ({known})", "the template counts by these kinds alone; another is a leftover of an older one", "kind"),
        Rule("key_present", "key IS NOT NULL", "nobody's counts can be joined to nobody", "key"),
        Rule("counts_something", f"{something} > 0", "a key stands here because something of it became known on the day", "impressions"),
        *(Rule(f"{name}_not_negative", f"{name} >= 0", "counts of rows", name) for name in ("impressions", *engaged)),
    ]


def _served_rules(conf: Conf) -> list[Rule]:
    why = "a calibrator fitted on it would be broken too"
    finite = [Rule(f"logit_{head}_finite", f"abs(logit_{head}) < double('infinity')", why, f"logit_{head}") for head in conf.heads]
    return [*finite, *_label_rules(conf)]


def _score_rules(conf: Conf) -> list[Rule]:
    rules = []
    for name, head in conf.heads.items():
        for stage in ("_raw", ""):
            p = f"p_{name}{stage}"
            rules.append(Rule(f"{p}_inside_0_and_1", f"{p} > 0 AND {p} < 1", "nothing is certain, and NaN is no probability", p))
            if head.parent:
                parent = f"p_{head.parent}{stage}"
                rules.append(Rule(f"{p}_at_most_{parent}", f"{p} <= {parent}", f"{name} happens only under {head.parent}", p))
        holds = f"expected_{name} <=> p_{name} * expected_impressions"
        rules.append(
            Rule(f"expected_{name}_is_a_product", holds, f"p_{name} x expected_impressions, null without them", f"expected_{name}")
        )
    holds = f"abs(utility - ({utility(conf.heads)})) <= {CLOSE} * (1 + abs(utility))"
    return [
        *rules,
        Rule("utility_is_the_weighted_sum", holds, "sum of utility_weight x calibrated probability (x bid)", "utility"),
        Rule("rank_counts_from_1", "rank >= 1", "1 is the highest utility of the day", "rank"),
        Rule("percentile_is_a_share", "percentile BETWEEN 0 AND 1", "the share of the day's other rows ranked below", "percentile"),
    ]


def _stage_rule(table: str) -> Rule:
    return Rule("stage_known", "stage IN ('raw', 'calibrated')", f"{table} tells what a model gave before and after calibration", "stage")


def _share(column: str, why: str) -> Rule:
    return Rule(f"{column}_is_a_share", f"{column} IS NULL OR {column} BETWEEN 0 AND 1", why, column)


def _metric_rules(conf: Conf) -> list[Rule]:
    ratio = f"CASE WHEN positives > 0 THEN abs(ratio - predicted / positives) <= {CLOSE} * (1 + ratio) ELSE ratio IS NULL END"
    return [
        *_of_known_heads(conf),
        _stage_rule("metrics"),
        Rule("positives_at_most_rows", "positives BETWEEN 0 AND rows", "a positive is a labelled row", "positives"),
        # NaN is larger than any number in Spark, so the upper bounds refuse it too.
        Rule("predicted_at_most_rows", "predicted BETWEEN 0 AND rows", "a sum of as many probabilities", "predicted"),
        Rule("ratio_follows", ratio, "predicted / positives, null without positives", "ratio"),
        Rule("top_ratio_positive", "top_ratio IS NULL OR (top_ratio > 0 AND top_ratio < double('infinity'))", "a ratio", "top_ratio"),
        Rule("ne_finite", "ne IS NULL OR (ne >= 0 AND ne < double('infinity'))", "a log-loss over an entropy", "ne"),
        _share("auc", "of pairs, those in the right order"),
        _share("gauc", "a mean of such shares"),
        _share("brier", "a mean of squared differences of probabilities and labels"),
        _share("ece", "a mean of differences of probabilities"),
        Rule("ece_limits_in_order", "NOT ece_low > ece_high", "limits of one interval", "ece_low"),
        _share("ece_chance", "a mean of differences of probabilities"),
        _measured_before_the_night(),
    ]


def _bin_rules(conf: Conf) -> list[Rule]:
    return [
        *_of_known_heads(conf),
        _stage_rule("calibration_daily"),
        Rule("bin_holds_rows", "bin >= 0 AND rows > 0", "a point of the diagram stands for rows", "rows"),
        Rule(
            "predicted_inside_0_and_1", "predicted > 0 AND predicted < 1", "a mean of probabilities, none of which is certain", "predicted"
        ),
        Rule("observed_is_a_share", "observed BETWEEN 0 AND 1", "positives of the bin over its rows", "observed"),
        _measured_before_the_night(),
    ]


def _segment_rules(conf: Conf) -> list[Rule]:
    inside = "positives = 0 OR (ratio_low <= ratio AND ratio <= ratio_high)"
    return [
        *_of_known_heads(conf),
        Rule("positives_at_most_rows", "positives BETWEEN 0 AND rows", "a positive is a labelled row", "positives"),
        # NaN is larger than any number in Spark, so the upper bounds refuse it too.
        *(
            Rule(f"{name}_at_most_rows", f"{name} BETWEEN 0 AND rows", "a sum of as many probabilities", name)
            for name in ("predicted_raw", "predicted")
        ),
        Rule("ratio_inside_its_interval", inside, "limits lie on either side", "ratio"),
        _measured_before_the_night(),
    ]


def _of_known_heads(conf: Conf) -> list[Rule]:
    names = ", ".join(f"'{head}'" for head in conf.heads)
    return [Rule("head_known", f"head IN ({names})", "only heads of this configuration are measured", "head")]


def _measured_before_the_night() -> Rule:
    return Rule("measured_before_the_night", "measured_day <= day", "labels of later days are not final", "measured_day")


def _model_rules(conf: Conf) -> list[Rule]:
    return [
        Rule("trained_days_in_order", "trained_from <= trained_to", "a model is trained on one day at least", "trained_to"),
        Rule("trained_before_the_night", "trained_to < day", "labels of later days are not final", "trained_to"),
        Rule("verdict_known", "verdict IN ('publish', 'refuse', 'too little')", "what became of the candidate", "verdict"),
        present("reason", "a verdict without its reason helps nobody"),
        Rule("path_inside", "path = concat('models/', model)", "the bundle lies in the working folder, by its id", "path"),
        Rule("parent_is_another", "parent IS NULL OR parent <> model", "a model does not start from itself", "parent"),
    ]


def _publication_rules(conf: Conf) -> list[Rule]:
    return [
        Rule("what_known", "what IN ('model', 'scores', 'rollback')", "what became current, or the order for it", "what"),
        Rule("scored_day_of_scores", "(scored_day IS NOT NULL) = (what = 'scores')", "scores are of a day, a model is not", "scored_day"),
        Rule("published_at_present", "published_at IS NOT NULL", "when it became current", "published_at"),
    ]


def _run_rules(conf: Conf) -> list[Rule]:
    return [
        Rule("status_known", "status IN ('done', 'skipped', 'failed')", "how the stage ended", "status"),
        Rule("seconds_not_negative", "seconds >= 0 AND seconds < double('infinity')", "a duration", "seconds"),
        Rule("started_at_present", "started_at IS NOT NULL", "when the stage began", "started_at"),
        Rule("clock_is_the_days", "as_of = timestamp(day + 1)", "a night's clock is the end of its day", "as_of"),
        Rule("done_has_a_fingerprint", "status <> 'done' OR length(fingerprint) > 0", "a stage is skipped by it", "fingerprint"),
    ]


BUILT: dict[str, Callable[[Conf], list[Rule]]] = {
    "examples": _example_rules,
    "history": _history_rules,
    "served": _served_rules,
    "scores": _score_rules,
    "challenger_scores": _score_rules,
    "metrics": _metric_rules,
    "calibration_daily": _bin_rules,
    "calibration_segments": _segment_rules,
    "models": _model_rules,
    "publications": _publication_rules,
    "runs": _run_rules,
}
