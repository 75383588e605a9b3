"""The held-out day by candidate and production, before and after calibration. A stage of jobs/nightly.py.

-> `metrics`, `calibration_daily` (reliability diagrams) and `calibration_segments`. A child head stands for p(child | parent), on rows whose
parent's label is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial, reduce
from typing import Any, cast

import pandas as pd
from pyspark.sql import DataFrame

from conf.schema import Conf
from etl import schemas
from etl.calibrated import STAGES, in_both_stages
from etl.calibration_stats import binned
from etl.grouped import KEYS, user_sums
from etl.registry import calibrator_file
from etl.schemas import ALL, CALIBRATION_DAILY, CALIBRATION_SEGMENTS, METRICS
from etl.segments import AD, ADVERTISER, EXPLORED, HOUR, closed_lists, segment_sums, with_common_segments
from etl.session import side_by_side
from etl.tables import frame_of, overwrite_days, read_days
from jobs.calibrate import served_by
from jobs.common import Outcome, Run, Stage
from jobs.contenders import candidate, contenders
from jobs.gate import judged_alone, of_this_night
from models import metrics
from models.metrics import Bins, GroupedAuc, grouped_auc


def inputs(run: Run) -> dict[str, str]:
    held_out = run.night.held_out
    found: dict[str, str] = {}
    for one in contenders(run):
        found |= run.contents.of_days("served", held_out, held_out, one.model) | run.contents.of_file(
            calibrator_file(one.model, run.night.day)
        )
    return found | run.contents.of_days("examples", run.night.train_from, held_out)


def work(run: Run) -> Outcome:
    conf, day, held_out, groups = run.conf, run.night.day, run.night.held_out, run.conf.calibration.ece_bins
    stamp = {"measured_day": held_out, "run_id": run.run_id, "day": day}
    found, diagram, segments = [], [], []
    rows = staged(run).persist()
    try:
        counted, by_user, sums = side_by_side(
            lambda ask: ask(),
            (
                partial(binned, rows, conf.heads, by=("model", "stage", "tower", "source")),
                partial(user_sums, rows, conf.heads, grouped_auc),
                partial(segments_of, run, rows),
            ),
        )
    finally:
        rows.unpersist()
    for one in contenders(run):
        own = stamp | {"model": one.model}
        counted_of, by_user_of, sums_of = (frame[frame["model"] == one.model] for frame in (counted, by_user, sums))
        found += [own | row for row in metric_rows(counted_of, by_user_of, groups)]
        diagram += [own | row for row in reliability_rows(counted_of, groups)]
        segments += [own | row for row in segment_rows(sums_of)]
    for table, made in ((METRICS, found), (CALIBRATION_DAILY, diagram), (CALIBRATION_SEGMENTS, segments)):
        overwrite_days(frame_of(run.spark, made, table), conf.workdir, table, day, day)
    written = (METRICS, CALIBRATION_DAILY, *([CALIBRATION_SEGMENTS] if segments else []))
    judged = judged_alone(run, *(of_this_night(run, table) for table in written))
    newest = [row for row in found if row["model"] == candidate(run).model]
    overall = {row["head"]: row for row in newest if row["stage"] == "calibrated" and row["source"] == row["tower"] == ALL}
    told = ", ".join(
        f"{head} NE {row['ne']:.3f} AUC {row['auc']:.3f}"
        for head, row in overall.items()
        if row["ne"] is not None and row["auc"] is not None
    )
    counts = {**judged, "overall": {head: figures_of(row) for head, row in overall.items()}}
    return Outcome(tuple(f"{table.name}/{day}" for table in written), counts, f"held-out {held_out}: {told or 'no head has both classes'}")


def figures_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {"normalized_entropy": row["ne"], "auc": row["auc"], "predicted_over_observed": row["ratio"]}


def staged(run: Run) -> DataFrame:
    """What each contender gave to M, before and after its calibrator of this night."""
    heads, held_out = run.conf.heads, run.night.held_out
    parts = (in_both_stages(served_by(run, one.model, held_out, held_out), heads, one.calibrator(run).by_cell) for one in contenders(run))
    return reduce(DataFrame.unionByName, parts)


def slices(counted: pd.DataFrame) -> Iterator[tuple[dict[str, str], Bins]]:
    """(head, source, tower and stage, bins): of everything, of each source, of each tower, before and after calibration."""
    for head, rows in counted.groupby("head", sort=False):
        parts = [(ALL, ALL, rows)]
        parts += [(str(source), ALL, part) for source, part in rows.groupby("source")]
        parts += [(ALL, str(tower), part) for tower, part in rows.groupby("tower")]
        for source, tower, part in parts:
            for stage in STAGES:
                of = part[part["stage"] == stage]
                bins = Bins.of((of["z_sum"] / of["rows"]).to_numpy(), of["rows"].to_numpy(), of["positives"].to_numpy())
                yield {"head": str(head), "source": source, "tower": tower, "stage": stage}, bins


def metric_rows(counted: pd.DataFrame, by_user: pd.DataFrame, groups: int) -> Iterator[dict[str, Any]]:
    """`counted`, `by_user`: one model's."""
    within = {tuple(row[1 : len(KEYS)]): GroupedAuc(*row[len(KEYS) :]).value for row in by_user.itertuples(index=False)}
    for names, bins in slices(counted):
        gauc, limits = within.get(tuple(names[key] for key in KEYS[1:])), metrics.ece_interval(bins, groups)
        yield {
            **names,
            "rows": int(bins.rows.sum()),
            "positives": int(bins.positives.sum()),
            "predicted": metrics.predicted(bins),
            "ratio": metrics.ratio(bins),
            "top_ratio": metrics.ratio(metrics.at_the_top(bins)),
            "ne": metrics.normalized_entropy(bins),
            "auc": metrics.auc(bins),
            "gauc": None if gauc is None else round(gauc, 9),
            "brier": metrics.brier(bins),
            "ece": metrics.ece_equal_mass(bins, groups),
            **({f"ece_{name}": value for name, value in limits._asdict().items()} if limits else {}),
        }


