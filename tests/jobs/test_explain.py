"""The parts of a change of scores: planted days on which one thing alone changed, scored by real models and calibrators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from etl import schemas
from etl.candidates import with_features
from etl.landing import InputMissing
from etl.registry import calibrator_file, model_dir, publish
from etl.runs import fingerprint
from etl.scores import score_inventory
from etl.splits import ONE_DAY
from etl.tables import create_tables, overwrite_days, read_days
from jobs.common import StageFailed
from jobs.explain import answer, options, require_columns, side_of
from jobs.explained import WORDS, lines_of, reason
from models import bundle
from models.calibration import Calibrator, Cell
from models.predictor import predict_probabilities
from tests.small import DAY, at, rows, small_conf
from validation.queries import Asked, queries

TOWERS, BEFORE, AFTER = ["feed", "video"], DAY, DAY + ONE_DAY
STATISTICS = {"ad_age_days": {"low": 0.0, "high": 100.0, "mean": 30.0, "std": 20.0}}
Rows = Sequence[Mapping[str, Any]]

ADS = [{"ad_id": f"a{n}", "ad_age_days": 10.0 * n} for n in range(6)]
USERS = [{"user_id": f"u{n}", "country": ("US", "BR", "JP")[n % 3]} for n in range(9)]
CANDIDATES: list[dict[str, Any]] = [
    {
        "inventory_id": f"i{n}",
        "user_id": f"u{n % 9}" if n % 7 else None,
        "ad_id": f"a{n % 6}",
        "campaign_id": f"c{n % 3}",
        "tower": TOWERS[n % 2],
        "hour": str(n % 24),
        "expected_impressions": 1.0 + n % 4,
        "bid_micros": 250_000 * (n % 5) or None,
    }
    for n in range(60)
]


def made_model(conf: Conf, name: str, seed: int) -> None:
    heads = {head: spec.model_dump(mode="json") for head, spec in conf.heads.items()}
    template = conf.template.model_dump(mode="json")
    small = {"embedding_width": 4, "bottom_widths": [8], "tower_widths": [4]}
    meta = {"model_id": name, "template": template, "heads": heads, "towers": TOWERS, "model": small, "statistics": STATISTICS}
    torch.manual_seed(seed)
    model = bundle.build(meta)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.4)
    bundle.save(model_dir(conf, name), model, {key: torch.ones(len(table), 1) for key, table in model.tables.items()}, meta)


def calibrator(shift: float, **weights: float) -> str:
    w = {key.replace("_", "="): weight for key, weight in weights.items()}
    cells = {
        head: {"feed": Cell("featured", shift, 0.1, w), "video": Cell("platt", -shift, 0.0)}
        for head in ("click", "good_click", "scroll_up")
    }
    return Calibrator(("click", "good_click", "scroll_up"), cells).to_json()


def scored_day(spark: SparkSession, conf: Conf, day: Any, model: str, text: str, inventory: Rows, ads: Rows) -> None:
    """Users and ads as received the day before, the day's inventory, and its scores."""
    known = {"day": day - ONE_DAY, "valid_from": at("01:00", day - ONE_DAY), "received_at": at("02:00", day - ONE_DAY)}
    tables = {"users": USERS, "ads": ads}
    for name, states in tables.items():
        table = schemas.all_tables(conf)[name]
        overwrite_days(rows(spark, table, states, **known), conf.workdir, table, day - ONE_DAY, day - ONE_DAY)
    table = schemas.inventory(conf)
    overwrite_days(rows(spark, table, inventory, day=day, received_at=at("03:00", day - ONE_DAY)), conf.workdir, table, day, day)
    file = Path(conf.workdir) / calibrator_file(model, day - ONE_DAY)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    made_from = {"model": model, "calibrator": fingerprint(text), "inventory_version": 1, "run_id": "r1", "scored_at": datetime.now(UTC)}
    known_rows = with_features(read_days(spark, conf.workdir, table, day, day), spark, conf, day, day)
    predict = partial(predict_probabilities, str(model_dir(conf, model)), text)
    segments = Calibrator.from_json(text).values
    scores = score_inventory(known_rows, conf, conf.template, TOWERS, predict, made_from=made_from, segments=segments)
    overwrite_days(scores, conf.workdir, schemas.scores(conf), day, day)


