"""What jobs/compare.py lays side by side: models that answer the same question, each as views of the rows and models trained on them.

An arm is one or several parts; a part is a model of a view, and answers for some heads and towers. `towers` is the configuration as it is; the
paradox of the published system (one model for all sources loses to one a source, unless each has a tower) is between it and the next three:

  towers          one model with a tower a source
  merged          one model of one tower, which reads the row's tower as a feature
  merged_large    the same with at least as many parameters as `towers` (models/trial.py widens it)
  separate        a model for each tower, of its rows alone
  merged_blind    `merged` without that feature; beating it proves little
  single_task     a model for each head, with towers
  plain           `towers` whose towers share nothing above the bottom
  without_<g>     `towers` without a group of features: a family, a key of history, a summarization group (--ablate)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from conf.schema import Conf, Head
from conf.template import Feature, Template
from conf.training import ModelConf

#: The column in which a merged model reads a row's tower, and the name of its one tower.
TOWER_FEATURE, ALL_TOWERS = "tower_feature", "all"
PARADOX = ("towers", "merged", "merged_large", "separate", "merged_blind")
KNOWN = (*PARADOX, "single_task", "plain")
#: Parts of the rows: to learn from, to choose settings by, both, and to be judged on.
Which = Literal["learn", "validate", "both", "test"]


@dataclass(frozen=True)
class View:
    """Rows as a model reads them. `only`: rows of that tower alone; `merged`: all rows in one tower; `heads` without parents they lack."""

    name: str
    template: Template
    heads: dict[str, Head]
    only: str | None = None
    merged: bool = False


@dataclass(frozen=True)
class Part:
    """A model of `view`; answers for all its heads, on rows of `view.only` or of every tower. `as_large_as`: widened to its parameters."""

    view: View
    model: ModelConf
    as_large_as: Part | None = None


@dataclass(frozen=True)
class Arm:
    name: str
    parts: tuple[Part, ...]


def arm(conf: Conf, name: str, towers: Sequence[str]) -> Arm:
    """The arm of that name; `towers`: those of the rows. KeyError where no arm is called so."""
    whole = Part(View("own", conf.template, conf.heads), conf.model)
    alone = conf.model.model_copy(update={"towers": "plain"})  # of one tower, which has nobody to share with
    merged = Part(View("merged", _with_tower(conf.template, towers), conf.heads, merged=True), alone)
    if name.startswith("without_"):
        kept = _without(conf.template, groups(conf)[name.removeprefix("without_")])
        return Arm(name, (Part(View(name, kept, conf.heads), conf.model),))
    parts: dict[str, tuple[Part, ...]] = {
        "towers": (whole,),
        "merged": (merged,),
        "merged_large": (Part(merged.view, merged.model, as_large_as=whole),),
        "merged_blind": (Part(View("merged_blind", conf.template, conf.heads, merged=True), alone),),
        "separate": tuple(Part(View(f"only_{tower}", conf.template, conf.heads, only=tower), alone) for tower in towers),
        "single_task": tuple(Part(_of_head(conf, head), conf.model.model_copy(update={"private_layers": {}})) for head in conf.heads),
        "plain": (Part(whole.view, alone),),
    }
    return Arm(name, parts[name])


def groups(conf: Conf) -> dict[str, tuple[str, ...]]:
    """Groups of features that --ablate takes out: name -> columns. One that is the whole template is none."""
    found: dict[str, list[str]] = {}
    for feature in conf.template.features:
        for name in _groups_of(conf, feature):
            found.setdefault(name, []).append(feature.column)
    every = len(conf.template.features)
    return {name: tuple(columns) for name, columns in found.items() if len(columns) < every}


def _groups_of(conf: Conf, feature: Feature) -> Iterator[str]:
    if feature.family != "serving":
        yield feature.family
    if feature.family == "history":
        keys = [key for key in conf.history.keys if feature.column.startswith(f"{key}_")]
        yield f"history_{max(keys, key=len)}"
    if feature.group:
        yield feature.group
    if feature.type == "hashed" and feature.column.endswith("_id"):
        yield feature.column


def _without(template: Template, columns: Sequence[str]) -> Template:
    return template.model_copy(update={"features": tuple(feature for feature in template.features if feature.column not in columns)})


def _with_tower(template: Template, towers: Sequence[str]) -> Template:
    feature = Feature(column=TOWER_FEATURE, family="context", type="one_hot", vocabulary=tuple(towers), reason="the row's tower")
    return template.model_copy(update={"features": (*template.features, feature)})


def _of_head(conf: Conf, name: str) -> View:
    """One head by itself; a child keeps the rows on which its parent happened (etl/trial.py masks the others)."""
    head = conf.heads[name].model_copy(update={"parent": None})
    return View(f"head_{name}", conf.template, {name: head})
