"""Why did a score change? The parts that the model, its calibrator, the features and the inventory have in a change between two scored days.

python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17                                  # all rows, against the day before
python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17 --by campaign_id --order falls   # the campaigns that fell most
python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17 --by campaign_id --value c12 --features

Days are those scored, the day after a night's `--day`. The inventory of both days is scored again under every mixture of the two days' models,
calibrators, features and inventories (etl/explanation.py), and the change parted by Shapley values. `--features`: also what each feature is
worth, by leaving it out, and by how much that changed. The published scores of both days must come out again; where they do not, the answer says by how much.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.schema import Conf
from conf.template import Template
from etl import schemas
from etl.explanation import Chosen, Side, Sums, feature_means, mean_of, published_sums, sums_of
from etl.landing import InputMissing
from etl.levels import level_sums
from etl.registry import calibrator_file, model_dir
from etl.runs import fingerprint
from etl.session import start
from etl.splits import ONE_DAY, Night
from etl.tables import read_days
from etl.utility import UTILITY
from jobs.common import DONE, SCORING, USAGE, StageFailed, conf_of, day_option, main, parser, say
from jobs.explained import lines_of
from models.bundle import read_meta
from models.calibration import Calibrator
from models.counterfactual import all_values, under_calibrators, without_each
from models.shapley import shapley

ORDERS = {"change": lambda change: -abs(change), "falls": lambda change: change, "rises": lambda change: -change}


def explain(argv: Sequence[str] | None) -> int:
    asked = options().parse_args(argv)
    conf = conf_of(asked)
    require_columns(conf, asked)
    spark = start(conf.spark, f"adtower {conf.name} explain {asked.day}")
    try:
        sides = side_of(spark, conf, asked.against or asked.day - ONE_DAY), side_of(spark, conf, asked.day)
        told = answer(spark, conf, sides, asked)
    finally:
        spark.stop()
    print(json.dumps(told, indent=1) if asked.json else "\n".join(lines_of(told)))
    return DONE


def options() -> argparse.ArgumentParser:
    found = parser((__doc__ or "").splitlines()[0])
    found.add_argument("--day", required=True, type=day_option, help="the scored day to explain: the day after that night's own --day")
    found.add_argument("--against", type=day_option, help="the scored day to compare with; the day before, if not given")
    found.add_argument("--of", help="a column of scores: expected_<head> (a sum), p_<head> or utility (means); expected_ of the first head")
    found.add_argument("--by", help="a string column of inventory, such as campaign_id: each of its values by itself")
    found.add_argument("--value", help="only the rows with this value of --by")
    found.add_argument("--order", choices=sorted(ORDERS), default="change", help="which values of --by come first")
    found.add_argument("--top", type=int, default=10, help="how many values of --by are shown")
    found.add_argument("--features", action="store_true", help="also what each feature is worth on both days, in the rows chosen")
    found.add_argument("--json", action="store_true", help="numbers for a program in place of text")
    return found


def require_columns(conf: Conf, asked: argparse.Namespace) -> None:
    """Fill in `of`, and refuse names that are no columns."""
    asked.of = asked.of or f"expected_{next(iter(conf.heads))}"
    can = [UTILITY, *(f"{kind}_{head}" for kind in ("p", "expected") for head in conf.heads)]
    if asked.of not in can:
        raise StageFailed(f"--of names {asked.of}; it may name {', '.join(can)}", USAGE)
    strings = [field.name for field in schemas.inventory(conf).columns if field.dataType == schemas.STRING]
    if asked.by is not None and asked.by not in strings:
        raise StageFailed(f"--by names {asked.by}; it may name {', '.join(strings)}", USAGE)
    if asked.against == asked.day:
        raise StageFailed(f"--against is --day, {asked.day}; name two days", USAGE)
    if asked.value is not None and asked.by is None:
        raise StageFailed("--value chooses rows by a column; name it with --by", USAGE)


def side_of(spark: SparkSession, conf: Conf, scored: date) -> Side:
    """By what the day was scored, as its rows of `scores` say."""
    rows = read_days(spark, conf.workdir, schemas.scores(conf), scored, scored)
    found = rows.select("model", "calibrator").distinct().collect()
    if not found:
        raise InputMissing(f"scores hold no rows of {scored}; run the night of {scored - ONE_DAY}, or name days that are scored")
    model, calibrator = found[0]["model"], found[0]["calibrator"]
    file = Path(conf.workdir) / calibrator_file(model, scored - ONE_DAY)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if fingerprint(text) != calibrator:
        raise StageFailed(f"{file} is not the calibrator that scored {scored}; run the night of {scored - ONE_DAY} again", SCORING)
    bundle = model_dir(conf, model)
    meta = read_meta(bundle)

    def under(calibrators: Sequence[str], values: Any) -> Any:
        return partial(under_calibrators, str(bundle), tuple(calibrators), values)

    return Side(scored, model, Template.model_validate(meta["template"]), meta["towers"], text, under)


def answer(spark: SparkSession, conf: Conf, sides: tuple[Side, Side], asked: argparse.Namespace) -> dict[str, Any]:
    weights = {name: head.utility_weight for name, head in conf.heads.items()}
    chosen = Chosen(asked.by, asked.value)
    sums = sums_of(spark, conf, sides, all_values([side.calibrator for side in sides]), chosen, say)
    if not sums.segments:
        which = f"with {asked.by} {asked.value}" if asked.value is not None else "at all"
        raise InputMissing(f"no inventory {which} on {sides[0].scored} or {sides[1].scored}")
    told = parted(sums, asked.of, weights)
    whole = parted(sums.together(), asked.of, weights)
    ranked = sorted(told, key=lambda one: (ORDERS[asked.order](one["after"] - one["before"]), one["segment"]))
    levels = [] if asked.of == UTILITY else levels_of(spark, conf, sides, asked.of.split("_", 1)[1], chosen)
    found = {
        "of": asked.of,
        "by": asked.by,
        "days": [side.scored.isoformat() for side in sides],
        "models": [side.model for side in sides],
        "levels": [level.of(None) for level in levels],
        "whole": whole[0] if whole and len(sums.segments) > 1 else None,
        "segments": [one | ({"levels": [level.of(one["segment"]) for level in levels]} if asked.by else {}) for one in ranked[: asked.top]],
        "shown_of": len(ranked),
        "on_one_day_only": len(sums.segments) - len(ranked),
    }
    say("holding both days' sums against the published scores")
    found["differs_from_published"] = differences(spark, conf, sides, sums, chosen)
    if asked.features:
        found["features"] = features_of(spark, conf, sides, weights, asked.of, chosen)
    return found


def parted(sums: Sums, of: str, weights: dict[str, float]) -> list[dict[str, Any]]:
    """Each segment's change and its parts; without those that have rows on one day alone, and so no mean to compare."""
    values, factors = sums.of(of, weights), sums.factors(of)
    parts = shapley(values, len(factors))
    before, after = values[(0,) * len(factors)], values[(1,) * len(factors)]
    return [
        {
            "segment": segment,
            "rows": [int(rows) for rows in sums.rows[:, place]],
            "impressions": [float(impressions) for impressions in sums.impressions[:, place]],
            "before": float(before[place]),
            "after": float(after[place]),
            "parts": {factor: float(part) for factor, part in zip(factors, parts[:, place], strict=True)},
        }
        for place, segment in enumerate(sums.segments)
        if np.isfinite(parts[:, place]).all()
    ]


