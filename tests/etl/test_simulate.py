"""The simulator: a law that is known, rows that depend on the seed alone, files that are there whole or not, a truth nobody trains on."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.load import ConfError
from conf.schema import Conf
from conf.world import Drift, load_world
from etl.simulate import setting_of, simulate
from etl.simulated_draws import Draws, zipf_share
from etl.simulated_levels import Setting, moment_effects, signs
from etl.simulated_truth import fit_intercepts, intercept_for, rows_of_sources, shown, with_log_odds, with_probabilities
from tests.etl.simulated import DAYS, ROOT, fingerprint, small

# --- draws ---------------------------------------------------------------------------------------------------------------------------


def test_a_zipf_rank_comes_as_often_as_its_share_and_shares_sum_to_one(spark):
    ranks = spark.range(20_000).select(Draws(1).zipf("test", 50, 0.7, F.col("id")).alias("rank"))
    share = zipf_share(F.col("rank"), 50, 0.7)
    counted = ranks.groupBy("rank").agg(F.count(F.lit(1)).alias("seen"), F.first(share).alias("share")).toPandas()
    assert counted["rank"].min() == 0 and counted["rank"].max() == 49
    assert counted["share"].sum() == pytest.approx(1)
    assert np.abs(counted["seen"] / 20_000 - counted["share"]).max() < 4 * np.sqrt(0.1 / 20_000)


def test_draws_of_the_driver_and_of_spark_have_the_moments_of_a_standard_normal(spark):
    ours = Draws(1).normals("test", 4000)
    theirs = spark.range(4000).select(Draws(1).normal("test", F.col("id")).alias("z")).toPandas()["z"].to_numpy()
    for values in (ours, theirs):
        assert abs(values.mean()) < 0.06 and abs(values.std() - 1) < 0.04
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.06


# --- the law -------------------------------------------------------------------------------------------------------------------------


def test_an_intercept_gives_the_rate_that_is_asked_for():
    cases = [  # log-odds, weights, rate -> intercept
        ([0.0, 0.0], [1, 1], 0.2, np.log(0.2 / 0.8)),
        ([-1.0, 1.0], [1, 1], 0.5, 0.0),
        ([3.0, 50.0], [1, 0], 0.5, -3.0),
    ]
    for log_odds, weight, rate, wanted in cases:
        assert intercept_for(rate, np.array(log_odds), np.array(weight, float)) == pytest.approx(wanted, abs=1e-6)


def test_mean_rates_on_served_rows_are_the_base_rates_of_the_world(spark, tmp_path):
    """Of the first week of a world without drift; the intercepts were fitted on other rows of the same week."""
    setting = setting_of(small(tmp_path, world="null", days=7))
    rows = shown(spark, setting, [("impressions", day) for day in range(7)], [3000, 3000, 3000])
    rows = with_probabilities(with_log_odds(rows, spark, setting, fit_intercepts(spark, setting)), setting)
    means = rows.groupBy("source").agg(*(F.sum(f"p_{head}").alias(head) for head in setting.heads), F.count(F.lit(1)).alias("rows"))
    for row in means.collect():
        source = setting.sources[row["source"]]
        for head, spec in setting.world.heads.items():
            if source not in spec.base_rates:
                assert row[head] is None
                continue
            of = row[spec.parent] if spec.parent else row["rows"]
            assert row[head] / of == pytest.approx(spec.base_rates[source], rel=0.06), (source, head)


def test_sources_conflict_with_the_first_one_in_the_base_world_and_never_in_the_null_world(tmp_path):
    base, null = (signs(setting_of(small(tmp_path, world=world)), "advertiser", 250) for world in ("base", "null"))
    assert (base[0] == 1).all() and (null == 1).all()
    assert [0.3 < share < 0.5 for share in (base[1:] < 0).mean(axis=1)] == [True, True]


def test_nothing_drifts_in_the_null_world(tmp_path):
    """What is left of a day is its weekday: a week later the same."""
    effects = moment_effects(setting_of(small(tmp_path, world="null", days=10)))
    assert np.allclose(effects[:, 0], effects[:, 7]) and not np.allclose(effects[:, 0], effects[:, 1])


def test_each_kind_of_drift_begins_when_it_should_and_lasts_as_long(tmp_path):
    calm = setting_of(small(tmp_path, world="null", days=9))
    none = dict(calm.world.drift)

    def added(**knobs: object) -> np.ndarray:
        """[D] the size of what the knobs add, by day index."""
        world = calm.world.model_copy(update={"drift": Drift.model_validate(none | knobs)})
        moved = moment_effects(replace(calm, world=world)) - moment_effects(calm)
        return np.abs(moved).max(axis=(0, 2, 3, 4))

    assert (added(walk=1)[:1] == 0).all() and (added(walk=1)[1:] > 0).all()
    assert (added(segment_walk=1)[:1] == 0).all() and (added(segment_walk=1)[1:] > 0).all()
    assert np.allclose(added(trend=0.5), 0.5 * np.arange(10))
    assert list(np.flatnonzero(added(holiday=1, holidays=(2, 5)))) == [1, 4]
    assert list(np.flatnonzero(added(level=1, step_day=8))) == [7, 8, 9]
    assert list(np.flatnonzero(added(step=1, step_day=8))) == [7, 8, 9]


# --- rows ----------------------------------------------------------------------------------------------------------------------------


def some_rows(spark: SparkSession, conf: Conf) -> DataFrame:
    """A day of each kind, with log-odds."""
    setting = setting_of(conf)
    rows = shown(spark, setting, [("impressions", 0), ("inventory", DAYS)], rows_of_sources(setting, setting.size.impressions_a_day))
    return with_log_odds(rows, spark, setting, np.zeros((3, 5)))


def test_the_same_seed_gives_the_same_rows_however_partitioned_and_another_seed_others(spark, tmp_path):
    one, five = (some_rows(spark, small(tmp_path, files_a_day=files)) for files in (1, 5))
    assert (one.rdd.getNumPartitions(), five.rdd.getNumPartitions()) == (2, 10)
    assert fingerprint(one) == fingerprint(five)
    assert fingerprint(one)[0] == 3000
    assert fingerprint(one.select("user", "ad")) != fingerprint(some_rows(spark, small(tmp_path, replicate=1)).select("user", "ad"))


def test_more_impressions_a_day_leave_the_earlier_ones_as_they_were(spark, tmp_path):
    few, many = (
        some_rows(spark, small(tmp_path, impressions_a_day=size)).where("source = 2 AND place < 100").drop("number")
        for size in (1500, 3000)
    )
    assert fingerprint(few) == fingerprint(many)


def test_rows_are_shared_out_among_sources_by_their_share(tmp_path):
    setting = setting_of(small(tmp_path))
    assert rows_of_sources(setting, 60_000) == [36_000, 18_000, 6_000]
    assert sum(rows_of_sources(setting, 1_001)) == 1_001


def test_in_a_nested_world_an_ad_belongs_to_one_source(spark, tmp_path):
    calm = setting_of(small(tmp_path))
    nested = Setting(calm.world.model_copy(update={"nested": True}), calm.size)
    rows = shown(spark, nested, [("impressions", 0)], rows_of_sources(nested, 1500))
    assert rows.groupBy("ad").agg(F.count_distinct("source").alias("sources")).where("sources > 1").count() == 0


# --- files ---------------------------------------------------------------------------------------------------------------------------


def test_a_second_run_writes_nothing_and_a_run_cut_off_leaves_nothing_half(spark, tmp_path):
    told: list[str] = []
    conf = small(tmp_path, days=1, impressions_a_day=1000, inventory_days=[])

    def cut(line: str) -> None:
        if line.startswith("truth"):
            raise InterruptedError(line)

    with pytest.raises(InterruptedError):
        simulate(spark, conf, cut)
    assert not (tmp_path / "landing").exists() and not (tmp_path / "truth").exists()
    assert simulate(spark, conf, told.append)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not simulate(spark, conf, told.append) and "already" in told[-1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["landing", "truth"]


def test_a_configuration_that_cannot_be_simulated_says_why(spark, tmp_path):
    with pytest.raises(ConfError, match=r"world is atlantis.*known worlds: base, mild, nested, null, prod, step, trend, walk"):
        setting_of(small(tmp_path, world="atlantis"))
    with pytest.raises(ConfError, match="replicate is 13; world base has 13 seeds"):
        setting_of(small(tmp_path, replicate=13))


def test_no_training_path_reads_the_truth():
    """The folder's name stands in no code but the simulator's and the check's."""
    may = {
        "etl/truth.py",
        "jobs/truth.py",
        "jobs/backtest.py",
        "jobs/simulate.py",
        "jobs/demo.py",
        # What models are held to by jobs/compare.py, beside the rows they learn from.
        "etl/trial.py",
        "models/contest.py",
        *(f"etl/{path.name}" for path in (ROOT / "etl").glob("simulate*.py")),
    }
    others = [path for package in ("conf", "etl", "jobs", "models", "validation") for path in (ROOT / package).rglob("*.py")]

    def names_it(path: Path) -> bool:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return any("truth" in text.split("/") or text == "truth" for text in texts) or any("truth" in module for module in modules)

    found = {path.relative_to(ROOT).as_posix() for path in others if names_it(path)}
    assert found - may == set() and "etl/truth.py" in found and "etl/simulate.py" in found
    configured = [path.name for path in (ROOT / "conf").rglob("*.yaml") if "/truth" in path.read_text(encoding="utf-8")]
    assert configured == []


