"""Simulated users and ads: who they are (observed), their latent vectors (hidden), and the dated files a platform exports of them.

Users and ads are whole numbers, and what is their own is a column expression of the number: no table has to be kept.
A user's number is its rank by activity. `slots` are ranks of ads by popularity; a slot's ad is replaced every `ad_life_days`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.simulated_draws import Draws, Floats, entry, zipf_share
from etl.simulated_levels import (
    AGE_BANDS,
    CATEGORIES,
    COUNTRIES,
    DEVICES,
    FORMATS,
    LATENT,
    Setting,
    campaign_effects,
    field_effects,
    signs,
    user_kind_effects,
)

VECTOR = 16  # width of the ad vector that is observed
SIGNALS = 2  # of a user's latent dimensions, seen through noise


def country_of(draws: Draws, user: Column) -> Column:
    return draws.zipf("country", len(COUNTRIES), 0.9, user)


def age_of(draws: Draws, user: Column) -> Column:
    return draws.pick("age", len(AGE_BANDS), user)


def main_device_of(draws: Draws, user: Column) -> Column:
    return draws.zipf("main_device", len(DEVICES), 0.9, user)


def ad_in(setting: Setting, slot: Column, day: Column) -> Column:
    """The ad that fills a slot on a day: slots change hands on days of their own."""
    life = setting.world.ad_life_days
    return slot + F.floor((day + setting.draws.pick("turn", life, slot)) / life) * setting.size.ads_alive


def born_on(setting: Setting, ad: Column) -> Column:
    """Day index of an ad's first day; below 0 for ads that were alive when the simulation began."""
    life, alive = setting.world.ad_life_days, setting.size.ads_alive
    return F.floor(ad / alive) * life - setting.draws.pick("turn", life, ad % alive)


def format_of(draws: Draws, ad: Column) -> Column:
    return draws.pick("format", len(FORMATS), ad)


def campaign_of(setting: Setting, ad: Column) -> Column:
    return setting.draws.zipf("campaign", setting.size.campaigns, 0.5, ad)


def user_key(user: Column) -> Column:
    return F.concat(F.lit("u"), F.lpad(user.cast("string"), 6, "0"))


def ad_key(ad: Column) -> Column:
    return F.concat(F.lit("a"), F.lpad(ad.cast("string"), 6, "0"))


def or_missing(setting: Setting, what: str, value: Column, *key: Column) -> Column:
    return F.when(setting.draws.uniform(f"missing/{what}", *key) >= setting.world.delivery.missing, value)


def small_table(spark: SparkSession, key: str, columns: Mapping[str, Floats]) -> DataFrame:
    """Arrays of one shape -> a frame whose `key` is the flat index."""
    flat = {name: np.ascontiguousarray(values).reshape(-1) for name, values in columns.items()}
    return spark.createDataFrame(pa.table({key: np.arange(len(next(iter(flat.values())))), **flat}))


def own_effects(setting: Setting, what: str, entity: Column) -> list[Column]:
    """[H] standard normal, correlated between heads: what is a user's or an ad's own."""
    shared = F.col(f"{what}_shared")
    alike = [(head, spec.correlation) for head, spec in setting.world.heads.items()]
    return [shared * rho + setting.draws.normal(f"effect/{what}/{head}", entity) * math.sqrt(1 - rho**2) for head, rho in alike]


def users_with_latents(users: DataFrame, spark: SparkSession, setting: Setting) -> DataFrame:
    """Adds country, age (indexes), kind (both in one) and z_0.., the vector without the device's part, to a column `user`."""
    draws, user = setting.draws, F.col("user")
    _, latents = user_kind_effects(setting)
    kinds = small_table(spark, "kind", {f"kind_z_{k}": latents[..., k] for k in range(LATENT)})
    typed = users.withColumns({"country": country_of(draws, user), "age": age_of(draws, user)})
    joined = typed.withColumn("kind", F.col("country") * len(AGE_BANDS) + F.col("age")).join(kinds, on="kind", how="inner")
    own = (draws.normal(f"latent/user/{k}", user) * 0.5**0.5 for k in range(LATENT))
    return joined.select(*users.columns, "country", "age", "kind", *((z + F.col(f"kind_z_{k}")).alias(f"z_{k}") for k, z in enumerate(own)))


