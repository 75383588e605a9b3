"""Shapley values: a change parted among the factors that moved together, whatever order they are taken in.

Each factor is worth its effect averaged over all orders in which the factors could have moved (L. S. Shapley, A value for n-person games,
1953); the parts add up to the whole change, and a factor that did not move is worth nothing.
"""

from __future__ import annotations

from itertools import product
from math import factorial

import numpy as np


def shapley(values: np.ndarray, factors: int) -> np.ndarray:
    """float64 [factors, ...] parts of values[1, 1, ...] - values[0, 0, ...].

    `values` [2, ..., 2, ...]: the first `factors` axes say of each factor whether it stands as before (0) or after (1); further axes, such as
    one of segments, are parted each by itself.
    """
    if values.shape[:factors] != (2,) * factors:
        raise ValueError(f"values of shape {values.shape} do not hold the {2**factors} combinations of {factors} factors")
    parts = np.zeros((factors, *values.shape[factors:]))
    for moved in product((0, 1), repeat=factors):
        for factor in (place for place, after in enumerate(moved) if not after):
            others = sum(moved)
            orders = factorial(others) * factorial(factors - others - 1) / factorial(factors)
            with_it = (*moved[:factor], 1, *moved[factor + 1 :])
            parts[factor] += orders * (values[with_it] - values[moved])
    return parts