def test_worlds_are_frozen_with_their_seeds():
    base = load_world("base")
    assert base.seeds == (20260501, 20260502, 20260503, 20260504, 20260505, *range(20261201, 20261209))
    still = Drift(walk=0, segment_walk=0, trend=0, holiday=0, holidays=(), level=0, step=0, step_day=1)
    moved = {
        "null": {},
        "walk": {"walk": 0.10, "segment_walk": 0.08, "holiday": 0.35, "holidays": (10,)},
        "trend": {"walk": 0.03, "segment_walk": 0.03, "trend": 0.08},
        "step": {"walk": 0.03, "segment_walk": 0.03, "step": 0.5, "step_day": 6},
        "prod": {"walk": 0.02, "segment_walk": 0.03, "level": 0.4, "step": 0.3, "step_day": 6},
    }
    fresh = []
    for name, drift in moved.items():
        world = load_world(name)
        assert world.drift == still.model_copy(update=drift)
        assert {key for key, value in base if value != getattr(world, key)} == {"seeds", "drift"} | (
            {"conflict"} if name == "null" else set()
        )
        fresh += world.seeds[-8:]
    for name, knobs in {"mild": {"conflict": 0.2}, "nested": {"nested": True}}.items():
        world = load_world(name)
        assert world == base.model_copy(update={**knobs, "seeds": world.seeds})
        fresh += world.seeds[-8:]
    assert len(set(fresh) - set(base.seeds)) == 8 * (len(moved) + 2)
