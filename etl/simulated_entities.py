"""Simulated users and ads: who they are, their hidden vectors, and what they add to log-odds.

Users and ads are whole numbers, and what is their own is a column expression of the number: no table has to be kept.
A user's number is its rank by activity. `slots` are ranks of ads by popularity; a slot's ad is replaced every `ad_life_days`.
Vectors are arrays: of LATENT dimensions (z), of one number a head (effects), or of both, one behind the other (hidden).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.simulated_draws import Draws, Floats
from etl.simulated_levels import (
    AGE_BANDS,
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
    return setting.draws.pick("campaign", setting.size.campaigns, ad)


def every_ad(spark: SparkSession, setting: Setting) -> DataFrame:
    """`ad`: every ad that lives on some day of the simulation, and a few whose day comes later."""
    life = setting.world.ad_life_days
    numbers = setting.size.ads_alive * ((setting.last_day + life - 1) // life + 1)
    return spark.range(0, numbers, 1, 2).select(F.col("id").alias("ad"))


def arrays_by_index(spark: SparkSession, key: str, name: str, values: Floats) -> DataFrame:
    """[..., N] numbers -> a small frame: `key`, the flat index of all axes but the last, and `name`, an array of N."""
    flat = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    arrays = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]).cast(pa.list_(pa.float64()))
    return spark.createDataFrame(pa.table({key: np.arange(len(flat)), name: arrays}))


def vector(n: int, entry: Callable[[Column], Column]) -> Column:
    """[n] array of `entry(k)`."""
    return F.transform(F.sequence(F.lit(0), F.lit(n - 1)), entry)


def added(left: Column, right: Column) -> Column:
    return F.zip_with(left, right, lambda a, b: a + b)


def with_user_vector(users: DataFrame, spark: SparkSession, setting: Setting) -> DataFrame:
    """Adds country, age (indexes), kind (both in one) and z, the user's vector without the device's part, to a column `user`."""
    draws, user = setting.draws, F.col("user")
    kinds = arrays_by_index(spark, "kind", "kind_z", user_kind_effects(setting)[1])
    typed = users.withColumns({"country": country_of(draws, user), "age": age_of(draws, user)})
    own = vector(LATENT, lambda k: draws.normal("latent/user", user, k) * 0.5**0.5)
    joined = typed.withColumn("kind", F.col("country") * len(AGE_BANDS) + F.col("age")).join(kinds, on="kind", how="inner")
    return joined.select(*users.columns, "country", "age", "kind", added(own, F.col("kind_z")).alias("z"))


def with_ad_vector(ads: DataFrame, spark: SparkSession, setting: Setting) -> DataFrame:
    """Adds campaign, format (indexes) and z to a column `ad`."""
    draws, ad = setting.draws, F.col("ad")
    campaigns = arrays_by_index(spark, "campaign", "campaign_z", campaign_effects(setting)[1])
    typed = ads.withColumns({"campaign": campaign_of(setting, ad), "format": format_of(draws, ad)})
    own = vector(LATENT, lambda k: draws.normal("latent/ad", ad, k) * 0.4**0.5)
    return typed.join(campaigns, on="campaign", how="inner").select(
        *ads.columns, "campaign", "format", added(own, F.col("campaign_z")).alias("z")
    )


def hidden_users(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain user_source = user x S + source: user_hidden, z then effects."""
    users = with_user_vector(spark.range(0, setting.size.users, 1, 2).select(F.col("id").alias("user")), spark, setting)
    effects, _ = user_kind_effects(setting)
    s, kinds = effects.shape[0], effects.shape[1] * effects.shape[2]
    by_source = arrays_by_index(spark, "index", "kind_effects", effects).withColumns(
        {"kind": F.col("index") % kinds, "source": F.expr(f"index div {kinds}")}
    )
    own = _own_effects(setting, "user", F.col("user"), setting.world.spread.user)
    return (
        users.select("user", "kind", "z", own.alias("own"))
        .join(by_source, on="kind", how="inner")
        .select(
            (F.col("user") * s + F.col("source")).alias("user_source"),
            F.concat("z", added(F.col("own"), F.col("kind_effects"))).alias("user_hidden"),
        )
    )


def hidden_ads(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain ad_source = ad x S + source, every ad that lives on some day: ad_hidden, z (of the sign the source gives it) then effects."""
    ads = with_ad_vector(every_ad(spark, setting), spark, setting)
    by_campaign, _ = campaign_effects(setting)
    effects = by_campaign[:, :, None, :] + field_effects(setting, "format", len(FORMATS))[:, None, :, :]
    turned = np.broadcast_to(signs(setting, "dimension", LATENT)[:, None, None, :], (*effects.shape[:3], LATENT))
    s, kinds = effects.shape[0], effects.shape[1] * effects.shape[2]
    by_source = arrays_by_index(spark, "index", "kind_hidden", np.concatenate([turned, effects], axis=3)).withColumns(
        {"kind": F.col("index") % kinds, "source": F.expr(f"index div {kinds}")}
    )
    own = _own_effects(setting, "ad", F.col("ad"), setting.world.spread.ad)
    signed = F.zip_with("z", F.slice("kind_hidden", 1, LATENT), lambda z, sign: z * sign)
    return (
        ads.select("ad", (F.col("campaign") * len(FORMATS) + F.col("format")).alias("kind"), "z", own.alias("own"))
        .join(by_source, on="kind", how="inner")
        .select(
            (F.col("ad") * s + F.col("source")).alias("ad_source"),
            F.concat(signed, added(F.col("own"), F.slice("kind_hidden", LATENT + 1, len(setting.heads)))).alias("ad_hidden"),
        )
    )


def _own_effects(setting: Setting, what: str, entity: Column, spread: float) -> Column:
    """[H] array, correlated between heads, of standard deviation `spread`: what is a user's or an ad's own, the same in every source."""
    shared, draws = setting.draws.normal(f"effect/{what}", entity), setting.draws
    alike = [spec.correlation for spec in setting.world.heads.values()]
    return F.array(
        *(
            (shared * rho + draws.normal(f"effect/{what}/own", entity, F.lit(h)) * math.sqrt(1 - rho**2)) * spread
            for h, rho in enumerate(alike)
        )
    )