def ads_with_latents(ads: DataFrame, spark: SparkSession, setting: Setting) -> DataFrame:
    """Adds campaign, format (indexes) and z_0.. to a column `ad`."""
    draws, ad = setting.draws, F.col("ad")
    _, latents = campaign_effects(setting)
    campaigns = small_table(spark, "campaign", {f"campaign_z_{k}": latents[..., k] for k in range(LATENT)})
    typed = ads.withColumns({"campaign": campaign_of(setting, ad), "format": format_of(draws, ad)})
    joined = typed.join(campaigns, on="campaign", how="inner")
    own = (draws.normal(f"latent/ad/{k}", ad) * 0.4**0.5 for k in range(LATENT))
    return joined.select(*ads.columns, "campaign", "format", *((z + F.col(f"campaign_z_{k}")).alias(f"z_{k}") for k, z in enumerate(own)))


def user_truths(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain user_source = user x S + source: user_z_0.., user_<head>."""
    users = users_with_latents(spark.range(0, setting.size.users, 1, 2).select(F.col("id").alias("user")), spark, setting)
    own = own_effects(setting, "user", F.col("user"))
    users = users.withColumn("user_shared", setting.draws.normal("effect/user", F.col("user"))).withColumns(
        {f"own_{head}": value * setting.world.spread.user for head, value in zip(setting.heads, own, strict=True)}
    )
    effects, _ = user_kind_effects(setting)
    kinds = effects.shape[1] * effects.shape[2]
    by_source = small_table(spark, "index", {f"kind_{head}": effects[..., h] for h, head in enumerate(setting.heads)})
    by_source = by_source.withColumns({"kind": F.col("index") % kinds, "source": F.expr(f"index div {kinds}")})
    return users.join(by_source, on="kind", how="inner").select(
        (F.col("user") * len(setting.sources) + F.col("source")).alias("user_source"),
        *(F.col(f"z_{k}").alias(f"user_z_{k}") for k in range(LATENT)),
        *((F.col(f"own_{head}") + F.col(f"kind_{head}")).alias(f"user_{head}") for head in setting.heads),
    )


def ad_truths(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain ad_source = ad x S + source, every ad that lives on some day: ad_z_0.. (of the sign the source gives it), ad_<head>."""
    life, s, heads = setting.world.ad_life_days, len(setting.sources), setting.heads
    generations = (setting.last_day + life - 1) // life + 1
    ads = ads_with_latents(
        spark.range(0, setting.size.ads_alive * generations, 1, 2).select(F.col("id").alias("ad")), spark, setting
    ).withColumn("ad_shared", setting.draws.normal("effect/ad", F.col("ad")))
    own = own_effects(setting, "ad", F.col("ad"))
    ads = ads.withColumns({f"own_{head}": value * setting.world.spread.ad for head, value in zip(heads, own, strict=True)})
    by_campaign, _ = campaign_effects(setting)
    kinds = by_campaign[:, :, None, :] + field_effects(setting, "format", len(FORMATS))[:, None, :, :]
    columns = {f"kind_{head}": kinds[..., h] for h, head in enumerate(heads)}
    turned = np.broadcast_to(signs(setting, "dimension", LATENT)[:, None, None, :], (*kinds.shape[:3], LATENT))
    columns |= {f"sign_{k}": turned[..., k] for k in range(LATENT)}
    a_source = kinds.shape[1] * kinds.shape[2]
    by_source = small_table(spark, "index", columns).withColumns(
        {"source": F.expr(f"index div {a_source}"), "campaign_format": F.col("index") % a_source}
    )
    keyed = ads.withColumn("campaign_format", F.col("campaign") * len(FORMATS) + F.col("format"))
    return keyed.join(by_source, on="campaign_format", how="inner").select(
        (F.col("ad") * s + F.col("source")).alias("ad_source"),
        *((F.col(f"z_{k}") * F.col(f"sign_{k}")).alias(f"ad_z_{k}") for k in range(LATENT)),
        *((F.col(f"own_{head}") + F.col(f"kind_{head}")).alias(f"ad_{head}") for head in heads),
    )


def user_exports(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain (day, user): exported at 22:00 UTC of `day` (index, from -1) and received at 23:00, for use from the next day on."""
    n, draws, user = setting.size.users, setting.draws, F.col("user")
    rate = zipf_share(user, n, setting.world.user_zipf) * setting.size.impressions_a_day
    signals = (F.col(f"z_{k}") + draws.normal(f"signal/{k}", user) * 0.5 for k in range(SIGNALS))
    return users_with_latents(_grid(spark, setting, n, "user"), spark, setting).select(
        "day",
        user_key(user).alias("user_key"),
        *_export_clocks(setting),
        or_missing(setting, "country", entry(COUNTRIES, F.col("country")), user).alias("country"),
        or_missing(setting, "age", entry(AGE_BANDS, F.col("age")), user).alias("age_band"),
        (F.log1p(rate) + draws.normal("activity", F.col("day"), user) * 0.2).alias("log_activity"),
        *(or_missing(setting, f"signal/{k}", value, user).alias(f"signal_{k}") for k, value in enumerate(signals)),
    )


def ad_exports(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain (day, ad): the ads alive on the day after `day`, exported and received as users are; ages are those of that next day."""
    ad, campaign, tomorrow = F.col("ad"), F.col("campaign"), F.col("day") + 1
    ads = _grid(spark, setting, setting.size.ads_alive, "slot").select("day", ad_in(setting, F.col("slot"), tomorrow).alias("ad"))
    category = entry(CATEGORIES, entry(setting.campaign_category, campaign))
    return ads_with_latents(ads, spark, setting).select(
        "day",
        ad_key(ad).alias("ad_key"),
        *_export_clocks(setting),
        or_missing(setting, "category", category, ad).alias("category"),
        entry(FORMATS, F.col("format")).alias("format"),
        (tomorrow - born_on(setting, ad)).cast("int").alias("age_days"),
        or_missing(setting, "vector", _observed_vector(setting, ad), ad).alias("vector"),
    )


def _observed_vector(setting: Setting, ad: Column) -> Column:
    """[VECTOR] float: a fixed mixture of the latent dimensions, and noise of half its size."""
    mixture = setting.draws.normals("vector/mixture", VECTOR, LATENT) / LATENT**0.5
    noise = (setting.draws.normal(f"vector/noise/{i}", ad) * 0.5 for i in range(VECTOR))
    mixed = (sum((F.col(f"z_{k}") * float(weights[k]) for k in range(LATENT)), F.lit(0.0)) for weights in mixture)
    return F.array(*((value + blur).cast("float") for value, blur in zip(mixed, noise, strict=True)))


def _grid(spark: SparkSession, setting: Setting, wide: int, name: str) -> DataFrame:
    """(day, `name`) for every delivery day: from the day before the first, so that the first day has something to use, to the last."""
    days = setting.size.days + 1
    return spark.range(0, days * wide, 1, max(2, days * wide // 500_000)).select(
        (F.expr(f"id div {wide}") - 1).alias("day"), (F.col("id") % wide).alias(name)
    )


def _export_clocks(setting: Setting) -> tuple[Column, Column]:
    midnight = F.lit(setting.size.first_day).cast("timestamp") + F.make_dt_interval(F.col("day").cast("int"))
    return (midnight + timedelta(hours=22)).alias("exported_at"), (midnight + timedelta(hours=23)).alias("loaded_at")
