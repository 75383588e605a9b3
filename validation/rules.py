"""Row rules, written once: what splits the quarantine from the kept rows, and what the gate expects of `examples`.

A rule's name is the reason an operator reads in `quarantine.reasons`. Conditions are Spark SQL over the canonical columns of
etl/schemas.py; one that is null counts as broken. Each rule asks one thing: a missing clock breaks `shown_at_present` and not also
`received_after_shown`, so that the reasons of a row say what to mend. Numbers of features are no rules: NaN and infinities become
"missing" in encoding.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf.source import Kind


@dataclass(frozen=True)
class Rule:
    """`holds` is a Spark SQL boolean: true where the row is good, false or null where it is broken."""

    name: str
    holds: str
    why: str
    column: str

    @property
    def broken(self) -> str:
        """The SQL boolean that is true exactly where the rule does not hold; never null."""
        return f"NOT coalesce({self.holds}, false)"


def present(column: str, why: str) -> Rule:
    return Rule(f"{column}_present", f"length(trim({column})) > 0", why, column)


def _clock(column: str, why: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{column}_present", f"{column} IS NOT NULL", why, column),
        Rule(
            f"{column}_plausible",
            f"{column} IS NULL OR year({column}) BETWEEN 2000 AND 2099",
            "a year outside 2000 to 2099 is an epoch read in the wrong unit, or a clock that was never set",
            column,
        ),
    )


def _after(later: str, earlier: str, name: str, why: str) -> Rule:
    return Rule(name, f"{later} IS NULL OR {earlier} IS NULL OR {later} >= {earlier}", why, later)


def _not_negative(column: str, name: str, why: str) -> Rule:
    return Rule(name, f"{column} IS NULL OR {column} >= 0", why, column)


SOURCE = present("source", "labels, towers and reports slice by source")
TOWER = present("tower", "the model must know which tower reads the row; see `tower` in the configuration")
AD = present("ad_id", "without an ad there is nothing to predict")
BID = _not_negative("bid_micros", "bid_not_negative", "a negative bid turns utility upside down")
RECEIVED = _clock("received_at", "what was known when cannot be told without the time of receipt")

RULES: dict[Kind, tuple[Rule, ...]] = {
    "impressions": (
        present("impression_id", "labels join on it, and duplicates are removed by it"),
        SOURCE,
        TOWER,
        *_clock("shown_at", "windows and the day of the row start at it"),
        *RECEIVED,
        _after("received_at", "shown_at", "received_after_shown", "a log cannot receive an impression before it was shown"),
        AD,
        BID,
        _not_negative("position", "position_not_negative", "slots count from 0"),
    ),
    "engagements": (
        Rule(
            "engagement_key_present",
            "coalesce(length(trim(impression_id)) > 0, false) OR (length(trim(user_id)) > 0 AND length(trim(ad_id)) > 0)",
            "an engagement is credited by impression_id, or by user and ad",
            "impression_id",
        ),
        SOURCE,
        present("action", "heads are told apart by it"),
        *_clock("acted_at", "the window of a label is measured to it"),
        *RECEIVED,
        _after("received_at", "acted_at", "received_after_acted", "a log cannot receive an engagement before it happened"),
        _not_negative("dwell_ms", "dwell_not_negative", "time spent counts from 0"),
    ),
    "users": (
        present("user_id", "impressions join on it"),
        Rule("valid_from_present", "valid_from IS NOT NULL", "a state without its start could leak the future", "valid_from"),
        *RECEIVED,
    ),
    "ads": (
        AD,
        Rule("valid_from_present", "valid_from IS NOT NULL", "a state without its start could leak the future", "valid_from"),
        *RECEIVED,
    ),
    "inventory": (
        present("inventory_id", "each row is scored exactly once, by it"),
        SOURCE,
        TOWER,
        *RECEIVED,
        AD,
        BID,
        Rule(
            "expected_impressions_finite",
            # NaN is larger than any number in Spark, so the upper bound refuses it too.
            "expected_impressions IS NULL OR (expected_impressions >= 0 AND expected_impressions < double('infinity'))",
            "expected engagements are summed over it",
            "expected_impressions",
        ),
    ),
}


def row_rules(kind: Kind) -> tuple[Rule, ...]:
    """Every rule that a row of this kind must hold, in the order in which reasons are listed."""
    return RULES[kind]
