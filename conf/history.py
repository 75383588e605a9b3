"""Prior-day engagement rates as features: which keys are counted, over how many days, and what a feature's column name asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from conf.strict import Name, Strict

DEFAULT_KEYS = {name: f"{name}_id" for name in ("user", "ad", "campaign", "advertiser")}


class History(Strict):
    """What `family: history` features count. Off while the template names none."""

    days: int = Field(7, ge=1, le=400, description="how many days before the impression's are summed up, days")
    days_of: dict[Name, Annotated[int, Field(ge=1, le=400)]] = Field(
        default_factory=dict,
        description="name of a key -> its own number of days, in place of `days`: habits last, levels drift; one expression may be two keys",
    )
    prior_impressions: float = Field(
        100, gt=0, description="smoothing: a rate is (engaged + this x the overall rate) / (impressions + this), impressions"
    )
    keys: dict[Name, str] = Field(
        default_factory=lambda: dict(DEFAULT_KEYS),
        description="what is counted by: name -> expression over the columns of examples that inventory has too; null keys are not counted",
    )

    @model_validator(mode="after")
    def _days_are_of_keys(self) -> History:
        if strangers := sorted(set(self.days_of) - set(self.keys)):
            raise ValueError(f"history.days_of names {', '.join(strangers)}, which is no key; keys: {', '.join(self.keys)}")
        return self

    def days_back(self, key: str) -> int:
        """How many days before an impression's own are counted by this key."""
        return self.days_of.get(key, self.days)


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
