"""A bundle as a function: encoded columns in, conditional log-odds out. On the CPU, one load a process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch

from conf.segments import code_column
from models import bundle
from models.calibration import Calibrator, probabilities
from models.columns import Arrays
from models.representation import Features

# A forward batch that fits the cache; larger ones are slower (2,048 to 8,192 measured fastest).
FORWARD_ROWS = 4096


class Predictor:
    """Scores with one model. `heads`, `towers`: names in the model's order; `parents` [H]: index of a head's parent, -1 without one."""

    def __init__(self, bundle_dir: str) -> None:
        self.model, self.meta = bundle.load(bundle_dir)
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


@lru_cache(maxsize=2)
def load_predictor(bundle_dir: str, threads: int | None = None) -> Predictor:
    """The predictor of a bundle, loaded once a process. `threads`: of torch in this process; 1 where Spark runs one worker a core."""
    if threads is not None:
        torch.set_num_threads(threads)
    return Predictor(bundle_dir)


def predict(bundle_dir: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """`Predictor.log_odds` of that bundle, for Spark workers: functools.partial(predict, bundle_dir) is small and picklable."""
    return load_predictor(bundle_dir, threads=1).log_odds(columns)


def predict_probabilities(bundle_dir: str, calibrator: str, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(before, after calibration), each float64 [N, H] in (0, 1) with a child's product formed. `calibrator`: its JSON text.

    `columns` also hold `code_column(feature)` of every feature in the calibrator's `values`.
    """
    predictor, fitted = load_predictor(bundle_dir, threads=1), _calibrator(calibrator)
    log_odds_NH = predictor.log_odds(columns)
    codes = {feature: columns[code_column(feature)] for feature in fitted.values if code_column(feature) in columns}
    calibrated_NH = fitted.calibrated_log_odds(log_odds_NH, columns["tower"], predictor.towers, codes)
    return probabilities(log_odds_NH, predictor.parents), probabilities(calibrated_NH, predictor.parents)


@lru_cache(maxsize=2)
def _calibrator(text: str) -> Calibrator:
    return Calibrator.from_json(text)
