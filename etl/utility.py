"""Utility, by which a day's rows are ranked: one formula, as SQL over columns of `scores`, wherever it is computed or checked.

The sum over heads of utility_weight x probability, and x bid where a head has `utility_times_bid`: the bid in the account's currency,
0 where the row has none.
"""

from __future__ import annotations

from collections.abc import Mapping

from conf.schema import Head

UTILITY = "utility"


def price(head: Head) -> str:
    """What the head's probability is multiplied by beside its weight: SQL over `bid_micros`."""
    return "coalesce(bid_micros, 0L) / 1e6D" if head.utility_times_bid else "1D"


def utility(heads: Mapping[str, Head], stage: str = "") -> str:
    """SQL over `p_<head><stage>` (`_raw` before calibration) and `bid_micros`."""
    return " + ".join(f"p_{name}{stage} * {head.utility_weight!r}D * {price(head)}" for name, head in heads.items())


def asks_for_bids(heads: Mapping[str, Head]) -> bool:
    return any(head.utility_times_bid and head.utility_weight for head in heads.values())
