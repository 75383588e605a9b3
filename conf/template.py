"""The feature template: which column the model reads, as what, and why.

A YAML that a person reviews. It is a description of transforms ("AutoML" as in Pinterest's post of August 2020), not architecture search.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conf.strict import Name, Strict

Family = Literal["user", "ad", "history", "context", "serving"]
FeatureType = Literal["continuous", "hashed", "one_hot", "dense"]


class Feature(Strict):
    """One column of `examples` and `inventory` as the model reads it."""

    column: Name = Field(description="column of examples and inventory; the feature carries its name")
    family: Family = Field(
        description="where it comes from: user -> users, ad -> ads, history -> counts of earlier days, context and serving -> the impression"
    )
    type: FeatureType
    transform: Literal["squash", "log", "none"] = Field(
        "squash", description="continuous only. squash: clip at fitted quantiles, standardise; log: signed log1p, then squash; none: raw"
    )
    buckets: int = Field(
        0, ge=0, le=100_000_000, description="hashed only: number of hash buckets, ids; one more is kept for a missing value"
    )
    vocabulary: tuple[str, ...] = Field((), description="one_hot only: the known values; anything else is the unseen value")
    width: int = Field(0, ge=0, le=4096, description="dense only: length of the vector, numbers")
    reason: str = Field("", description="why it is read this way, in words")

    @model_validator(mode="after")
    def _the_type_has_what_it_needs(self) -> Feature:
        needed = {"hashed": "buckets", "one_hot": "vocabulary", "dense": "width"}.get(self.type)
        if needed and not getattr(self, needed):
            raise ValueError(f"feature {self.column} is {self.type} and has no {needed}; give {needed} a value above 0")
        if self.family == "history" and self.type != "continuous":
            raise ValueError(f"feature {self.column} counts history and is {self.type}; make it continuous")
        for knob, owner in (("buckets", "hashed"), ("vocabulary", "one_hot"), ("width", "dense")):
            if getattr(self, knob) and self.type != owner:
                raise ValueError(f"feature {self.column} is {self.type}, and {knob} belongs to {owner}; remove it")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError(f"feature {self.column} names a vocabulary value twice; keep each once")
        return self

    @property
    def ids(self) -> int:
        """Number of embedding rows: 0 is missing; one_hot has one more for an unseen value."""
        if self.type == "hashed":
            return self.buckets + 1
        return len(self.vocabulary) + 2 if self.type == "one_hot" else 0


class Template(Strict):
    """The features of a model, in the order the model lays them out."""

    features: tuple[Feature, ...] = Field(min_length=1)
    left_out: dict[Name, str] = Field(
        default_factory=dict,
        description="columns that were looked at and are no features: column -> why; profile_features adds none of them",
    )

    @model_validator(mode="after")
    def _each_column_once(self) -> Template:
        names = [*(feature.column for feature in self.features), *self.left_out]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the template names {', '.join(twice)} more than once; a column is one feature, or left out")
        return self

    def of_type(self, *types: FeatureType) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.type in types)

    def of_family(self, *families: Family) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.family in families)
