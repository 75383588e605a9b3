"""A night with made-up numbers, every section filled, for the tests of the report."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any

from etl.splits import ONE_DAY
from validation.drift import Shift
from validation.findings import Finding
from validation.queries import Asked, queries
from validation.report import ReportData, Scores, Training

HEADS, TOWERS = ("click", "good_click", "save"), ("shopping", "standard", "video")
DAY = date(2026, 5, 16)


def made_up_night(**changed: Any) -> ReportData:
    """Three heads, three towers; `save` in video has too few positives; one warning of the gate."""
    given: dict[str, Any] = {
        "name": "demo",
        "status": "Done in 4 min 12 s: the scores of 2026-05-17 are published.",
        "level": "good",
        "simulated": True,
        "run_id": "2026-05-16-3f9c",
        "day": "2026-05-16",
        "as_of": "2026-05-17 00:00",
        "held_out": "2026-05-13",
        "notes": ["save in video: the calibrator is the identity because 23 positives are fewer than 200."],
        "stages": [
            {
                "stage": "ingest",
                "status": "done",
                "seconds": 41.2,
                "message": "61,230 rows kept, 605 duplicates, 17 quarantined",
                "why": "",
            },
            {"stage": "gate", "status": "done", "seconds": 3.1, "message": "96 of 97 expectations hold, 1 warnings", "why": ""},
            {"stage": "train", "status": "skipped", "seconds": 0.1, "message": "inputs, configuration and code are unchanged", "why": ""},
            {
                "stage": "score",
                "status": "done",
                "seconds": 135.0,
                "message": "60,000 rows scored",
                "why": "configuration changed: heads.save.utility_weight was 2.0, is 3.0, since 2026-05-17 01:12 UTC",
            },
        ],
        "account": [
            account_row(block, day) for block in ("standard_impressions", "video_engagements") for day in ("2026-05-15", "2026-05-16")
        ],
        "findings": [
            asdict(finding())
            | {
                "expectation": "missing_age",
                "column": "age",
                "severity": "warning",
                "success": False,
                "observed": "0.93 on 2026-05-14",
                "unit": "days",
                "unexpected": 1,
            },
            asdict(finding()),
            asdict(Finding("columns", "(all)", "critical", True, "as needed", "19 columns in the order of etl/schemas.py", 0, "columns")),
        ],
        "docs": {"gate": "data_docs/index.html"},
        "training": Training(
            "9b1d4c", "77aa01", "2026-05-11", "2026-05-11", 60_012, 12.4, 4_840, 2, {"click": 0.1412, "good_click": 0.5713, "save": 0.0488}
        ),
        "fit_days": "2026-05-12 to 2026-05-12",
        "calibrator": {head: {tower: cell(head, tower) for tower in TOWERS} for head in HEADS},
        "min_positives": 200,
        "metrics": [row for head in HEADS for row in metric_rows(head)],
        "reliability": [row for head in HEADS for tower in TOWERS for row in bins(head, tower)],
        "shown": "9b1d4c",
        "decision": {
            **{
                "verdict": "publish",
                "reason": "normalised entropy of all cells together -0.21%",
                "production": "77aa01",
                "serves": "9b1d4c",
            },
            **{"judged": 2, "whole": compared("(all)", "(all)"), "cells": [compared("click", tower) for tower in TOWERS]},
        },
        "judged_positives": 100,
        "segments": [segment("US", 300, 420.0), segment("BR", 250, 255.0), segment("AT", 0, 2.0)],
        "scores": Scores(
            "2026-05-17",
            "work/tables/scores",
            {"standard": 36_000, "shopping": 18_000, "video": 6_000},
            {"click": 0.0312, "save": 0.00042},
            (-0.0121, 0.3344),
            *(0.9871, 0.75, 600),
            quantiles={head: {source: [0.001, 0.03, 0.2] for source in ("standard", "shopping")} for head in ("click", "save")},
        ),
        "queries": queries(Asked("work", "2026-05-16-3f9c", DAY, DAY + ONE_DAY, "9b1d4c", HEADS)),
        "usual": [{"stage": "ingest", "times": 12, "seconds": 38.5}, {"stage": "score", "times": 12, "seconds": 61.0}],
        "nights": [served_night(head, number) for number in range(12) for head in HEADS],
        "histogram": [
            {"source": source, "head": head, "bin": place, "rows": 1_000 * (4 - abs(place + 8))}
            for head in ("click", "save")
            for source in ("shopping", "standard")
            for place in range(-11, -4)
        ],
        "movers": [mover("c346", 10.49, 0.28, 215, 4), mover("c437", 20.0, 26.39, 1_669, 1_681)],
        "feature_shifts": [Shift("device", "2026-05-16", 0.31, 0.05, 9, 60_000), Shift("age", "2026-05-16", 0.02, None, 1, 60_000)],
        "score_shifts": [Shift("click", "2026-05-17", 0.012, 0.04, 5, 60_000)],
        "max_psi": 0.25,
        "min_psi_rows": 1_000,
        "calibrator_file": "../../models/9b1d4c/calibrators/2026-05-16.json",
        "card": "../../models/9b1d4c/cards/2026-05-16",
    }
    return ReportData(**{**given, **changed})


def served_night(head: str, number: int) -> dict[str, Any]:
    """A line of the last nights, of a model that gets slowly worse."""
    day, drift = DAY - (11 - number) * ONE_DAY, 0.002 * number
    figures = {"rows": 60_000, "positives": 1_204, "ratio": 1.05 - drift, "ne": 0.85 + drift, "auc": 0.74 - drift}
    return {"day": day, "head": head, "model": "9b1d4c", **figures}


def mover(campaign: str, before: float, after: float, *impressions: int) -> dict[str, Any]:
    counts = dict(zip(("impressions_before", "impressions_after"), impressions, strict=True))
    return {"head": "click", "since": DAY, "campaign_id": campaign, "before": before, "after": after, "change": after - before, **counts}


def compared(head: str, tower: str) -> dict[str, Any]:
    """A cell of the comparison, as models/verdict.py writes it; video has too few positives to judge."""
    whole = head == "(all)"
    return {
        **{"head": head, "tower": tower, "rows": 9_000, "positives": 40 if tower == "video" else 400, "users": 3_123, "refuses": []},
        **{"ne_rise": [-0.0021, -0.0118, 0.0075], "auc_change": None if whole else [0.01, -0.02, 0.04]},
        **{"ratio": None if whole else [1.031, 0.91, 1.17], "production_ratio": None if whole else 0.98, "shift": None if whole else 0.013},
    }


def segment(country: str, positives: int, predicted: float) -> dict[str, Any]:
    """A segment of `calibration_segments`, whose interval is a quarter wide either way."""
    ratio = predicted / positives if positives else None
    return {
        **{"head": "click", "tower": "standard", "by": "country", "value": country, "rows": 9_000, "positives": positives},
        **{"predicted_raw": predicted + 30, "predicted": predicted, "ratio": ratio},
        **{"ratio_low": ratio and ratio * 0.8, "ratio_high": ratio and ratio * 1.25},
    }


def finding(**changed: Any) -> Finding:
    given: dict[str, Any] = {
        "expectation": "bid_not_negative",
        "column": "bid_micros",
        "severity": "critical",
        "success": True,
        "observed": "0 on each of 4 days",
        "needed": "0 rows a day",
        "unexpected": 0,
    }
    return Finding(**{**given, **changed})


def account_row(block: str, day: str, **changed: int) -> dict[str, Any]:
    counts = {"rows_in": 1_000, "kept": 980, "duplicates": 15, "quarantined": 5, "late": 1, "not_due": 40, "other_day": 0}
    return {"block": block, "source": block.split("_")[0], "day": day, **counts, **changed}


def cell(head: str, tower: str) -> dict[str, Any]:
    if head == "save" and tower == "video":
        return {
            "method": "identity",
            "b0": 0.0,
            "b1": 0.0,
            "positives": 23,
            "rows": 6_001,
            "reason": "23 positives, fewer than calibration.min_positives 200",
        }
    return {"method": "platt", "b0": -0.081, "b1": 0.034, "positives": 1_204, "rows": 36_021, "reason": "enough positives"}


def metric_rows(head: str) -> list[dict[str, Any]]:
    slices = [("(all)", "(all)"), *((tower, "(all)") for tower in TOWERS), *(("(all)", tower) for tower in TOWERS)]
    rows = []
    for source, tower in slices:
        few = head == "save" and "video" in (source, tower)
        for stage, ratio, ne in (("raw", 1.182, 0.861), ("calibrated", 1.013, 0.853)):
            fixed = {"head": head, "source": source, "tower": tower, "stage": stage, "rows": 6_001 if few else 36_021}
            rows.append(
                {
                    **fixed,
                    "positives": 21 if few else 1_204,
                    "ratio": ratio,
                    "top_ratio": None if few else 1.027,
                    "ne": ne,
                    "auc": None if few else 0.7412,
                    "gauc": None if few else 0.6543,
                    "ece": 0.0031,
                    "ece_chance": 0.0029,
                }
            )
    return rows


def bins(head: str, tower: str) -> list[dict[str, Any]]:
    """Fifteen bins whose observed share grows with the prediction; before calibration predictions are a fifth too high."""
    rows = []
    level = {"click": 0.06, "good_click": 0.4, "save": 0.004}[head] / 8
    for number in range(15):
        observed = level * (number + 1) * (1.15 if number % 2 else 0.9)
        for stage, predicted in (("raw", level * (number + 1) * 1.2), ("calibrated", level * (number + 1))):
            rows.append(
                {"head": head, "tower": tower, "stage": stage, "bin": number, "rows": 2_400, "predicted": predicted, "observed": observed}
            )
    return rows
