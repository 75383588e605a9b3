"""The feature template: which column the model reads, as what, and why.

A YAML that a person reviews. It is a description of transforms ("AutoML" as in Pinterest's post of August 2020), not architecture search.
A feature has a `column`, a `family`, a `type` and what the type needs; whole templates are conf/*_template.yaml.

  type        its column           needs                        the model reads
  continuous  number               (transform)                  the number, squashed, and whether it is missing
  dense       array<number>        width                        that many numbers as they are, and whether they are missing
  hashed      string (or number)   buckets                      an embedding row by hash: users, ads and all else that no list ends
  one_hot     string (or number)   vocabulary                   an embedding row a value: a short, closed list
  indexed     string (or number)   vocabulary_file              the same of a long list of the frequent values (or vocabulary)
  text        string               length, buckets              its first `length` tokens, each an embedding row by hash

  features:
  - {column: device, family: context, type: one_hot, vocabulary: [phone, tablet, desktop], reason: a closed list of three}
  - {column: brand, family: ad, type: indexed, vocabulary_file: brands.txt, reason: these make 95% of the impressions}
  - {column: topics, family: user, type: hashed, buckets: 5000, length: 5, group: interests, reason: up to five topics a user follows}
  - {column: boards, family: user, type: hashed, buckets: 9000, length: 3, group: interests, reason: the same by another name}
  - {column: title, family: ad, type: text, length: 12, buckets: 20000, reason: nine titles in ten have no more words}

All but continuous and dense are embedded: a value is an id, and an id a row of embedding_width numbers and weights of the linear path. Id 0
is a missing value; with a vocabulary 1 is a value that it lacks, and its own follow in their order. So one_hot and indexed are one encoding,
and the types tell what a person decided: that a list is closed, or where it is cut. (The published system feeds one_hot features as raw
indicators. Here what an indicator would add by itself is the linear path's, a weight a value.)

A vocabulary grows at its end: append new values, and never move or take out old ones, so that an id means one value for good. Snapshots and
models carry the vocabulary that they were made with. A warm start goes by value: it keeps what was learned of the known ones, and starts a
new one as the unseen value that it was.

Lists: with `length: k` a hashed, one_hot or indexed feature reads an array<string> column, such as `topics: split(nullif(topics, ''), ',')`
makes in a source's `columns`: its first k elements; a null among them is nothing. A text is the list of its tokens, which are runs of
Unicode letters, marks and digits in lower case. The model reads the mean of the rows of what is there, and where nothing is the row of the
missing value. Each of the k is a column of the training files and a lookup, so k is best no more than most lists are long. A list of numbers
is `dense`.

`group: g` puts embedded features that belong together into one summarization group: the model reads one common embedding of them, as wide as
each of theirs, in place of each (models/summarization.py), and the layers above get narrower. All embeddings have one width,
model.embedding_width, since they are rows of one table.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conf.strict import Name, Strict

Family = Literal["user", "ad", "history", "context", "serving"]
FeatureType = Literal["continuous", "hashed", "one_hot", "indexed", "dense", "text"]

#: Read as ids through the embedding table.
EMBEDDED: tuple[FeatureType, ...] = ("hashed", "one_hot", "indexed", "text")
#: What a type cannot be without, and the types that have a knob at all.
NEEDS: dict[FeatureType, tuple[str, ...]] = {
    "hashed": ("buckets",),
    "one_hot": ("vocabulary",),
    "indexed": ("vocabulary",),
    "dense": ("width",),
    "text": ("buckets", "length"),
}
OWNERS: dict[str, tuple[FeatureType, ...]] = {
    "buckets": ("hashed", "text"),
    "vocabulary": ("one_hot", "indexed"),
    "width": ("dense",),
    "length": EMBEDDED,
    "group": EMBEDDED,
}


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
        0, ge=0, le=100_000_000, description="hashed and text only: number of hash buckets, ids; one more is kept for a missing value"
    )
    vocabulary: tuple[str, ...] = Field(
        (), max_length=100_000, description="one_hot and indexed only: the known values; anything else is the unseen value"
    )
    vocabulary_file: str = Field(
        "",
        description="indexed only, in place of vocabulary: a UTF-8 file of one value a line, relative to the file that names it; conf/load.py "
        "reads it into `vocabulary`",
    )
    length: int = Field(
        0,
        ge=0,
        le=64,
        description="embedded types only. 0: one value a row; k: the column is a list, or a text's tokens, of which the first k are read",
    )
    width: int = Field(0, ge=0, le=4096, description="dense only: length of the vector, numbers")
    group: Name | None = Field(
        None, description="embedded types only: the summarization group, whose features the model reads as one common embedding"
    )
    reason: str = Field("", description="why it is read this way, in words")

    @model_validator(mode="after")
    def _the_type_has_what_it_needs(self) -> Feature:
        if self.vocabulary_file:
            raise ValueError(
                f"feature {self.column} names vocabulary_file {self.vocabulary_file}, which was not read; it belongs to indexed, in a file that "
                "conf/load.py loads"
            )
        for needed in NEEDS.get(self.type, ()):
            if not getattr(self, needed):
                one_of = "vocabulary_file, or vocabulary" if self.type == "indexed" else needed
                raise ValueError(f"feature {self.column} is {self.type} and has no {needed}; give it {one_of}")
        if self.family == "history" and self.type != "continuous":
            raise ValueError(f"feature {self.column} counts history and is {self.type}; make it continuous")
        for knob, owners in OWNERS.items():
            if getattr(self, knob) and self.type not in owners:
                raise ValueError(f"feature {self.column} is {self.type}, and {knob} belongs to {', '.join(owners)}; remove it")
        if self.family == "serving" and (self.length or self.group):
            knob = "length" if self.length else "group"
            raise ValueError(
                f"feature {self.column} is known only once served and has a {knob}; the serving term reads single values, alone"
            )
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError(f"feature {self.column} names a vocabulary value twice; keep each once")
        return self

    @property
    def ids(self) -> int:
        """Number of embedding rows: 0 is missing; a vocabulary has one more for an unseen value."""
        if self.buckets:
            return self.buckets + 1
        return len(self.vocabulary) + 2 if self.vocabulary else 0

    @property
    def is_list(self) -> bool:
        """Whether its column is an array<string>."""
        return self.length > 0 and self.type != "text"

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The encoded columns of an embedded feature: `c`, or `c__0` ... a place of a list."""
        return tuple(f"{self.column}__{place}" for place in range(self.length)) or (self.column,)


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
