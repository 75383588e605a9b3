"""Every knob of a simulated world, with its unit. The files in conf/worlds/ give all of them: a world is frozen with its seeds.

The size of a simulation (days, rows, users) is not here but in `simulation` of a configuration: the same world can be small or large.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from conf.load import ConfError, read_yaml
from conf.strict import Strict

WORLDS = Path(__file__).parent / "worlds"
SourceName = Literal["standard", "shopping", "video"]  # each has a log format of its own, etl/simulated_logs.py
HeadName = Literal["click", "good_click", "scroll_up", "save", "hide"]


class WorldHead(Strict):
    """How often one engagement truly happens, and how alike its effects are to those of the first head."""

    base_rates: dict[SourceName, float] = Field(
        description="source -> mean rate on served rows (a child's: where its parent happened); where a head does not apply, no source"
    )
    correlation: float = Field(ge=-1, le=1, description="of this head's effects with the first head's")
    parent: HeadName | None = Field(None, description="this engagement happens only where the parent does")


class Spread(Strict):
    """Standard deviations of the parts of a logit."""

    field: float = Field(ge=0, description="each of country, device, category, format, age band and advertiser")
    affinity: float = Field(ge=0, description="product of the user's and the ad's latent vectors")
    user: float = Field(ge=0, description="what is a user's own")
    ad: float = Field(ge=0, description="what is an ad's own")
    hour: float = Field(ge=0, description="hour of the day, UTC")
    weekday: float = Field(ge=0, description="day of the week, UTC")


class Drift(Strict):
    """How logits change with time. All are 0 on the first day, from which the base rates are counted."""

    walk: float = Field(ge=0, description="daily step of a random walk by head and source, sd")
    segment_walk: float = Field(ge=0, description="daily step of a random walk by country and one by device, by head and source, sd")
    trend: float = Field(ge=0, description="change a day, up or down by head and source")
    holiday: float = Field(ge=0, description="change on a holiday by head and source, sd")
    holidays: tuple[int, ...] = Field(description="day numbers, counted from 1")
    level: float = Field(ge=0, description="lasting change from `step_day` on by head and source, sd")
    step: float = Field(ge=0, description="lasting change from `step_day` on by country and one by device, by head and source, sd")
    step_day: int = Field(ge=1, description="day number, counted from 1")


class Delivery(Strict):
    """How logs reach us. Shares are of rows."""

    late_impressions: float = Field(ge=0, le=1, description="received up to 12 hours after being shown; the others within minutes")
    late_engagements: float = Field(ge=0, le=1, description="received up to `lateness_hours` after the act; the others within minutes")
    too_late_engagements: float = Field(
        ge=0, le=1, description="received up to a day after `lateness_hours`: labels of mature days miss them"
    )
    lateness_hours: float = Field(gt=0, description="hours")
    window_hours: float = Field(gt=0, description="every engagement happens within this of being shown, hours")
    unknown_users: float = Field(ge=0, le=1, description="impressions logged without their user")
    missing: float = Field(ge=0, le=1, description="of each optional value")


class World(Strict):
    seeds: tuple[int, ...] = Field(min_length=1, description="each is a replicate of this world; `simulation.replicate` chooses")
    sources: dict[SourceName, float] = Field(
        min_length=1, description="source -> share of impressions; the first is the one that others conflict with"
    )
    heads: dict[HeadName, WorldHead] = Field(min_length=1)
    conflict: float = Field(
        ge=0, le=1, description="probability that a field level or latent dimension has the opposite sign in a source but the first"
    )
    nested: bool = Field(description="an ad belongs to one source; otherwise it is shown in any")
    spread: Spread
    drift: Drift
    delivery: Delivery
    user_zipf: float = Field(gt=0, lt=1, description="exponent of the users' activity by rank")
    ad_zipf: float = Field(gt=0, lt=1, description="exponent of the ads' share of candidates by rank")
    advertisers: int = Field(ge=1)
    ad_life_days: int = Field(ge=1, description="days that an ad is alive; a new one takes its place")
    candidates: int = Field(ge=1, description="ads that the policy chooses one of")
    policy_noise: float = Field(ge=0, description="width of the noise in the policy's score, whose three other parts have width 1 each")
    exploration: float = Field(ge=0, le=1, description="share of rows whose ad is drawn uniformly")

    @model_validator(mode="after")
    def _shares_and_heads_agree(self) -> World:
        if abs(sum(self.sources.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of `sources` sum to {sum(self.sources.values())}; make it 1")
        seen: set[str] = set()
        for name, head in self.heads.items():
            if head.parent is not None and (head.parent not in seen or self.heads[head.parent].parent is not None):
                raise ValueError(f"head {name} has parent {head.parent}; a parent is a top head and stands before its children")
            if unknown := sorted(set(head.base_rates) - set(self.sources)):
                raise ValueError(f"head {name} has a base rate for {', '.join(unknown)}, which is no source of this world")
            if wrong := [f"{source} {rate}" for source, rate in head.base_rates.items() if not 0 < rate < 1]:
                raise ValueError(f"head {name} has a base rate outside (0, 1): {', '.join(wrong)}")
            seen.add(name)
        return self


def load_world(name: str) -> World:
    """The world conf/worlds/<name>.yaml; with `extends: other`, what it says replaces the other's keys one by one."""
    path = WORLDS / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in WORLDS.glob("*.yaml")))
        raise ConfError(f"simulation.world is {name}, and {path} does not exist; known worlds: {known}")
    text = read_yaml(path)
    if "extends" in text:
        text = read_yaml(WORLDS / f"{text.pop('extends')}.yaml") | text
    try:
        return World.model_validate(text)
    except ValidationError as error:
        raise ConfError(f"{path}: {error}") from error
