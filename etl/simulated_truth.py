"""Simulated served rows and candidates, with the true probability of every engagement.

Kept in <workdir>/truth, which no training path reads: only the simulator and the check of a finished night (etl/truth.py) do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.simulated_draws import Floats, entry
from etl.simulated_entities import ad_in, arrays_by_index, campaign_of, country_of, hidden_ads, hidden_users, main_device_of
from etl.simulated_levels import (
    CATEGORIES,
    COUNTRIES,
    DEVICES,
    LATENT,
    Setting,
    affinity_weights,
    device_latents,
    hour_effects,
    moment_effects,
)

#: What a row is for; each kind draws from streams of its own, and candidates of the inventory are drawn as served rows are.
KINDS = {"impressions": 0, "inventory": 1, "intercepts": 2}
#: Rows of a source that intercepts are fitted on, in each day of the first week: the same for every size of simulation.
INTERCEPT_ROWS_A_DAY = 3_000
#: Parts in 100 of a day's impressions shown in each hour, UTC.
TRAFFIC = (2, 2, 1, 1, 1, 2, 3, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 7, 7, 6, 5, 4)
HOUR_OF_PART = [hour for hour, parts in enumerate(TRAFFIC) for _ in range(parts)]
HOUR_MS = 3_600_000


def rows_of_sources(setting: Setting, rows: int) -> list[int]:
    """[S] rows of each source among `rows`: its share, the last taking what rounding leaves."""
    counts = [round(share * rows) for share in setting.world.sources.values()]
    return [*counts[:-1], rows - sum(counts[:-1])]


def shown(spark: SparkSession, setting: Setting, blocks: Sequence[tuple[str, int]], counts: Sequence[int]) -> DataFrame:
    """Grain (kind, source, day, place): row (the key of its draws), number, user, ad, explored, device, hour, shown_ms since midnight.

    blocks: (kind, day index) pairs. counts: rows of each source in a block.
    """
    rows, draws, row = sum(counts), setting.draws, F.col("row")
    starts = np.cumsum([0, *counts[:-1]])
    number_in_block = F.expr(f"id % {rows}")
    source = sum((F.when(number_in_block >= int(start), 1).otherwise(0) for start in starts[1:]), F.lit(0))
    frame = spark.range(0, len(blocks) * rows, 1, len(blocks) * setting.files_a_day).select(
        entry([KINDS[kind] for kind, _ in blocks], F.expr(f"id div {rows}")).alias("kind"),
        entry([day for _, day in blocks], F.expr(f"id div {rows}")).alias("day"),
        source.cast("long").alias("source"),
        number_in_block.alias("number_in_block"),
    )
    frame = frame.select("kind", "day", "source", (F.col("number_in_block") - entry(starts, F.col("source"))).alias("place"))
    frame = frame.withColumn("row", draws.hashed("row", F.col("kind"), F.col("source"), F.col("day"), F.col("place"))).withColumns(
        {
            "number": F.col("day") * entry(list(counts), F.col("source")) + F.col("place"),
            "user": draws.zipf("user", setting.size.users, setting.world.user_zipf, row),
            "hour": entry(HOUR_OF_PART, F.floor(draws.uniform("hour", row) * len(HOUR_OF_PART))),
            "explored": draws.uniform("explore", row) < setting.world.exploration,
        }
    )
    usual = F.when(draws.uniform("usual_device", row) < 0.8, main_device_of(draws, F.col("user")))
    return _with_ad(frame.withColumn("country", country_of(draws, F.col("user"))), setting).withColumns(
        {
            "device": F.coalesce(usual, draws.pick("device", len(DEVICES), row)),
            "shown_ms": F.col("hour") * HOUR_MS + draws.pick("moment", HOUR_MS, row),
        }
    )


def _with_ad(rows: DataFrame, setting: Setting) -> DataFrame:
    """Adds ad: the policy's best of a few candidates, or, where it explores, one drawn uniformly from those alive.

    The policy's score is a fixed function of what is observed (the ad's category, the user's country) and noise, never of the truth.
    """
    world, alive, draws, row = setting.world, setting.size.ads_alive, setting.draws, F.col("row")
    names = [f"candidate_{i}" for i in range(world.candidates)]
    merit = draws.uniforms("policy/category", 1, len(CATEGORIES)) + draws.uniforms("policy/match", len(COUNTRIES), len(CATEGORIES))
    slots = {name: _allowed(setting, draws.zipf(f"slot/{name}", alive, world.ad_zipf, row)) for name in names}
    drawn = rows.withColumns(slots | {"any": _allowed(setting, draws.pick("slot/any", alive, row))})
    drawn = drawn.withColumns({name: ad_in(setting, F.col(name), F.col("day")) for name in [*names, "any"]})
    drawn = drawn.withColumns({f"{name}_campaign": campaign_of(setting, F.col(name)) for name in names})

    def score(name: str) -> Column:
        category = entry(setting.campaign_category, F.col(f"{name}_campaign"))
        fit = entry(merit.reshape(-1), F.col("country") * len(CATEGORIES) + category)
        return fit + draws.uniform(f"policy_noise/{name}", row) * world.policy_noise

    # A first entry that never wins, because `greatest` takes no fewer than two.
    scored = [F.struct(score(name).alias("score"), F.col(name).alias("ad")) for name in names]
    best = F.greatest(F.struct(F.lit(-1.0).alias("score"), F.col("any").alias("ad")), *scored)["ad"]
    return drawn.select(*rows.columns, F.when(F.col("explored"), F.col("any")).otherwise(best).alias("ad"))


def _allowed(setting: Setting, slot: Column) -> Column:
    """The slot itself; in a nested world the nearest of those that belong to the row's source: they take turns."""
    if not setting.world.nested:
        return slot
    s = len(setting.sources)
    return F.least(slot - slot % s, F.lit(setting.size.ads_alive - s - setting.size.ads_alive % s)) + F.col("source")


