"""What must hold of each table of a night, beside what is usual (baseline.py) and what shifts (drift.py).

All numbers of a table are sums that one pass over its rows counts by day and source (counting.py); here they become checks, which Great
Expectations judges on the driver. On 240,000 rows of 35 columns and 2 cores the pass takes 1.1 s and its judgement .3 s, while one query a
rule takes .17 s each, and grows with rows times rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from conf.schema import Conf
from conf.template import Feature
from etl.encoding import TOKEN
from etl.schemas import Table
from validation.baseline import Labels
from validation.checks import Check
from validation.table_rules import rules_of

# Where a key may come again on another day: duplicates across days are removed on read.
KEY_WITHIN_DAY = ("engagements", "users", "ads")

Sums = Mapping[str, Mapping[str, Mapping[str, float]]]  # day (ISO) -> source -> name -> sum


def sums_of(table: Table, conf: Conf) -> dict[str, str]:
    """Name -> Spark SQL aggregate, each a sum, so that sources add up to the day."""
    sums = {"rows": "count(1)"} | {f"broken_{rule.name}": f"count_if({rule.broken})" for rule in rules_of(table, conf)}
    if table.name == "examples":
        for head in conf.heads:
            sums |= {f"known_{head}": f"count(label_{head})", f"positive_{head}": f"count_if(label_{head} = 1)"}
        sums |= {f"missing_{feature.column}": f"count_if({_missing(feature)})" for feature in conf.template.features}
    return sums


def _missing(feature: Feature) -> str:
    """What encoding takes as missing. NaN is not null in Spark, so it is asked for by name."""
    column = f"`{feature.column}`"
    if feature.type == "continuous":
        return f"{column} IS NULL OR isnan({column}) OR abs(double({column})) = double('infinity')"
    return f"{value_of(feature)} IS NULL"


def value_of(feature: Feature) -> str:
    """SQL of the value by which a row is counted: of a list the first that is there, of a text its first token."""
    column = f"`{feature.column}`"
    if feature.type == "text":
        return f"nullif(regexp_extract(lower({column}), r'{TOKEN}', 0), '')"
    places = ", ".join(f"get({column}, {place})" for place in range(feature.length))
    return f"coalesce({places})" if places else column


def rows_by_source(sums: Sums) -> dict[str, dict[str, int]]:
    return {day: {source: int(of["rows"]) for source, of in sources.items()} for day, sources in sums.items()}


def labels_by_source(sums: Sums, conf: Conf, mature_to: date) -> Labels:
    """Positives and known labels of each head, source and day whose labels are final."""
    return {
        day: {
            source: {head: [int(of[f"positive_{head}"]), int(of[f"known_{head}"])] for head in conf.heads} for source, of in sources.items()
        }
        for day, sources in sums.items()
        if day <= mature_to.isoformat()
    }


def row_checks(table: Table, conf: Conf, sums: Sums) -> list[Check]:
    """Every row rule: no row of a day breaks it."""
    return [
        Check(rule.name, rule.column, _by_day(sums, f"broken_{rule.name}"), rule.why, high=0, broken=rule.broken)
        for rule in rules_of(table, conf)
    ]


def example_checks(conf: Conf, sums: Sums, labels: Labels, log_began: str) -> list[Check]:
    """Rows a day first (an empty day satisfies all the others), then label rates and missing shares within absolute bounds.

    On the day on which the log began (ISO) no prior-day rate can be known, so that history features are not judged there.
    """
    gate, rows = conf.gate, _by_day(sums, "rows")
    least = f"gate.min_rows_a_day is {gate.min_rows_a_day}"
    found = [Check("rows_a_day", "day", rows, "a day without its rows teaches nothing", low=gate.min_rows_a_day, knob=least)]
    for head in conf.heads:
        found += _head_checks(head, labels, conf)
    most = f"gate.max_missing_share is {gate.max_missing_share:g}"
    why = "share of the day's rows without this feature (null, and for numbers NaN or infinite)"
    for feature in conf.template.features:
        missing = _by_day(sums, f"missing_{feature.column}")
        shares = {day: missing[day] / count for day, count in rows.items() if count and (feature.family != "history" or day > log_began)}
        name, high = f"missing_{feature.column}", gate.max_missing_share
        found.append(Check(name, feature.column, shares, why, high=high, severity="warning", knob=most))
    return found


def _head_checks(head: str, labels: Labels, conf: Conf) -> list[Check]:
    """Of all sources together, and the upper bound of each source with enough known labels to tell."""
    gate, label = conf.gate, f"label_{head}"
    sources = sorted({source for of in labels.values() for source in of})
    known = {day: sum(of[source][head][1] for source in of) for day, of in labels.items()}
    rates = {day: sum(of[source][head][0] for source in of) / known[day] for day, of in labels.items() if known[day]}
    too_often = "nearly everything engaged with is a broken join or a log of engaged impressions only; share of known labels that are 1"
    nothing = "no row of a mature day has this label: see the head's applies_to and the engagement logs; number of known labels"
    high, knob = gate.max_label_rate, f"gate.max_label_rate is {gate.max_label_rate:g}"
    found = [
        Check(f"{label}_rate", label, rates, too_often, high=high, knob=knob),
        Check(f"{label}_known", label, {day: known[day] for day, of in labels.items() if of}, nothing, low=1, severity="warning"),
    ]
    for source in sources if len(sources) > 1 else ():
        cells = {day: of[source][head] for day, of in labels.items() if source in of}
        of_source = {day: positives / count for day, (positives, count) in cells.items() if count >= gate.min_expected_rows}
        found.append(Check(f"{label}_rate", f"{label} in {source}", of_source, too_often, high=high, knob=knob))
    return found


def unknown_check(column: str, unknown: int, rows: int, day: str, conf: Conf) -> Check:
    """Referential integrity: of the `rows` of the new days (up to `day`) that have this id, those whose id no log brought."""
    high = conf.gate.max_unknown_share
    why = {
        "user_id": "a row whose user no log of users knows has no user features",
        "ad_id": "a row whose ad no log of ads knows has no ad features",
        "impression_id": "an engagement with an impression that no log brought makes no label",
    }.get(column, "a reference to nothing")
    numbers = {day: unknown / rows} if rows else {}
    told = {day: f"{unknown:,} of {rows:,} rows of the new days up to then, {unknown / rows:.2%}"} if rows else {}
    knob, needed = f"gate.max_unknown_share is {high:g}", f"at most {high:.2%} of the rows"
    return Check("known_id", column, numbers, why, high=high, severity="warning", knob=knob, needed=needed, told=told)


def _by_day(sums: Sums, name: str) -> dict[str, float]:
    """A sum over all sources; 0 on a day without rows."""
    return {day: sum(of[name] for of in sources.values()) for day, sources in sums.items()}
