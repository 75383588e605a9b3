"""The columns by whose values a featured calibrator tells rows apart, and how a value travels as a number."""

from __future__ import annotations

from collections.abc import Iterable

from conf.template import Feature, Template

#: Single strings that impressions and inventory have whatever the template. Not the tower: each has a calibrator of its own.
FIXED = ("source", "user_id", "ad_id", "campaign_id", "advertiser_id")
CATEGORICAL = ("one_hot", "indexed", "hashed")


def code_column(feature: str) -> str:
    """The int column that holds a value of `feature` as its place in a list of values; -1 where the list lacks it, or it is missing."""
    return f"{feature}__code"


def weight_key(feature: str, value: str) -> str:
    """The name of a calibrator's weight, such as "country=US"."""
    return f"{feature}={value}"


def feature_and_value(key: str) -> tuple[str, str]:
    """What a weight's name stands for; no feature's name has an equals sign, a value may."""
    feature, _, value = key.partition("=")
    return feature, value


def require_segments(names: Iterable[str], template: Template) -> None:
    """ValueError where impressions or inventory do not hold one string a row under each name."""
    features = {feature.column: feature for feature in template.features}
    can = sorted({*FIXED, *(name for name, feature in features.items() if not _hindrance(feature))})
    for name in names:
        found = features.get(name)
        why = _hindrance(found) if found else "" if name in FIXED else "is no column of the template"
        if why:
            raise ValueError(f"calibration.features names {name}, which {why}; it may name {', '.join(can)}")


def _hindrance(feature: Feature) -> str:
    if feature.type not in CATEGORICAL:
        return f"is {feature.type}, where one of {', '.join(CATEGORICAL)} is needed"
    if feature.length:
        return "is a list, where one value a row is needed"
    return "is known only once served, and so of no inventory" if feature.family == "serving" else ""