def with_log_odds(rows: DataFrame, spark: SparkSession, setting: Setting, intercepts: Floats) -> DataFrame:
    """Adds x_<head> to rows as `shown` gives them: true log-odds, a child's given its parent. intercepts: [S, H]."""
    s, weights, hours = len(setting.sources), affinity_weights(setting), hour_effects(setting)
    effects = moment_effects(setting) + intercepts[:, None, None, None, :]
    _, days, countries, devices, _ = effects.shape
    latents = np.broadcast_to(device_latents(setting), (*effects.shape[:4], LATENT))
    moments = arrays_by_index(spark, "moment", "moment_hidden", np.concatenate([latents, effects], axis=4))
    source = F.col("source")
    joined = (
        rows.withColumns(
            {
                "moment": ((source * days + F.col("day")) * countries + F.col("country")) * devices + F.col("device"),
                "user_source": F.col("user") * s + source,
                "ad_source": F.col("ad") * s + source,
            }
        )
        # Every row has its partner; a left join spares Spark a filter that would compute the policy's choice twice to see it is not null.
        .join(F.broadcast(moments), on="moment", how="left")
        .join(_broadcast_if_small(hidden_users(spark, setting), setting.size.users), on="user_source", how="left")
        .join(_broadcast_if_small(hidden_ads(spark, setting), setting.size.ads_alive), on="ad_source", how="left")
        .withColumns({f"meet_{k}": (_of("user", k) + _of("moment", k)) * _of("ad", k) for k in range(LATENT)})
    )

    def log_odds(h: int) -> Column:
        parts = [_of(owner, LATENT + h) for owner in ("user", "ad", "moment")] + [entry(hours[:, h], F.col("hour"))]
        return reduce(Column.__add__, parts + [F.col(f"meet_{k}") * float(weights[k, h]) for k in range(LATENT)])

    return joined.select(*rows.columns, *(log_odds(h).alias(f"x_{head}") for h, head in enumerate(setting.heads)))


def _broadcast_if_small(frame: DataFrame, entities: int) -> DataFrame:
    """Spark cannot tell how wide an array is, so it would sort millions of rows rather than hand round a few MB."""
    return F.broadcast(frame) if entities <= 200_000 else frame


def _of(owner: str, place: int) -> Column:
    return F.get(f"{owner}_hidden", F.lit(place))


def with_probabilities(rows: DataFrame, setting: Setting) -> DataFrame:
    """x_<head> -> c_<head>, true conditional probability, and p_<head>, a child's times its parent's; null where a head does not apply."""
    conditional, total = {}, {}
    for head, spec in setting.world.heads.items():
        applies = F.col("source").isin([i for i, source in enumerate(setting.sources) if source in spec.base_rates])
        conditional[f"c_{head}"] = F.when(applies, 1.0 / (1.0 + F.exp(-F.col(f"x_{head}"))))
        total[f"p_{head}"] = F.col(f"c_{head}") * F.col(f"c_{spec.parent}") if spec.parent else F.col(f"c_{head}")
    return rows.withColumns(conditional).withColumns(total).drop(*(f"x_{head}" for head in setting.heads))


def fit_intercepts(spark: SparkSession, setting: Setting) -> Floats:
    """[S, H] what gives each source its base rates on rows served in the first week, without drift; 0 where a head does not apply."""
    s, h = len(setting.sources), len(setting.heads)
    blocks = [("intercepts", day) for day in range(7)]
    rows = with_log_odds(shown(spark, setting, blocks, [INTERCEPT_ROWS_A_DAY] * s), spark, setting.still, np.zeros((s, h)))
    # A fixed small number of rows whatever the size of the simulation, sorted so that sums do not depend on the order of tasks.
    sample = rows.select("source", "row", *(f"x_{head}" for head in setting.heads)).toArrow().sort_by("row")
    sources, intercepts = sample["source"].to_numpy(), np.zeros((s, h))
    for i, source in enumerate(setting.sources):
        certain: dict[str, Floats] = {}
        for j, (head, spec) in enumerate(setting.world.heads.items()):
            if source not in spec.base_rates:
                continue
            x = sample[f"x_{head}"].to_numpy()[sources == i]
            weight = certain[spec.parent] if spec.parent else np.ones_like(x)
            intercepts[i, j] = intercept_for(spec.base_rates[source], x, weight)
            certain[head] = weight / (1 + np.exp(-(x + intercepts[i, j])))
    return intercepts


def intercept_for(rate: float, log_odds: Floats, weight: Floats) -> float:
    """The number that, added to `log_odds` [N], makes the weighted mean probability equal `rate`: by bisection, to 1e-9."""
    low, high = -30.0, 30.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        mean = float(np.average(1 / (1 + np.exp(-(log_odds + middle))), weights=weight))
        low, high = (middle, high) if mean < rate else (low, middle)
    return (low + high) / 2
