"""How well a column, as the only predictor, tells a head's positives: learned on one half of the rows, measured on the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from etl.description import Alone, Labelled
from etl.leaks import auc

# A value's rate of engagements is drawn to the overall one as if it had been seen this many times more.
PRIOR_ROWS = 20


def univariate(counted: DataFrame, base: Mapping[str, float]) -> dict[str, dict[str, Alone]]:
    """Column -> head -> how well the column alone tells that head's positives. `base`: head -> share of positives over all rows.

    `counted`: grain (column, value), null among the values, with the sums of etl/profile.py: seen and engaged, learned and measured, a head.

    Each value is scored by its rate in one half of the rows, to a tenth of a log-odds, and the scores are measured on the other half: a value
    seen once has learned next to nothing, so that an id does not look telling just because it was memorised.
    """
    if not base:
        return {}
    cells = F.array(
        *(
            F.struct(
                F.lit(head).alias("head"),
                F.lit(rate).alias("base"),
                *(
                    F.col(f"{what}_{half}_{head}").alias(f"{what}_{half}")
                    for what in ("seen", "engaged")
                    for half in ("learned", "measured")
                ),
            )
            for head, rate in base.items()
        )
    )
    rate = (F.col("engaged_learned") + PRIOR_ROWS * F.col("base")) / (F.col("seen_learned") + PRIOR_ROWS)
    sums = [F.sum(f"{what}_{half}").alias(f"{what}_{half}") for what in ("seen", "engaged") for half in ("learned", "measured")]
    levels = (
        counted.select("column", F.col("value").isNotNull().alias("filled"), F.inline(cells))
        .withColumn("level", F.round(10 * F.log(rate / (1 - rate))))
        .groupBy("column", "head", "filled", "level")
        .agg(*sums)
    )
    by_cell: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in levels.collect():
        by_cell[row["column"], row["head"]].append(row)
    found: dict[str, dict[str, Alone]] = defaultdict(dict)
    for (column, head), rows in sorted(by_cell.items()):
        found[column][head] = Alone(_auc(rows), _labelled(rows, True), _labelled(rows, False))
    return found


def _auc(rows: Sequence[Row]) -> float | None:
    levels: dict[float, tuple[int, int]] = {}
    for row in rows:  # what is missing may stand as high as a value
        seen, engaged = levels.get(row["level"], (0, 0))
        levels[row["level"]] = seen + row["seen_measured"], engaged + row["engaged_measured"]
    return auc((level, *counts) for level, counts in levels.items())


def _labelled(rows: Sequence[Row], filled: bool) -> Labelled:
    inside = [row for row in rows if row["filled"] == filled]
    return Labelled(
        sum(row["seen_learned"] + row["seen_measured"] for row in inside),
        sum(row["engaged_learned"] + row["engaged_measured"] for row in inside),
    )
