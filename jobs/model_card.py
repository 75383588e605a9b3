"""The model card of a night: gathers what ledger, registry and tables hold of the model that serves, and writes it beside its bundle.

Part of the report stage, which alone knows all of it and is done anew by every run.
"""

from __future__ import annotations

import json
import os
import re
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from etl.registry import card_file
from etl.schemas import MODELS
from etl.tables import read
from jobs.common import Run, write_whole
from jobs.contenders import Contender
from validation.model_card import as_json, as_markdown, intended_use, limits_of, metrics_of
from validation.report import ReportData


def write_card(run: Run, serves: Contender, data: ReportData) -> str:
    """Write the card as JSON and Markdown; its link from the report, without an ending. `data`: what the report shows, of the same model."""
    text = as_json(card_of(run, serves, data))
    file = Path(run.conf.workdir).resolve() / card_file(serves.model, run.night.day)
    write_whole(file.with_suffix(".json"), text)
    write_whole(file.with_suffix(".md"), as_markdown(json.loads(text)))
    return os.path.relpath(file, run.run_dir)


def card_of(run: Run, serves: Contender, data: ReportData) -> dict[str, Any]:
    conf, night, row, made = run.conf, run.night, registered_row(run, serves.model), trained(run, serves.model)
    comparison = json.loads(row["comparison"] or "{}")
    return {
        "model": serves.model,
        "name": conf.name,
        "night": night.day.isoformat(),
        "simulated": data.simulated,
        "intended_use": intended_use(conf),
        "limits": limits_of(conf, data.notes, data.metrics, data.segments, comparison),
        "data": {
            **{name: row[name] for name in ("parent", "trained_from", "trained_to", "examples_version")},
            "examples": examples_of(run, row["trained_from"], row["trained_to"]),
            "calibrated_from": serves.fit_from(run),
            "calibrated_to": night.calibrate_to,
            "held_out": night.held_out,
            "scored": night.scored,
        },
        "code": {name: made.get(key, "not recorded") for name, key in (("distribution", "distribution"), ("hash", "code"))},
        "training": {name: made[name] for name in ("rows", "epochs", "loss", "ranks", "seconds", "rows_per_second") if name in made},
        "verdict": {**{name: row[name] for name in ("verdict", "reason", "production")}, "night": row["day"], "comparison": comparison},
        "metrics": metrics_of(data.metrics),
        "calibrator": data.calibrator,
        "configuration": without_credentials(conf.model_dump(mode="json")),
    }


def without_credentials(conf: dict[str, Any]) -> dict[str, Any]:
    """The address of a tracking server may name a user and a password."""
    tracking = conf["tracking"]
    return conf | {"tracking": tracking | {"mlflow_uri": re.sub(r"//[^/@]*@", "//", tracking["mlflow_uri"] or "")}}


def registered_row(run: Run, model: str) -> dict[str, Any]:
    """What the registry says of it: tonight's word where it is the candidate, else that of the first night on which it was."""
    rows = read(run.spark, run.conf.workdir, MODELS).where(F.col("model") == model)
    row = rows.orderBy(F.col("day") != F.lit(run.night.day), "day").first()
    assert row is not None, f"model {model} serves and is not registered"
    return row.asDict()


def trained(run: Run, model: str) -> dict[str, Any]:
    """What was counted as the model was trained."""
    made = [record.counts for record in run.ledger.done if record.stage == "train" and record.counts.get("model") == model]
    return made[-1] if made else {}


def examples_of(run: Run, first: date, last: date) -> dict[str, str]:
    """Day -> rows and content hash of the examples, as they were recorded when last built."""
    prefix, found = "examples/", {}
    for record in run.ledger.done:
        for name, content in record.outputs.items():
            if name.startswith(prefix) and first.isoformat() <= name.removeprefix(prefix) <= last.isoformat():
                found[name.removeprefix(prefix)] = content
    return dict(sorted(found.items()))
