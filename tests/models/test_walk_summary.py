"""What is said of each method of a backtest, and how sure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.methods import ORACLE, RAW
from models.walk_summary import bootstrap, lines, noise
from tests.models.walks import on


def row(day: int, method: str, error: float, **over: object) -> dict[str, object]:
    fixed = {"head": "click", "tower": "feed", "kind": "measured", "rows": 1000, "positives": 200, "log_loss": 0.1 + error}
    errors = {"error_observed": error + 0.05, "error_true": error, "segments_observed": 0.9, "segments_true": 0.2}
    return {"day": on(day), "method": method, **fixed, **errors, **over}


def test_errors_are_means_over_days_and_cells_and_shares_are_those_of_means():
    errors = {RAW: (0.4, 0.2), "platt": (0.1, 0.05), ORACLE: (0.05, 0.05)}
    rows = pd.DataFrame([row(day, method, of[day - 1]) for method, of in errors.items() for day in (1, 2)])
    raw, platt, oracle = lines(rows, "day")
    assert [line.method for line in (raw, platt, oracle)] == [RAW, "platt", ORACLE]
    assert platt.cells == 2 and platt.error_true and platt.beyond and platt.removed_true and platt.relative_loss
    assert platt.error_true == pytest.approx((0.075, 0.05, 0.1))
    assert platt.error_observed[0] == pytest.approx(0.125)
    assert platt.beyond[0] == pytest.approx(0.025)
    assert platt.removed_true == pytest.approx((0.75, 0.75, 0.75))
    assert platt.relative_loss[0] == pytest.approx(0.175 / 0.4 - 1)
    assert raw.removed_true and raw.removed_true[0] == 0


def test_rows_of_other_days_and_cells_without_positives_do_not_count():
    given = [row(1, RAW, 0.4), row(1, RAW, 0.9, kind="scored"), row(1, RAW, 0.9, tower="other", positives=0)]
    rows = pd.DataFrame(given).assign(error_true=None, segments_true=None)
    assert [line.error_observed[0] for line in lines(rows, "day")] == [pytest.approx(0.45)]
    assert [line.error_observed[0] for line in lines(rows, "day", "scored")] == [pytest.approx(0.95)]


def test_without_truth_nothing_is_said_against_it():
    (line,) = lines(pd.DataFrame([row(1, RAW, 0.4, error_true=None, segments_true=None)]), "day")
    assert (line.error_true, line.beyond, line.removed_true, line.segments_true) == (None, None, None, None)


def test_an_interval_is_as_wide_as_the_units_differ_however_many_rows_they_have():
    """40 units of 100 equal rows: the interval of their mean is that of 40 numbers."""
    draw = np.random.default_rng(3)
    level = draw.normal(1, 0.2, 40)
    units, values = np.repeat(np.arange(40), 100), np.repeat(level, 100)
    mean, low, high = bootstrap(units, values, values, lambda one, _: one)
    assert mean == pytest.approx(level.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * level.std() / np.sqrt(40), rel=0.1)


def test_the_noise_of_counts_is_what_poisson_draws_show():
    means = np.array([150.0, 400.0])
    draws = np.random.default_rng(1).poisson(means, (20_000, 2))
    assert noise(pd.Series(means)) == pytest.approx(np.abs(draws / means - 1).mean(), rel=0.02)
