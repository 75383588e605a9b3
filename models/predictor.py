"""A bundle as a function: encoded columns in, conditional log-odds out. On the CPU, one load a process, its weights mapped from the file.

Shapes: N rows, H heads, C continuous features, R rows of the fused embedding table, F ids a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from conf.segments import code_column
from models import bundle
from models.calibration import Calibrator, probabilities
from models.columns import Arrays
from models.engagement import EngagementModel
from models.representation import Features

# A forward batch that fits the cache; larger ones are slower (2,048 to 8,192 measured fastest).
FORWARD_ROWS = 4096


class Predictor:
    """Scores with one model. `heads`, `towers`: names in the model's order; `parents` [H]: index of a head's parent, -1 without one."""

    def __init__(self, bundle_dir: str) -> None:
        self.meta = bundle.read_meta(bundle_dir)
        tensors = bundle.read_tensors(bundle_dir, self.meta)
        self.model = bundle.model_of(bundle_dir, self.meta, tensors, mapped=True)
        self.facts = RowFacts(self.model, tensors[f"{bundle.SQUARES}embedding"])
        self.model_id: str = self.meta["model_id"]
        self.heads, self.towers, self.parents = self.model.head_names, self.model.tower_names, self.model.parents

    def log_odds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 [N, H], finite: a head's log-odds given that its parent happened, before calibration.

        `columns`: the encoded columns of etl/encoding.py, each [N]; others are ignored. Ids outside the template raise ColumnsWrong.
        """
        return self.log_odds_of(self.model.columns.arrays(columns))

    def log_odds_of(self, arrays: Arrays) -> np.ndarray:
        """The same of arrays in the model's layout."""
        rows = len(arrays.tower)
        log_odds_NH = np.empty((rows, len(self.heads)))
        with torch.inference_mode():
            for first in range(0, rows, FORWARD_ROWS):
                part = slice(first, first + FORWARD_ROWS)
                log_odds_NH[part] = self.model(Features.of(Arrays(*(array[part] for array in arrays)))).numpy()
        return log_odds_NH


class RowFacts:
    """float64 [N, 3] of rows: the share of their ids that training never met, how many numbers are missing, how many lie out of range.

    An id was met where Adagrad keeps squares of it (`squares_R1` of the embedding table); the id of a missing value does not count. Out of
    range is a number that the representation clips: beyond the fitted quantiles.
    """

    def __init__(self, model: EngagementModel, squares_R1: Tensor) -> None:
        columns, squash = model.columns, model.representation
        lengths = np.diff(columns.places)
        self.nothing_F = np.repeat(np.array(columns.offsets[:-1], np.int64), lengths)
        self.met_R = squares_R1[:, 0].numpy() > 0
        fitted_C = squash.scale_C.numpy() > 0
        low_C, high_C = (np.where(fitted_C, end.numpy(), sign * np.inf) for end, sign in ((squash.low_C, -1), (squash.high_C, 1)))
        log_C = squash.log_C.numpy()
        self.low_C, self.high_C = (
            np.where(log_C, np.sign(end) * np.expm1(np.where(log_C, np.abs(end), 0)), end) for end in (low_C, high_C)
        )

    def __call__(self, arrays: Arrays) -> np.ndarray:
        there_NF = arrays.ids != self.nothing_F
        unseen_N = (there_NF & ~self.met_R[arrays.ids]).sum(1) / np.maximum(there_NF.sum(1), 1)
        missing_NC = arrays.missing[:, : arrays.continuous.shape[1]]
        beyond_NC = (arrays.continuous < self.low_C) | (arrays.continuous > self.high_C)
        return np.stack([unseen_N, arrays.missing.sum(1), (beyond_NC & (missing_NC == 0)).sum(1)], axis=1)


@lru_cache(maxsize=2)
def load_predictor(bundle_dir: str, threads: int | None = None) -> Predictor:
    """The predictor of a bundle, loaded once a process. `threads`: of torch in this process; 1 where Spark runs one worker a core."""
    if threads is not None:
        torch.set_num_threads(threads)
    return Predictor(bundle_dir)


def predict(bundle_dir: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """`Predictor.log_odds` of that bundle, for Spark workers: functools.partial(predict, bundle_dir) is small and picklable."""
    return load_predictor(bundle_dir, threads=1).log_odds(columns)


def predict_probabilities(bundle_dir: str, calibrator: str, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(before, after calibration), each float64 [N, H] in (0, 1) with a child's product formed, and RowFacts. `calibrator`: its JSON text.

    `columns` also hold `code_column(feature)` of every feature in the calibrator's `values`.
    """
    predictor, fitted = load_predictor(bundle_dir, threads=1), calibrator_of(calibrator)
    arrays = predictor.model.columns.arrays(columns)
    log_odds_NH = predictor.log_odds_of(arrays)
    codes = {feature: columns[code_column(feature)] for feature in fitted.values if code_column(feature) in columns}
    calibrated_NH = fitted.calibrated_log_odds(log_odds_NH, columns["tower"], predictor.towers, codes)
    before_NH, after_NH = (probabilities(z_NH, predictor.parents) for z_NH in (log_odds_NH, calibrated_NH))
    return before_NH, after_NH, predictor.facts(arrays)


@lru_cache(maxsize=2)
def calibrator_of(text: str) -> Calibrator:
    return Calibrator.from_json(text)
