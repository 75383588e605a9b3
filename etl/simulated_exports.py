"""The dated files that a simulated platform exports of its users and ads: what can be observed of them, through noise and gaps."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.simulated_draws import entry, zipf_share
from etl.simulated_entities import born_on, every_ad, vector, with_ad_vector, with_user_vector
from etl.simulated_levels import AGE_BANDS, CATEGORIES, COUNTRIES, FORMATS, LATENT, Setting

VECTOR = 16  # width of the ad vector that is observed


def user_key(user: Column) -> Column:
    return F.concat(F.lit("u"), F.lpad(user.cast("string"), 6, "0"))


def ad_key(ad: Column) -> Column:
    return F.concat(F.lit("a"), F.lpad(ad.cast("string"), 6, "0"))


def campaign_key(campaign: Column) -> Column:
    return F.concat(F.lit("c"), campaign.cast("string"))


def advertiser_key(advertiser: Column) -> Column:
    return F.concat(F.lit("adv"), advertiser.cast("string"))


def or_missing(setting: Setting, what: str, value: Column, *key: Column) -> Column:
    return F.when(setting.draws.uniform(f"missing/{what}", *key) >= setting.world.delivery.missing, value)


def user_exports(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain (day, user): exported at 22:00 UTC of `day` (index, from -1) and received at 23:00, for use from the next day on."""
    n, draws, user = setting.size.users, setting.draws, F.col("user")
    rate = zipf_share(user, n, setting.world.user_zipf) * setting.size.impressions_a_day
    users = with_user_vector(spark.range(0, n, 1, 2).select(F.col("id").alias("user")), spark, setting).select(
        "user",
        or_missing(setting, "country", entry(COUNTRIES, F.col("country")), user).alias("country"),
        or_missing(setting, "age", entry(AGE_BANDS, F.col("age")), user).alias("age_band"),
        F.log1p(rate).alias("log_rate"),
        *(
            or_missing(setting, f"signal/{k}", F.get("z", F.lit(k)) + draws.normal(f"signal/{k}", user) * 0.5, user).alias(f"signal_{k}")
            for k in range(2)
        ),
    )
    return _every_delivery(users, setting).select(
        "day",
        user_key(user).alias("user_key"),
        *_export_clocks(setting),
        "country",
        "age_band",
        (F.col("log_rate") + draws.normal("activity", F.col("day"), user) * 0.2).alias("log_activity"),
        "signal_0",
        "signal_1",
    )


def ad_exports(spark: SparkSession, setting: Setting) -> DataFrame:
    """Grain (day, ad): the ads alive on the day after `day`, exported and received as users are; ages are those of that next day."""
    ad, life, tomorrow = F.col("ad"), setting.world.ad_life_days, F.col("day") + 1
    category = entry(CATEGORIES, entry(setting.campaign_category, F.col("campaign")))
    ads = with_ad_vector(every_ad(spark, setting), spark, setting).select(
        "ad",
        born_on(setting, ad).alias("born"),
        or_missing(setting, "category", category, ad).alias("category"),
        entry(FORMATS, F.col("format")).alias("format"),
        or_missing(setting, "vector", _observed_vector(setting, ad), ad).alias("vector"),
    )
    alive = (tomorrow >= F.col("born")) & (tomorrow < F.col("born") + life)
    return (
        _every_delivery(ads, setting)
        .where(alive)
        .select(
            "day",
            ad_key(ad).alias("ad_key"),
            *_export_clocks(setting),
            "category",
            "format",
            (tomorrow - F.col("born")).cast("int").alias("age_days"),
            "vector",
        )
    )


def _observed_vector(setting: Setting, ad: Column) -> Column:
    """[VECTOR] float: a fixed mixture of the latent dimensions, and noise of half its size."""
    mixture = setting.draws.normals("vector/mixture", VECTOR, LATENT) / LATENT**0.5

    def mixed(i: Column) -> Column:
        products = F.zip_with("z", F.slice(F.lit(mixture.reshape(-1)), i * LATENT + 1, LATENT), lambda z, weight: z * weight)
        noise = setting.draws.normal("vector/noise", ad, i) * 0.5
        return (F.aggregate(products, F.lit(0.0), lambda total, product: total + product) + noise).cast("float")

    return vector(VECTOR, mixed)


def _every_delivery(frame: DataFrame, setting: Setting) -> DataFrame:
    """Each row once a `day` (index): from the day before the first, so that the first day has something to use, to the last."""
    return frame.withColumn("day", F.explode(F.sequence(F.lit(-1), F.lit(setting.size.days - 1))))


def _export_clocks(setting: Setting) -> tuple[Column, Column]:
    midnight = F.lit(setting.size.first_day).cast("timestamp") + F.make_dt_interval(F.col("day"))
    return (midnight + F.lit(timedelta(hours=22))).alias("exported_at"), (midnight + F.lit(timedelta(hours=23))).alias("loaded_at")
