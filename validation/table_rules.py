"""The row rules of each table: those of the quarantine for what was read, and here those of what the stages build from it.

All are Spark SQL over the columns of etl/schemas.py, and hold or are broken row by row (rules.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from conf.schema import Conf, Kind
from conf.template import Feature
from etl.history import kinds
from etl.schemas import Table
from validation.rules import Rule, row_rules

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
    utility = " + ".join(f"{head.utility_weight!r}D * p_{name}" for name, head in conf.heads.items())
    holds = f"abs(utility - ({utility})) <= {CLOSE} * (1 + abs(utility))"
    return [
        *rules,
        Rule("utility_is_the_weighted_sum", holds, "sum of utility_weight x calibrated probability", "utility"),
        Rule("rank_counts_from_1", "rank >= 1", "1 is the highest utility of the day", "rank"),
        Rule("percentile_is_a_share", "percentile BETWEEN 0 AND 1", "the share of the day's other rows ranked below", "percentile"),
    ]


BUILT: dict[str, Callable[[Conf], list[Rule]]] = {
    "examples": _example_rules,
    "history": _history_rules,
    "served": _served_rules,
    "scores": _score_rules,
}
