"""What is asked of tables, of calibrators, and of a candidate before it serves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conf.strict import Name, Strict


class Calibration(Strict):
    min_positives: int = Field(
        200, ge=1, description="a head x tower cell with fewer positives among its fit rows is the identity, and says so"
    )
    fit_days: int = Field(
        7, ge=1, le=400, description="a calibrator is fitted on at most this many days up to M-1, of those after its model's training end"
    )
    half_life_days: float | None = Field(
        2,
        gt=0,
        allow_inf_nan=False,
        description="days: a fit row of M-1 less this many counts half, of twice as many a quarter; null: all alike",
    )
    ece_bins: int = Field(15, ge=2, le=1000, description="equal-mass bins of the calibration error and the reliability diagram")
    pooling: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="positives: a head x tower cell with this many among its fit rows goes half the way from its head's fit in all towers to a level "
        "of its own, and its head's as far from the model's; no cell is too small then, and min_positives has no say; 0: each by itself",
    )
    method: Literal["platt", "featured"] = Field(
        "platt",
        description="two parameters a head and tower, or these and a weight for values of `features`; jobs/backtest.py shows "
        "which one holds, and a person chooses",
    )
    features: tuple[Name, ...] = Field(
        (),
        max_length=6,
        description="featured only: columns of examples and inventory with one string a row, such as country, device and format; `served` gets "
        "them too, so a table that is there already has to be taken along by jobs/migrate.py",
    )
    segment_values: int = Field(
        50, ge=1, le=64, description="featured only: the most frequent values of a feature that may have a weight; others have weight 0"
    )
    ridge: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="featured only; null: each fit estimates it for each feature, from how far its values lie apart beyond chance in all heads "
        "and towers; or positives: a value with this many among its fit rows goes about half the way from the two parameters of its head and "
        "tower to a level of its own, one with far fewer stays; best near 1 / (spread of the values' log-odds)^2, so 20 for .22",
    )

    @model_validator(mode="after")
    def _features_and_method_agree(self) -> Calibration:
        if self.method == "featured" and not self.features:
            raise ValueError("method is featured and features is empty; name a few columns, such as country, or set method to platt")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features names a column twice: {', '.join(self.features)}; keep each once")
        return self


class Publication(Strict):
    """What a candidate has to show on the held-out day, beside the model in production, before it serves (models/verdict.py)."""

    max_ne_rise: float = Field(
        0.005, ge=0, description="relative rise of normalised entropy over production's that is still accepted: 0.005 is half a per cent"
    )
    max_auc_fall: float = Field(0.005, ge=0, description="fall of AUC below production's that is still accepted")
    max_ratio: float = Field(
        1.25, gt=1, description="predicted over observed after calibration, this many times either way, is still accepted"
    )
    max_shift: float = Field(
        0.5, gt=0, description="population stability index of a cell's predictions against production's on the same rows; more refuses"
    )
    min_positives: int = Field(
        100, ge=1, description="a head x tower cell with fewer positives on the held-out day is shown, and refuses nobody"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals; of those of single cells, for all judged cells together")
    challenger: bool = Field(
        False, description="score the inventory with a candidate that does not serve too, into the table challenger_scores"
    )


class Gate(Strict):
    """What the Great Expectations checkpoints on a night's tables ask beside exact schemas, row rules and unique keys.

    Critical ones stop the night; the others are warnings of the report.
    """

    min_rows_a_day: int = Field(1, ge=0, description="fewer examples on a day than this stops the night")
    max_quarantined_share: float = Field(0.05, ge=0, le=1, description="of a source's rows in; more stops the night")
    max_label_rate: float = Field(0.9, ge=0, le=1, description="a head positive more often than this on a mature day stops the night")
    max_missing_share: float = Field(0.9, ge=0, le=1, description="a feature missing more often than this is a warning")
    max_count_ratio: float = Field(
        5, gt=1, description="a source's rows beyond this many times the usual, or below one in this many, stop the night"
    )
    warn_count_ratio: float = Field(2, gt=1, description="the same as a warning")
    warn_label_ratio: float = Field(2, gt=1, description="a head's rate in a source, in times the usual rate, either way; a warning")
    min_expected_rows: int = Field(100, ge=1, description="rows (or positives) that must be usual before their ratio is judged")
    min_same_weekdays: int = Field(
        3, ge=1, description="earlier days of the same weekday that make a baseline; with fewer it is all earlier days"
    )
    max_psi: float = Field(0.25, gt=0, description="population stability index of a feature, newest day against training; a warning")
    min_psi_rows: int = Field(1000, ge=1, description="rows on both sides before shift and unseen values are judged")
    max_unseen_share: float = Field(
        0.3, ge=0, le=1, description="of the newest day's rows, those with a feature value that training never met; a warning"
    )
    seen_bits: int = Field(
        65536, ge=1024, le=2**20, multiple_of=8, description="hash positions by which the values of a feature are remembered, bits a day"
    )
    skew_rows: int = Field(
        20_000,
        ge=0,
        description="of a day's scored inventory, about how many rows are held against the training window, feature by feature",
    )
    max_unknown_share: float = Field(
        0.05, ge=0, le=1, description="of a day's rows, those that name a user, ad or impression that no log brought; a warning"
    )
