"""Prior-day engagement rates as features: which keys are counted, over how many days, and what a feature's column name asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import Field

from conf.strict import Name, Strict

DEFAULT_KEYS = {name: f"{name}_id" for name in ("user", "ad", "campaign", "advertiser")}


class History(Strict):
    """What `family: history` features count. Off while the template names none."""

    days: int = Field(7, ge=1, le=400, description="how many days before the impression's are summed up, days")
    prior_impressions: float = Field(
        100, gt=0, description="smoothing: a rate is (engaged + this x the overall rate) / (impressions + this), impressions"
    )
    keys: dict[Name, str] = Field(
        default_factory=lambda: dict(DEFAULT_KEYS),
        description="what is counted by: name -> expression over the columns of examples that inventory has too; null keys are not counted",
    )


class HistoryColumn(NamedTuple):
    """`user_click_rate` is (user, rate, click); `ad_impressions` is (ad, impressions, ""); `ad_days_since` is (ad, days_since, "")."""

    key: str
    what: str
    head: str


def history_column(name: str, keys: Iterable[str], heads: Iterable[str]) -> HistoryColumn:
    """What a history feature's name asks for; ValueError, naming the possible forms, if it asks for nothing known."""
    keys, heads = list(keys), list(heads)
    key, head = "|".join(map(re.escape, keys)), "|".join(map(re.escape, heads))
    match = re.fullmatch(rf"({key})_(?:(impressions|days_since)|({head})_(rate|count))", name) if keys and heads else None
    if not match:
        raise ValueError(
            f"history feature {name} is none of <key>_impressions, <key>_days_since, <key>_<head>_rate, <key>_<head>_count; "
            f"keys: {', '.join(keys)}; heads: {', '.join(heads)}"
        )
    return HistoryColumn(match[1], match[2] or match[4], match[3] or "")