def levels_of(spark: SparkSession, conf: Conf, sides: tuple[Side, Side], head: str, chosen: Chosen) -> list[Level]:
    """How right each day's model and calibrator were on that night's held-out day, in all and by segment.

    Without the days of which `served` has no rows of that model any more, and none where the head, the calibrator's features or the segments
    are not known of those rows.
    """
    say("counting what each day's model gave to its held-out day, and what was observed")
    examples, found = schemas.examples(conf), []
    for side in sides:
        night, calibrator = Night.of(side.scored - ONE_DAY, conf), Calibrator.from_json(side.calibrator)
        rows = read_days(spark, conf.workdir, schemas.served(conf), night.held_out, night.held_out).where(
            F.col("model") == F.lit(side.model)
        )
        if chosen.by is not None and chosen.by not in rows.columns:
            if chosen.by not in {field.name for field in examples.columns}:
                continue
            shown = read_days(spark, conf.workdir, examples, night.held_out, night.held_out).select("impression_id", chosen.by)
            rows = rows.join(shown, on="impression_id", how="inner")
        if head not in calibrator.heads or not set(calibrator.values) <= set(rows.columns):
            continue
        sums = level_sums(rows, head, conf.heads, calibrator.by_cell, chosen.segment)
        if len(sums):
            found.append(Level(side.scored, night.held_out, sums))
    return found


@dataclass(frozen=True)
class Level:
    """Of the model that scored `scored`, on the held-out day `measured`. `sums`: as etl/levels.py gives them."""

    scored: date
    measured: date
    sums: pd.DataFrame

    def of(self, segment: str | None) -> dict[str, Any]:
        """Of one segment, or of all rows; zeros where it had none."""
        counted = self.sums.sum() if segment is None else self.sums.reindex([segment]).fillna(0.0).iloc[0]
        named = {"scored": self.scored.isoformat(), "measured": self.measured.isoformat()}
        return named | {"rows": int(counted["rows"]), "predicted": float(counted["predicted"]), "observed": int(counted["observed"])}


def differences(spark: SparkSession, conf: Conf, sides: tuple[Side, Side], sums: Sums, chosen: Chosen) -> list[float]:
    """How far each day's sums of probabilities, made again, are from those published, as a share of these; the largest of any segment and head."""
    published = published_sums(spark, conf, [side.scored for side in sides], chosen)
    found = []
    for which, side in enumerate(sides):
        index = pd.MultiIndex.from_product([[side.scored], sums.segments])
        wanted = published.reindex(index).fillna(0.0)[sums.heads].to_numpy()
        apart = np.abs(sums.probability[which, which, which, which] - wanted)
        found.append(float((apart / np.maximum(wanted, 1e-12)).max(initial=0.0, where=apart > 0)))
    return found


def features_of(
    spark: SparkSession, conf: Conf, sides: tuple[Side, Side], weights: dict[str, float], of: str, chosen: Chosen
) -> list[dict[str, Any]]:
    """What the mean would be without each feature, of all chosen rows together, on both days; None where a day's model has no such feature, NaN on a
    day without rows."""
    means: list[dict[tuple[str, str], list[float]]] = []
    for side in sides:
        say(f"leaving out each feature of model {side.model} in turn, on {side.scored}")
        features = [feature for feature in side.template.features if feature.family != "serving"]
        values = all_values([side.calibrator])
        numbers = partial(without_each, str(model_dir(conf, side.model)), side.calibrator, values, features)
        mean = mean_of(of, feature_means(spark, conf, side, numbers, values, len(features), chosen, of), weights)
        means.append({(one.column, one.family): [float(mean[0]), float(mean[1 + place])] for place, one in enumerate(features)})
    found = [
        {"feature": feature, "family": family, "days": [of_day.get((feature, family)) for of_day in means]}
        for feature, family in dict.fromkeys([*means[1], *means[0]])
    ]
    return sorted(found, key=lambda row: -max(np.nan_to_num(abs(day[0] - day[1])) for day in row["days"] if day))


if __name__ == "__main__":
    main(explain)
