"""The newest day's features against those trained on: which days are counted, in which bins, and what the ledger keeps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import DataFrame

from conf.schema import Conf
from conf.template import Feature
from validation.baseline import History
from validation.checks import Check
from validation.counting import histograms, learned_cuts
from validation.drift import Newest, Profile, Profiles, counts_in, drift_checks, pack, top_positions


@dataclass(frozen=True)
class Profiled:
    """`bins`: of every feature; `profiles`: days counted now, day -> feature -> profile; `newest`: the last day, as it was counted."""

    bins: Mapping[str, Profile]
    profiles: Profiles
    newest: Newest


def profiled(examples: DataFrame, conf: Conf, days: Sequence[date], history: History) -> Profiled:
    """Count the days that no earlier gate counted, and the newest one; days counted before are not read.

    Bins are learned on the newest day where a feature is new (or its type, or gate.seen_bits, changed) and carried on from then.
    """
    features, bits, last = profiled_features(conf), conf.gate.seen_bits, days[-1]
    bins = {feature.column: history.bins[feature.column] for feature in features if _fits(history.bins.get(feature.column), feature, bits)}
    known = {day for day, of in history.profiles.items() if all(f.column in of and f.column in bins for f in features)}
    newest_rows = examples.where(examples["day"] == last)
    bins |= learned_cuts(newest_rows, [f for f in features if f.type == "continuous" and f.column not in bins])
    counted = histograms(examples, features, bins, bits, [day for day in days if day == last or day.isoformat() not in known])
    of_last = counted.get(last.isoformat(), {feature.column: (0, {}) for feature in features})
    for feature in features:
        if feature.column not in bins:
            bins[feature.column] = {"top": top_positions(of_last[feature.column][1]), "bits": bits}
    profiles = {
        day: {name: _profile(bins[name], missing, counts) for name, (missing, counts) in of.items()} for day, of in sorted(counted.items())
    }
    missing, counts = ({name: cell[part] for name, cell in of_last.items()} for part in (0, 1))
    return Profiled(bins, profiles, Newest(last.isoformat(), missing, counts))  # type: ignore[arg-type]


def shift_checks(made: Profiled, conf: Conf, history: History, train_from: date, train_to: date) -> list[Check]:
    """Against the training window; against all earlier days while no day of it has a profile."""
    known: dict[str, dict[str, Any]] = {day: dict(of) for day, of in history.profiles.items()}
    for day, of in made.profiles.items():
        known.setdefault(day, {}).update(of)
    usable = {
        day: {
            name: profile
            for name, profile in of.items()
            if name in made.bins and history.bins.get(name, made.bins[name]) == made.bins[name]
        }
        for day, of in known.items()
        if day < made.newest.day
    }
    window = {day: of for day, of in usable.items() if train_from.isoformat() <= day <= train_to.isoformat()}
    return drift_checks(profiled_features(conf), made.newest, window or usable, made.bins, conf.gate)


def profiled_features(conf: Conf) -> list[Feature]:
    """All but dense vectors, whose numbers have no bins of their own."""
    return [feature for feature in conf.template.features if feature.type != "dense"]


def _fits(bins: Profile | None, feature: Feature, bits: int) -> bool:
    if bins is None:
        return False
    return "cuts" in bins if feature.type == "continuous" else bins.get("bits") == bits


def _profile(bins: Profile, missing: int, counts: Mapping[int, int]) -> dict[str, Any]:
    made: dict[str, Any] = {"counts": counts_in(bins, missing, counts)}
    return made | ({"seen": pack(list(counts), bins["bits"])} if "top" in bins else {})
