"""A change parted among what moved, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.shapley import shapley


def test_a_product_is_parted_by_the_mean_of_both_orders() -> None:
    first, second = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    # 10 -> 21. The first alone adds 5, after the second 7; the second alone adds 4, after the first 6.
    assert shapley(np.outer(first, second), 2).tolist() == [6.0, 5.0]


def test_the_parts_add_up_and_a_factor_that_did_not_move_has_none() -> None:
    values = np.random.default_rng(1).normal(size=(2, 2, 2, 2, 3))
    values[:, 1] = values[:, 0]  # the second factor moves nothing
    parts = shapley(values, 4)
    assert parts.shape == (4, 3)
    assert np.allclose(parts.sum(0), values[1, 1, 1, 1] - values[0, 0, 0, 0])
    assert np.allclose(parts[1], 0)


def test_a_factor_that_moved_alone_has_all_of_the_change() -> None:
    values = np.zeros((2, 2, 2, 2))
    values[:, :, 1] = 4.5
    assert shapley(values, 4).tolist() == [0.0, 0.0, 4.5, 0.0]


def test_values_of_another_number_of_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="do not hold the 16 combinations of 4 factors"):
        shapley(np.zeros((2, 2, 2)), 4)
