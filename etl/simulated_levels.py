"""The driver's part of a simulated world: what countries, categories, campaigns, days and the like add to log-odds and latent vectors.

Shapes: S sources, H heads, D days, C countries, A age bands, V devices, K latent dimensions, P campaigns. All of it is small.
All heads share effects, more or less (`correlation`); a source but the first turns some of them round (`conflict`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np

from conf.schema import Simulation
from conf.world import Drift, World
from etl.simulated_draws import Draws, Floats, Ints

COUNTRIES = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "CA", "MX", "IT", "ES", "AU")
AGE_BANDS = ("13-17", "18-24", "25-34", "35-44", "45-54", "55-64", "65+")
DEVICES = ("phone", "tablet", "desktop", "tv")
CATEGORIES = (
    "apparel", "auto", "baby", "beauty", "books", "electronics", "energy", "finance", "food", "furniture", "games", "garden",
    "grocery", "health", "home", "jewelry", "movies", "music", "office", "pets", "sports", "telecom", "toys", "travel",
)  # fmt: skip
FORMATS = ("image", "carousel", "collection", "clip")
LATENT = 8


@dataclass(frozen=True)
class Setting:
    """One simulated world and its size. Days are indexes, 0 is `size.first_day`; sources and heads are indexes of the world's."""

    world: World
    size: Simulation

    @property
    def draws(self) -> Draws:
        return Draws(self.world.seeds[self.size.replicate])

    @property
    def sources(self) -> list[str]:
        return list(self.world.sources)

    @property
    def heads(self) -> list[str]:
        return list(self.world.heads)

    def date(self, day: int) -> date:
        return self.size.first_day + timedelta(days=day)

    @property
    def files_a_day(self) -> int:
        """Of a log, and tasks that make a day: as configured, and more where one would have over a million impressions."""
        return max(self.size.files_a_day, -(-self.size.impressions_a_day // 1_000_000))

    @property
    def inventory_days(self) -> list[int]:
        return [number - 1 for number in self.size.inventory_days]

    @property
    def last_day(self) -> int:
        """The last day that needs living ads; at least a week, over which intercepts are fitted."""
        return max(6, self.size.days, *self.inventory_days)

    @property
    def still(self) -> Setting:
        """The same world without any drift: where base rates are counted."""
        none = {"walk": 0, "segment_walk": 0, "trend": 0, "holiday": 0, "holidays": (), "level": 0, "step": 0, "step_day": 1}
        return replace(self, world=self.world.model_copy(update={"drift": Drift.model_validate(none)}))

    @cached_property
    def campaign_category(self) -> Ints:
        """[P] index of the campaign's category; the first categories have more campaigns."""
        u = self.draws.uniforms("campaign/category", self.size.campaigns)
        return np.floor(len(CATEGORIES) * u**1.5).astype(np.int64)

    @cached_property
    def campaign_advertiser(self) -> Ints:
        """[P] number of the campaign's advertiser."""
        return np.floor(self.world.advertisers * self.draws.uniforms("campaign/advertiser", self.size.campaigns)).astype(np.int64)


def agreed_effects(setting: Setting, field: str, levels: int) -> Floats:
    """[levels, H] standard normal, correlated between heads, the same in every source."""
    alike = np.array([head.correlation for head in setting.world.heads.values()])
    shared = setting.draws.normals(f"effect/{field}", levels, 1)
    return alike * shared + np.sqrt(1 - alike**2) * setting.draws.normals(f"effect/{field}/own", levels, len(alike))


def signs(setting: Setting, field: str, levels: int) -> Floats:
    """[S, levels] 1, or -1 where a source has the opposite of what the first has."""
    flips = setting.draws.uniforms(f"conflict/{field}", len(setting.sources), levels) < setting.world.conflict
    flips[0] = False
    return np.where(flips, -1.0, 1.0)


def field_effects(setting: Setting, field: str, levels: int) -> Floats:
    """[S, levels, H] what a level of a field adds to log-odds."""
    return signs(setting, field, levels)[:, :, None] * agreed_effects(setting, field, levels) * setting.world.spread.field


def affinity_weights(setting: Setting) -> Floats:
    """[K, H] weight of each latent dimension (its sign in a source is signs("dimension")), scaled to the affinity's deviation."""
    weights = agreed_effects(setting, "dimension", LATENT)
    return weights / np.sqrt((weights**2).sum(axis=0)) * setting.world.spread.affinity


def user_kind_effects(setting: Setting) -> tuple[Floats, Floats]:
    """[S, C, A, H] effects and [C, A, K] latent parts of a user's country and age band."""
    c, a, draws = len(COUNTRIES), len(AGE_BANDS), setting.draws
    effects = field_effects(setting, "country", c)[:, :, None, :] + field_effects(setting, "age", a)[:, None, :, :]
    latents = draws.normals("latent/country", c, LATENT)[:, None, :] + draws.normals("latent/age", a, LATENT)[None, :, :]
    return effects, latents * (1 / 6) ** 0.5


def campaign_effects(setting: Setting) -> tuple[Floats, Floats]:
    """[S, P, H] effects and [P, K] latent parts of a campaign's category and advertiser; it adds a latent part of its own."""
    category, advertiser, draws = setting.campaign_category, setting.campaign_advertiser, setting.draws
    n, m = len(CATEGORIES), setting.world.advertisers
    effects = field_effects(setting, "category", n)[:, category] + field_effects(setting, "advertiser", m)[:, advertiser]
    latents = draws.normals("latent/category", n, LATENT)[category] + draws.normals("latent/advertiser", m, LATENT)[advertiser]
    return effects, (latents + draws.normals("latent/campaign", setting.size.campaigns, LATENT)) * 0.2**0.5


def device_latents(setting: Setting) -> Floats:
    """[V, K]: with own noise, country and age band, a user's vector has variance 1."""
    return setting.draws.normals("latent/device", len(DEVICES), LATENT) * (1 / 6) ** 0.5


def moment_effects(setting: Setting) -> Floats:
    """[S, D, C, V, H] what a day adds for a country and device: device, weekday and every drift."""
    days, spread = setting.last_day + 1, setting.world.spread
    weekday = (np.arange(days) + setting.size.first_day.weekday()) % 7
    effects = _drifts(setting, days) + field_effects(setting, "device", len(DEVICES))[:, None, None, :, :]
    return effects + (agreed_effects(setting, "weekday", 7) * spread.weekday)[weekday][None, :, None, None, :]


def hour_effects(setting: Setting) -> Floats:
    """[24, H], hours in UTC."""
    return agreed_effects(setting, "hour", 24) * setting.world.spread.hour


def _drifts(setting: Setting, days: int) -> Floats:
    """[S, D, C, V, H]: random walks, trend, holidays and lasting changes; 0 on the first day but for a step_day or holiday on it."""
    drift, draws = setting.world.drift, setting.draws
    s, h, segments = len(setting.sources), len(setting.heads), {"country": len(COUNTRIES), "device": len(DEVICES)}
    day = np.arange(days)[None, :, None]
    changed = day + 1 >= drift.step_day
    direction = np.where(draws.uniforms("drift/trend", s, h) < 0.5, -1.0, 1.0)[:, None, :]
    common = _walk(draws, "drift/walk", s, h, days) * drift.walk + direction * day * drift.trend
    common = common + np.isin(day + 1, drift.holidays) * draws.normals("drift/holiday", s, h)[:, None, :] * drift.holiday
    common = common + changed * draws.normals("drift/level", s, h)[:, None, :] * drift.level
    parts = []
    for name, levels in segments.items():
        walks = [_walk(draws, f"drift/walk/{name}/{level}", s, h, days) * drift.segment_walk for level in range(levels)]
        steps = draws.normals(f"drift/step/{name}", levels, s, h)[:, :, None, :] * changed * drift.step
        parts.append(np.moveaxis(np.stack(walks) + steps, 0, 2))
    by_country, by_device = parts
    return common[:, :, None, None, :] + by_country[:, :, :, None, :] + by_device[:, :, None, :, :]


def _walk(draws: Draws, stream: str, s: int, h: int, days: int) -> Floats:
    """[S, D, H] sums of standard normal daily steps, from 0 on the first day."""
    steps = np.moveaxis(draws.normals(stream, days, s, h), 0, 1)
    steps[:, 0] = 0
    return np.cumsum(steps, axis=1)