@pytest.fixture(scope="module")
def first(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Conf:
    """Two models, and a first day scored; a click is worth the row's bid."""
    heads = small_conf().model_dump(mode="json")["heads"]
    heads["click"]["utility_times_bid"], heads["scroll_up"]["utility_weight"] = True, -0.3
    conf = small_conf(str(tmp_path_factory.mktemp("explain")), heads=heads, calibration={"features": ["country"]})
    create_tables(spark, conf)
    made_model(conf, "m1", 1)
    made_model(conf, "m2", 2)
    scored_day(spark, conf, BEFORE, "m1", calibrator(0.1, country_US=0.3), CANDIDATES, ADS)
    return conf


def explained(spark: SparkSession, conf: Conf, *more: str) -> dict[str, Any]:
    asked = options().parse_args(["--conf-file", "unused", "--day", AFTER.isoformat(), *more])
    require_columns(conf, asked)
    return answer(spark, conf, (side_of(spark, conf, asked.against or BEFORE), side_of(spark, conf, AFTER)), asked)


def published_mean(spark: SparkSession, conf: Conf, column: str) -> float:
    """Over the rows of the second day."""
    found = read_days(spark, conf.workdir, schemas.scores(conf), AFTER, AFTER).agg(F.avg(column)).first()
    assert found is not None
    return float(found[0])


def older(ads: Rows) -> Rows:
    return [{**ad, "ad_age_days": ad["ad_age_days"] + 35} for ad in ads]


#: Factor -> the second day's model, calibrator, inventory and ads, of which one differs from the first day's.
ALONE: dict[str, tuple[str, str, Rows, Rows]] = {
    "model": ("m2", calibrator(0.1, country_US=0.3), CANDIDATES, ADS),
    "calibrator": ("m1", calibrator(0.4, country_BR=-0.5), CANDIDATES, ADS),
    "features": ("m1", calibrator(0.1, country_US=0.3), CANDIDATES, older(ADS)),
    "mix": ("m1", calibrator(0.1, country_US=0.3), [row for row in CANDIDATES if row["ad_id"] != "a5"], ADS),
    "volume": (
        "m1",
        calibrator(0.1, country_US=0.3),
        [{**row, "expected_impressions": 3 * row["expected_impressions"]} for row in CANDIDATES],
        ADS,
    ),
}


@pytest.mark.parametrize(
    ("factor", "of"),
    [("model", "utility"), ("calibrator", "expected_click"), ("features", "p_scroll_up"), ("mix", "p_click"), ("volume", "expected_click")],
)
def test_what_changed_alone_has_all_of_the_change(spark: SparkSession, first: Conf, factor: str, of: str) -> None:
    scored_day(spark, first, AFTER, *ALONE[factor])
    told = explained(spark, first, "--of", of)
    (whole,) = told["segments"]
    change = whole["after"] - whole["before"]
    assert abs(change) > 1e-3
    assert whole["parts"][factor] == pytest.approx(change, rel=0.01)
    assert sum(whole["parts"].values()) == pytest.approx(change)
    assert max(told["differs_from_published"]) < 1e-9
    mean = published_mean(spark, first, of)
    assert whole["after"] == pytest.approx(mean * whole["rows"][1] if of.startswith("expected_") else mean)
    assert whole["rows"] == [60, 50 if factor == "mix" else 60]
    assert whole["impressions"] == [150, {"mix": 120, "volume": 450}.get(factor, 150)]
    assert lines_of(told)[3].startswith(f"    mainly: {WORDS[factor][change > 0]} (1")


def test_when_all_changed_at_once_campaigns_are_ranked_and_each_change_is_the_published_one(spark: SparkSession, first: Conf) -> None:
    fewer = [row for row in CANDIDATES if row["campaign_id"] != "c2"] + [{**CANDIDATES[0], "inventory_id": "new", "campaign_id": "c9"}]
    scored_day(spark, first, AFTER, "m2", calibrator(0.4, country_BR=-0.5), fewer, older(ADS))
    told = explained(spark, first, "--by", "campaign_id", "--order", "falls")
    table = schemas.scores(first)
    wanted: dict[str, list[float]] = {}
    for place, day in enumerate((BEFORE, AFTER)):
        for row in read_days(spark, first.workdir, table, day, day).groupBy("campaign_id").sum("expected_click").collect():
            wanted.setdefault(row[0], [0.0, 0.0])[place] = row[1]
    assert {one["segment"]: [one["before"], one["after"]] for one in told["segments"]} == {
        name: pytest.approx(pair) for name, pair in wanted.items()
    }
    changes = [one["after"] - one["before"] for one in told["segments"]]
    assert changes == sorted(changes) and told["segments"][-1]["segment"] in ("c9", "c0", "c1")
    for one in told["segments"]:
        assert sum(one["parts"].values()) == pytest.approx(one["after"] - one["before"])
    gone = next(one for one in told["segments"] if one["segment"] == "c2")
    absent = lines_of(explained(spark, first, "--by", "campaign_id", "--value", "c2", "--features"))
    assert sum(line.endswith("-> no rows") for line in absent) == 4
    assert gone["rows"] == [20, 0] and gone["after"] == 0.0 and gone["parts"]["volume"] < 0 and gone["parts"]["mix"] == 0
    whole = told["whole"]
    assert [whole["before"], whole["after"]] == pytest.approx([sum(of) for of in zip(*wanted.values(), strict=True)])
    assert sum(whole["parts"].values()) == pytest.approx(whole["after"] - whole["before"]) and whole["rows"] == [60, 41]
    text = lines_of(told)
    assert text[0] == f"expected_click of {AFTER} against {BEFORE}; {AFTER} by model m2, {BEFORE} by model m1"
    assert text[2].startswith("all rows: ") and any(line.startswith("campaign_id c2: ") and "rows 20 -> 0" in line for line in text)
    means = explained(spark, first, "--by", "campaign_id", "--of", "p_click")
    assert {one["segment"] for one in means["segments"]} == {"c0", "c1"} and means["on_one_day_only"] == 2


def test_the_report_shows_the_same_campaigns_as_having_changed_most(spark: SparkSession, first: Conf) -> None:
    fewer = [row for row in CANDIDATES if row["campaign_id"] != "c2"]
    scored_day(spark, first, AFTER, "m2", calibrator(0.4), [*fewer, {**CANDIDATES[0], "inventory_id": "new", "campaign_id": None}], ADS)
    asked = queries(Asked(first.workdir, "r1", BEFORE, AFTER, "m2", tuple(first.heads)))["movers"]
    assert spark.sql(asked).collect() == []  # no day was published before
    publish(spark, first, BEFORE - ONE_DAY, "r1", "scores", "m1", BEFORE)
    found = [row.asDict() for row in spark.sql(asked).collect()]
    told = explained(spark, first, "--by", "campaign_id")["segments"]
    assert [row["campaign_id"] for row in found] == [one["segment"] for one in told] and "(missing)" in {
        row["campaign_id"] for row in found
    }
    for row, one in zip(found, told, strict=True):
        assert (row["head"], row["since"]) == ("click", BEFORE)
        assert [row["before"], row["after"], row["change"]] == pytest.approx([one["before"], one["after"], one["after"] - one["before"]])
        assert [row["impressions_before"], row["impressions_after"]] == one["impressions"]


def test_a_user_or_ad_that_is_new_is_the_inventorys_change(spark: SparkSession, first: Conf) -> None:
    news = [{**CANDIDATES[0], "inventory_id": f"n{n}", "ad_id": "new"} for n in range(20)]
    text = calibrator(0.1, country_US=0.3)
    scored_day(spark, first, AFTER, "m1", text, [*CANDIDATES, *news], [*ADS, {"ad_id": "new", "ad_age_days": 90.0}])
    (whole,) = explained(spark, first)["segments"]
    assert whole["parts"]["mix"] + whole["parts"]["volume"] == pytest.approx(whole["after"] - whole["before"], rel=1e-9)
    assert whole["parts"]["mix"] and whole["parts"]["volume"] > 0


def test_what_features_are_worth_and_scores_that_do_not_come_out_again_are_said_in_words(spark: SparkSession, first: Conf) -> None:
    scored_day(spark, first, AFTER, *ALONE["model"])
    table = schemas.all_tables(first)["ads"]
    kept = read_days(spark, first.workdir, table, BEFORE, BEFORE).localCheckpoint()
    told = explained(spark, first, "--features", "--by", "campaign_id", "--value", "c1")
    assert sorted(row["feature"] for row in told["features"]) == ["ad_age_days", "country", "hour", "user_id"]
    (worth,) = {row["days"][1][0] for row in explained(spark, first, "--features", "--of", "utility")["features"]}
    assert worth == pytest.approx(published_mean(spark, first, "utility"))
    effects = [max(abs(mean - without) for mean, without in row["days"]) for row in told["features"]]
    assert effects == sorted(effects, reverse=True) and effects[-1] > 0
    assert all(row["days"][0] != row["days"][1] for row in told["features"])  # the models differ
    (adds,) = [line for line in lines_of(told) if line.startswith(f"    {told['features'][0]['feature']} ")]
    assert adds.split()[-1] == f"{told['features'][0]['days'][1][0] - told['features'][0]['days'][1][1]:+.{len(adds.split('.')[-1])}f}"
    text = "\n".join(lines_of(told))
    assert "campaign_id c1: " in text and "Beware" not in text

    overwrite_days(kept.withColumn("ad_age_days", F.lit(99.0)), first.workdir, table, BEFORE, BEFORE)
    assert "the published scores of 2026-05-11 do not come out again" in "\n".join(lines_of(explained(spark, first)))
    overwrite_days(kept, first.workdir, table, BEFORE, BEFORE)


def test_how_right_each_days_model_was_on_its_held_out_day_stands_beside_the_change_in_all_and_by_segment(
    spark: SparkSession, first: Conf
) -> None:
    scored_day(spark, first, AFTER, *ALONE["model"])
    held_out = {"m1": BEFORE - 4 * ONE_DAY, "m2": BEFORE - 3 * ONE_DAY}  # M of the night before each scored day
    served, examples = schemas.served(first), schemas.examples(first)
    shown = [
        {"impression_id": f"{model}{n}", "day": day, "campaign_id": f"c{n % 2}", "tower": "video", "model": model}
        | {"logit_click": 0.2, "logit_good_click": 0.0, "label_click": n % 2 if n < 300 else None, "label_good_click": 0}
        for model, day in held_out.items()
        for n in range(400)
    ]
    last = max(held_out.values())
    overwrite_days(rows(spark, examples, shown), first.workdir, examples, min(held_out.values()), last)
    refused = [{**row, "model": "refused", "logit_click": 5.0} for row in shown]
    overwrite_days(rows(spark, served, [*shown, *refused]), first.workdir, served, min(held_out.values()), last)
    # The calibrator takes .1 off: log-odds .1 of 300 rows with a label.
    p, told = 1 / (1 + math.exp(-0.1)), explained(spark, first, "--by", "campaign_id", "--value", "c1")
    wanted = [{"scored": day.isoformat(), "measured": held_out[model].isoformat()} for day, model in ((BEFORE, "m1"), (AFTER, "m2"))]
    assert told["levels"] == [one | {"rows": 300, "predicted": pytest.approx(300 * p), "observed": 150} for one in wanted]
    (c1,) = told["segments"]
    assert c1["levels"] == [one | {"rows": 150, "predicted": pytest.approx(150 * p), "observed": 150} for one in wanted]
    text = lines_of(told)
    assert text[1] == (
        f"    model of 2026-05-10: predicted / observed {2 * p:.3f} on its held-out day 2026-05-06 (150 positives, chance alone 16.0%)"
    )
    (line,) = [line for line in text if "on held-out days" in line]
    assert line.strip().startswith(
        f"on held-out days: 2026-05-06 predicted {150 * p:.1f}, observed 150 (95% 127.0 to 176.0): off beyond chance; "
    )
    nothing = lines_of(explained(spark, first, "--by", "campaign_id", "--value", "c2"))
    assert "    on held-out days: 2026-05-06 no impressions; 2026-05-07 no impressions" in nothing
    assert explained(spark, first, "--of", "utility")["levels"] == []
    # p(good click) includes p(click); a click's label does not matter to it.
    (child, _) = explained(spark, first, "--of", "p_good_click")["levels"]
    assert (child["rows"], child["observed"], child["predicted"]) == (400, 0, pytest.approx(400 * p / (1 + math.exp(0.1))))
    assert "predicted 99.8, observed 0 on its held-out day" in lines_of(explained(spark, first, "--of", "p_good_click"))[1]


def test_a_reason_names_what_makes_up_most_of_a_change_and_what_stands_against_it() -> None:
    assert reason(-10.0, {"model": -6.0, "calibrator": 2.5, "features": -0.1, "mix": -0.4, "volume": -6.0}) == (
        "mainly: the other model rates it lower (60%), and it stands for fewer impressions (60%); "
        "against it: the other calibrator makes it higher (-25%)"
    )
    assert reason(0.0, {"model": 0.0}) == "" and reason(0.1, {"model": 5.0, "mix": -4.9}) == "its parts nearly cancel"


def test_an_answer_that_cannot_be_given_says_what_is_missing(spark: SparkSession, first: Conf) -> None:
    refused: dict[str, Callable[[], Any]] = {
        "it may name utility, p_click": lambda: explained(spark, first, "--of", "clicks"),
        "--by names country; it may name": lambda: explained(spark, first, "--by", "country"),
        "--against is --day, 2026-05-11; name two days": lambda: explained(spark, first, "--against", AFTER.isoformat()),
        "name it with --by": lambda: explained(spark, first, "--value", "c1"),
    }
    for words, ask in refused.items():
        with pytest.raises(StageFailed, match=words):
            ask()
    with pytest.raises(InputMissing, match="no inventory with campaign_id nothing on 2026-05-10 or 2026-05-11"):
        explained(spark, first, "--by", "campaign_id", "--value", "nothing")
    with pytest.raises(InputMissing, match="scores hold no rows of 2026-05-01; run the night of 2026-04-30"):
        side_of(spark, first, BEFORE - timedelta(days=9))
    file = Path(first.workdir) / calibrator_file("m1", BEFORE - ONE_DAY)
    fitted = file.read_text()
    file.write_text(calibrator(0.9))
    with pytest.raises(StageFailed, match="is not the calibrator that scored 2026-05-10; run the night of 2026-05-09 again"):
        side_of(spark, first, BEFORE)
    file.write_text(fitted)
