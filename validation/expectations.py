"""What must hold of `examples`: of the frame (schema, key) and of each of its days (one number a check and day).

The numbers of all days are counted in one pass over the rows, and Great Expectations judges them: on 240,000 rows of 35 columns and 2 cores
the pass takes 1.1 s and its judgement .3 s, while one query a rule takes .17 s each, and grows with rows times rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from pyspark.sql.types import ArrayType

from conf.schema import Conf
from conf.template import Feature
from etl.schemas import Table
from validation.findings import Severity
from validation.rules import Rule, row_rules

CRITICAL = FailureSeverity.CRITICAL


@dataclass(frozen=True)
class DayCheck:
    """One number a day, and the bounds (both included) that it must keep; a null number (nothing to judge) keeps any bounds.

    `counted` is a Spark SQL aggregate over the day's rows. `broken` is the SQL predicate of an offending row, where rows can be named;
    then the number counts such rows.
    """

    name: str
    column: str
    counted: str
    why: str
    low: float | None = None
    high: float | None = None
    severity: Severity = "critical"
    knob: str = ""
    broken: str = ""

    @property
    def needed(self) -> str:
        if self.broken:
            return "0 rows a day"
        bounds = [f"at least {self.low:g}" if self.low is not None else "", f"at most {self.high:g}" if self.high is not None else ""]
        return f"{' and '.join(bound for bound in bounds if bound)} a day"


def frame_expectations(table: Table) -> list[Expectation]:
    """The exact columns in their order, and their types. Cheap: no row is read."""
    names, described = [field.name for field in table.columns], "the columns of etl/schemas.py, in their order"
    columns = gxe.ExpectTableColumnsToMatchOrderedList(
        column_list=names, severity=CRITICAL, description=described, meta=_meta("columns", "(all)")
    )
    found: list[Expectation] = [columns]
    for field in table.columns:
        meta = _meta("type", field.name)
        found.append(gxe.ExpectColumnTypeToBe(column=field.name, type_=type(field.dataType).__name__, severity=CRITICAL, meta=meta))
        if isinstance(field.dataType, ArrayType):
            found.append(_element_type(field.name, field.dataType))
    return found


def _element_type(column: str, kind: ArrayType) -> Expectation:
    """ExpectColumnTypeToBe compares the class alone, and every array is an ArrayType."""
    wanted = kind.simpleString()
    return gxe.UnexpectedRowsExpectation(
        unexpected_rows_query=f"SELECT DISTINCT typeof(`{column}`) AS found FROM {{batch}} WHERE typeof(`{column}`) <> '{wanted}'",
        severity=CRITICAL,
        description=f"{column} is {wanted}",
        meta=_meta("element_type", column),
    )


def key_expectation(table: Table) -> Expectation:
    """The key is unique over all days; one query, since GX's own uniqueness counts by a window over every row."""
    key = ", ".join(f"`{column}`" for column in table.key)
    query = f"SELECT {key}, count(*) AS rows FROM {{batch}} GROUP BY {key} HAVING count(*) > 1"
    description = f"{key} is unique"
    return gxe.UnexpectedRowsExpectation(
        unexpected_rows_query=query, severity=CRITICAL, description=description, meta=_meta("key_unique", ", ".join(table.key))
    )


def day_expectations(checks: Sequence[DayCheck], days: Sequence[date]) -> list[Expectation]:
    """The same checks as expectations on the small frame of one row a day, with columns `day` (ISO text) and a number a check."""
    described, meta = "only days of the range that was built", _meta("day_in_range", "day")
    range_of_days = gxe.ExpectColumnValuesToBeInSet(
        column="day", value_set=[day.isoformat() for day in days], severity=CRITICAL, description=described, meta=meta
    )
    found: list[Expectation] = [range_of_days]
    for check in checks:
        found.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=check.name,
                min_value=check.low,
                max_value=check.high,
                severity=FailureSeverity(check.severity),
                description=f"{check.column}, {check.needed}{' that break this' if check.broken else ''}: {check.why}",
                meta=_meta(check.name, check.column),
            )
        )
    return found


def day_checks(conf: Conf, mature_to: date) -> tuple[DayCheck, ...]:
    """Every check of a day of `examples`, row counts first: an empty day satisfies all the others.

    Labels are final on days up to `mature_to`; on later days their rates are not judged.
    """
    rows = DayCheck(
        "rows_a_day", "day", "count(1)", "a day without its rows teaches nothing", low=conf.gate.min_rows_a_day, knob="gate.min_rows_a_day"
    )
    rules = [
        *row_rules("impressions"),
        Rule("day_is_shown_day", "day = to_date(shown_at)", "the partition is the UTC day of shown_at", "day"),
        Rule("labels_as_of_present", "labels_as_of IS NOT NULL", "without it nobody knows what the labels could know", "labels_as_of"),
        *_label_rules(conf),
        *(_width_rule(feature) for feature in conf.template.of_type("dense")),
    ]
    return (rows, *(_rows_hold(rule) for rule in rules), *_label_rates(conf, mature_to), *_missing_shares(conf))


def _rows_hold(rule: Rule) -> DayCheck:
    return DayCheck(rule.name, rule.column, f"count_if({rule.broken})", rule.why, high=0, broken=rule.broken)


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


def _label_rates(conf: Conf, mature_to: date) -> list[DayCheck]:
    checks = []
    mature = f"day <= DATE'{mature_to.isoformat()}'"
    for name in conf.heads:
        label = f"label_{name}"
        rate = f"avg(CASE WHEN {mature} THEN {label} END)"
        known = f"CASE WHEN max(day) <= DATE'{mature_to.isoformat()}' THEN count({label}) END"
        too_often = "nearly everything engaged with is a broken join or a log of engaged impressions only; share of known labels that are 1"
        nothing = "no row of a mature day has this label: see the head's applies_to and the engagement logs; number of known labels"
        checks.append(DayCheck(f"{label}_rate", label, rate, too_often, high=conf.gate.max_label_rate, knob="gate.max_label_rate"))
        checks.append(DayCheck(f"{label}_known", label, known, nothing, low=1, severity="warning"))
    return checks


def _missing_shares(conf: Conf) -> list[DayCheck]:
    return [
        DayCheck(
            f"missing_{feature.column}",
            feature.column,
            f"avg(CASE WHEN {_missing(feature)} THEN 1 ELSE 0 END)",
            "share of the day's rows without this feature (null, and for numbers NaN or infinite)",
            high=conf.gate.max_missing_share,
            severity="warning",
            knob="gate.max_missing_share",
        )
        for feature in conf.template.features
    ]


def _missing(feature: Feature) -> str:
    """What encoding takes as missing. NaN is not null in Spark, so it is asked for by name."""
    column = f"`{feature.column}`"
    if feature.type == "continuous":
        return f"{column} IS NULL OR isnan({column}) OR abs(double({column})) = double('infinity')"
    return f"{column} IS NULL"


def _meta(check: str, column: str) -> dict[str, str]:
    """How a result finds its way back to the check that asked for it."""
    return {"check": check, "column": column}