def reliability_rows(counted: pd.DataFrame, groups: int) -> Iterator[dict[str, Any]]:
    for names, bins in slices(counted):
        if names["tower"] == ALL:
            continue
        diagram = metrics.reliability(bins, groups)
        for place, (count, predicted, observed) in enumerate(zip(*diagram, strict=True)):
            yield {
                "head": names["head"],
                "tower": names["tower"],
                "stage": names["stage"],
                "bin": place,
                "rows": int(count),
                "predicted": float(predicted),
                "observed": float(observed),
            }


def segments_of(run: Run, rows: DataFrame) -> pd.DataFrame:
    """Sums by model and segment of the held-out day."""
    conf, night, table = run.conf, run.night, schemas.examples(run.conf)
    examples = read_days(run.spark, conf.workdir, table, night.held_out, night.held_out)
    earlier = read_days(run.spark, conf.workdir, table, night.train_from, night.calibrate_to)
    columns = [*closed_lists(conf.template), HOUR, ADVERTISER, AD, *([EXPLORED] if tells_explored(conf) else [])]
    return segment_sums(rows, with_common_segments(examples, earlier), conf.heads, columns)


def tells_explored(conf: Conf) -> bool:
    """Whether some source says which impressions were drawn to explore."""
    return any("explored" in source.columns for source in conf.sources.values())


def segment_rows(sums: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One model's segments, each with its ratio and what chance makes of that, at 95% for all of them together."""
    confidence = 1 - 0.05 / max(len(sums), 1)
    for row in cast(list[dict[str, Any]], sums.to_dict("records")):
        limits = {}
        if row["positives"]:
            ratio, (least, most) = row["predicted"] / row["positives"], metrics.poisson_interval(row["positives"], confidence)
            limits = {"ratio": ratio, "ratio_low": ratio * least, "ratio_high": ratio * most}
        yield {**row, **limits}


STAGE = Stage(
    name="evaluate",
    packages=("etl", "models", "validation"),
    reads=lambda conf: conf.model_dump(mode="json", include={"heads", "calibration", "template"}) | {"explored": tells_explored(conf)},
    inputs=inputs,
    work=work,
)
