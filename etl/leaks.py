"""What a column must not know: the engagement itself. Pure rules on its description, no Spark.

A column that alone orders a head's rows too well, or that has a value only where the engagement happened, was probably filled after it. Both
are suspicions for a person to judge: a tab of an app may tell clicks apart as well, and be known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from etl.description import Described
from etl.proposal import share_of_rows

MAX_AUC = 0.85
# A head's rate where the column is filled, in times of its rate where it is missing.
MAX_FILLED_RATIO = 5.0
MIN_POSITIVES = 20
WHAT_TO_DO = "if it is known only once the ad is served make it family serving, if later remove it; else check the clock it is received by"


def suspicions(column: Described) -> list[str]:
    """Each head that the column seems to know, in words; none of a serving column, which is not read when scoring."""
    return [] if column.family == "serving" else [f"{what}; {WHAT_TO_DO}" for what in _found(column)]


def _found(column: Described) -> Iterator[str]:
    for head, alone in column.heads.items():
        if alone.auc is not None and alone.auc > MAX_AUC:
            yield f"alone it orders {head} with AUC {alone.auc:.3f}, and more than {MAX_AUC} is suspicious"
        filled, missing = alone.filled, alone.missing
        expected = filled.rate / MAX_FILLED_RATIO * missing.rows  # positives among the missing, if they were just not suspicious
        if filled.positives >= MIN_POSITIVES and expected >= MIN_POSITIVES / MAX_FILLED_RATIO and missing.positives < expected:
            yield (
                f"{head} happened in {share_of_rows(filled.rate)} of the {filled.rows:,} rows that have a value and in "
                f"{share_of_rows(missing.rate)} of the {missing.rows:,} that have none, as if it were filled after the engagement"
            )


def auc(levels: Iterable[tuple[float, int, int]]) -> float | None:
    """Share of (positive, negative) pairs in which the positive stands higher, ties counting half; levels are (score, rows, positives).

    None with fewer than MIN_POSITIVES positives or negatives.
    """
    below = pairs = positives = 0.0
    for _, rows, engaged in sorted(levels):
        pairs += engaged * (below + (rows - engaged) / 2)
        below, positives = below + rows - engaged, positives + engaged
    return pairs / (positives * below) if min(positives, below) >= MIN_POSITIVES else None
