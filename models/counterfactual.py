"""What a model would say if something else were so: another calibrator on its log-odds, or a feature that is not known.

For Spark workers: functools.partial of these is small and picklable. Shapes: N rows, H heads, K calibrators, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from conf.segments import code_column
from conf.template import EMBEDDED, Feature
from models.calibration import Calibrator, probabilities
from models.predictor import calibrator_of, load_predictor

Columns = Mapping[str, np.ndarray]
#: Feature -> the values that its codes count.
Values = Mapping[str, Sequence[str]]


def under_calibrators(bundle_dir: str, calibrators: Sequence[str], values: Values, columns: Columns) -> np.ndarray:
    """float64 [N, K * H]: probabilities, products formed, after each of `calibrators` (their JSON texts).

    `columns`: encoded, and a code of each feature in `values`, which holds at least the values of every calibrator.
    """
    predictor = load_predictor(bundle_dir, threads=1)
    log_odds_NH = predictor.log_odds(columns)
    found = []
    for text in calibrators:
        fitted = calibrator_of(text)
        codes = {feature: _own_codes(columns[code_column(feature)], values[feature], own) for feature, own in fitted.values.items()}
        calibrated_NH = fitted.calibrated_log_odds(log_odds_NH, columns["tower"], predictor.towers, codes)
        found.append(probabilities(calibrated_NH, predictor.parents))
    return np.hstack(found)


def all_values(calibrators: Sequence[str]) -> dict[str, list[str]]:
    """Feature -> the values with a weight in any of the calibrators, sorted."""
    found: dict[str, set[str]] = {}
    for text in calibrators:
        for feature, values in Calibrator.from_json(text).values.items():
            found.setdefault(feature, set()).update(values)
    return {feature: sorted(values) for feature, values in sorted(found.items())}


def without_each(bundle_dir: str, calibrator: str, values: Values, features: Sequence[Feature], columns: Columns) -> np.ndarray:
    """float64 [N, (1 + F) * H]: probabilities of the rows as they are, then with each of `features` missing in turn."""
    known = [columns, *(without(columns, feature) for feature in features)]
    return np.hstack([under_calibrators(bundle_dir, [calibrator], values, each) for each in known])


def without(columns: Columns, feature: Feature) -> dict[str, np.ndarray]:
    """The encoded columns of rows in which this feature is missing (etl/encoding.py)."""
    if feature.type in EMBEDDED:
        return {**columns, **{name: np.zeros_like(columns[name]) for name in feature.id_columns}}
    flag = f"{feature.column}__missing"
    numbers = [feature.column] if feature.type == "continuous" else [f"{feature.column}__{place}" for place in range(feature.width)]
    return {**columns, **{name: np.zeros_like(columns[name]) for name in numbers}, flag: np.ones_like(columns[flag])}


def _own_codes(codes: np.ndarray, values: Sequence[str], own: Sequence[str]) -> np.ndarray:
    """Places in `values` as places in `own`; -1, which is the last of `place`, stays -1."""
    place = np.array([*(own.index(value) if value in own else -1 for value in values), -1])
    return place[codes]
