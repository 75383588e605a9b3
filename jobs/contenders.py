"""The models of a night: the candidate that it trained, the model in production as it began, and which of them serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

from conf.template import Template
from etl import schemas
from etl.registry import Registered, calibrator_file, model_dir, published_before
from jobs.common import NotYet, Run
from models.bundle import read_meta
from models.calibration import Calibrator


@dataclass(frozen=True)
class Contender:
    """A model, and the last day it was trained on."""

    model: str
    trained_to: date

    @staticmethod
    def of(registered: Registered) -> Contender:
        return Contender(registered.model, registered.trained_to)

    def fit_from(self, run: Run) -> date:
        """First of the days that fit its calibrator."""
        return run.night.fit_from(self.trained_to, run.conf.calibration.fit_days)

    def bundle(self, run: Run) -> Path:
        return model_dir(run.conf, self.model)

    def calibrator(self, run: Run) -> Calibrator:
        """The one that this night fitted."""
        return Calibrator.from_json(self.calibrator_text(run))

    def calibrator_text(self, run: Run) -> str:
        return (Path(run.conf.workdir) / calibrator_file(self.model, run.night.day)).read_text(encoding="utf-8")


def candidate(run: Run) -> Contender:
    """NotYet where this night has no model."""
    made = run.counts_of("train")
    if not made:
        raise NotYet("no model yet")
    return Contender(made["model"], date.fromisoformat(made["trained_to"]))


@dataclass(frozen=True)
class Production:
    """The model that was current when the night began, or why there is none to compare with and to fall back on."""

    model: Contender | None
    missing: str = ""


def production(run: Run) -> Production:
    """Looked up once a run: what earlier nights published does not change while this one goes on."""
    if run.production is None:
        run.production = _production(run)
    return cast(Production, run.production)


def _production(run: Run) -> Production:
    published = published_before(run.spark, run.conf, run.night.day)
    if published is None:
        return Production(None, "no model was published before")
    lacking = cannot_serve(published, run)
    return Production(None, f"{published.model}, published before, {lacking}") if lacking else Production(Contender.of(published))


def cannot_serve(model: Registered, run: Run) -> str:
    """Why a model cannot serve this night under its configuration, in words; empty where it can."""
    conf, bundle = run.conf, model_dir(run.conf, model.model)
    if not (bundle / "bundle.json").is_file():
        return f"has no bundle at {bundle}"
    if model.trained_to >= run.night.calibrate_to:
        return f"was trained up to {model.trained_to}, and the days that fit and judge it tonight end on {run.night.held_out}"
    meta = read_meta(bundle)
    if list(meta["heads"]) != list(conf.heads):
        return f"has heads {', '.join(meta['heads'])}, and the configuration {', '.join(conf.heads)}"
    columns = {field.name for field in schemas.examples(conf).columns}
    gone = sorted({feature.column for feature in Template.model_validate(meta["template"]).features} - columns)
    return f"reads {', '.join(gone)}, which the configuration no longer has" if gone else ""


def contenders(run: Run) -> list[Contender]:
    """The candidate, then production."""
    beside = production(run).model
    return [candidate(run), *([beside] if beside else [])]


def serving(run: Run) -> Contender:
    """The model that serves since this night; NotYet where none does."""
    decided = run.counts_of("publish_model")
    if not decided.get("serves"):
        raise NotYet("no model serves")
    return Contender(decided["serves"], date.fromisoformat(decided["trained_to"]))
