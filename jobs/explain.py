"""Why did a score change? The parts that the model, its calibrator, the features and the inventory have in a change between two scored days.

python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17                                  # all rows, against the day before
python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17 --by campaign_id --order falls   # the campaigns that fell most
python jobs/explain.py --conf-file conf/demo.yaml --day 2026-05-17 --by campaign_id --value c12 --features

Days are those scored. The inventory of both days is scored again under every mixture of the two days' models, calibrators, features and
inventories (etl/explanation.py), and the change parted by Shapley values. `--features`: also what each feature is worth on the later day, by
leaving it out. The published scores of both days must come out again; where they do not, the answer says by how much.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from conf.schema import Conf
from conf.template import Template
from etl import schemas
from etl.explanation import FACTORS, Chosen, Side, Sums, feature_means, mean_of, published_sums, sums_of
from etl.landing import InputMissing
from etl.registry import calibrator_file, model_dir
from etl.runs import fingerprint
from etl.session import start
from etl.splits import ONE_DAY
from etl.tables import read_days
from etl.utility import UTILITY
from jobs.common import DONE, SCORING, USAGE, StageFailed, conf_of, day_option, main, parser
from models.bundle import read_meta
from models.counterfactual import all_values, under_calibrators, without_each
from models.shapley import shapley

SAME = 1e-6  # published scores are float64, but batches of other sizes round otherwise
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
    found.add_argument("--day", required=True, type=day_option, help="the scored day to explain")
    found.add_argument("--against", type=day_option, help="the scored day to compare with; the day before, if not given")
    found.add_argument("--of", help="a column of scores: expected_<head> (a sum), p_<head> or utility (means); expected_ of the first head")
    found.add_argument("--by", help="a string column of inventory, such as campaign_id: each of its values by itself")
    found.add_argument("--value", help="only the rows with this value of --by")
    found.add_argument("--order", choices=sorted(ORDERS), default="change", help="which values of --by come first")
    found.add_argument("--top", type=int, default=10, help="how many values of --by are shown")
    found.add_argument("--features", action="store_true", help="also what each feature is worth on --day, in the rows chosen")
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
    sums = sums_of(spark, conf, sides, all_values([side.calibrator for side in sides]), chosen)
    if not sums.segments:
        which = f"with {asked.by} {asked.value}" if asked.value is not None else "at all"
        raise InputMissing(f"no inventory {which} on {sides[0].scored} or {sides[1].scored}")
    values = sums.of(asked.of, weights)
    parts = shapley(values, len(FACTORS))
    before, after = values[0, 0, 0, 0], values[1, 1, 1, 1]
    place = {segment: number for number, segment in enumerate(sums.segments)}
    on_both = [segment for segment in sums.segments if np.isfinite(parts[:, place[segment]]).all()]
    ranked = sorted(on_both, key=lambda segment: (ORDERS[asked.order](after[place[segment]] - before[place[segment]]), segment))
    told = {
        "of": asked.of,
        "by": asked.by,
        "days": [side.scored.isoformat() for side in sides],
        "models": [side.model for side in sides],
        "segments": [
            {
                "segment": segment,
                "rows": [int(rows) for rows in sums.rows[:, place[segment]]],
                "before": float(before[place[segment]]),
                "after": float(after[place[segment]]),
                "parts": {factor: float(part) for factor, part in zip(FACTORS, parts[:, place[segment]], strict=True)},
            }
            for segment in ranked[: asked.top]
        ],
        "shown_of": len(ranked),
        "on_one_day_only": len(sums.segments) - len(ranked),
        "differs_from_published": differences(spark, conf, sides, sums, chosen),
    }
    if asked.features:
        told["features"] = features_of(spark, conf, sides[1], weights, asked.of, chosen)
    return told


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


def features_of(spark: SparkSession, conf: Conf, side: Side, weights: dict[str, float], of: str, chosen: Chosen) -> list[dict[str, Any]]:
    """What the mean would be without each feature; of all chosen rows together."""
    features = [feature for feature in side.template.features if feature.family != "serving"]
    values = all_values([side.calibrator])
    numbers = partial(without_each, str(model_dir(conf, side.model)), side.calibrator, values, features)
    mean = mean_of(of, feature_means(spark, conf, side, numbers, values, len(features), chosen, of), weights)
    found = [
        {"feature": feature.column, "family": feature.family, "mean": float(mean[0]), "without": float(mean[1 + number])}
        for number, feature in enumerate(features)
    ]
    return sorted(found, key=lambda row: -abs(row["mean"] - row["without"]))


def lines_of(told: dict[str, Any]) -> list[str]:
    """The answer as a person reads it."""
    (first, last), by = told["days"], told["by"] or "rows"
    lines = [f"{told['of']} of {last} against {first}, models {' and '.join(told['models'])}"]
    for segment in told["segments"]:
        before, after = segment["before"], segment["after"]
        rows = " -> ".join(f"{count:,}" for count in segment["rows"])
        lines += [
            "",
            f"{by} {segment['segment']}: {before:,.6g} -> {after:,.6g} ({after - before:+,.4g}{_share(before, after)}); rows {rows}",
        ]
        lines += [f"    {factor:<12}{part:+14,.4g}" for factor, part in sorted(segment["parts"].items(), key=lambda pair: -abs(pair[1]))]
    if told["shown_of"] > len(told["segments"]):
        lines += ["", f"{len(told['segments'])} of {told['shown_of']:,} shown; --top shows more, --value one"]
    if told["on_one_day_only"]:
        lines += ["", f"{told['on_one_day_only']:,} have rows on one of the days alone, and so no mean to compare"]
    if "features" in told:
        lines += ["", f"What each feature is worth on {last}: the mean if it were not known"]
        lines += [
            f"    {row['feature']:<28}{row['family']:<9}{row['mean']:.4g} -> {row['without']:.4g}{_share(row['mean'], row['without'])}"
            for row in told["features"]
        ]
    for day, differs in zip(told["days"], told["differs_from_published"], strict=True):
        if differs > SAME:
            lines += [
                "",
                f"Beware: the published scores of {day} do not come out again, by up to {differs:.2%}: its tables have changed since.",
            ]
    return lines


def _share(before: float, after: float) -> str:
    """By how much it changed, as a share of what it was."""
    return f", {(after - before) / abs(before):+.1%}" if before else ""


if __name__ == "__main__":
    main(explain)
