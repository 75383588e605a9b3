"""What a person reads of a backtest. All rows are simulated."""

from __future__ import annotations

import pandas as pd
import pytest

from models.calibration import Segments
from models.methods import methods
from models.traffic import traffic_of, values_of
from models.walk_forward import Window, walk
from tests.models.walks import on, traffic
from tests.validation.test_report import words
from validation.backtest import page, summary, told


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A large tower and a small one, stale over four days; fresh as well, by the same numbers."""
    frame = pd.concat([traffic([0.8] * 7), traffic([0.8] * 7, rows=300, tower="<small>", seed=2)])
    values = values_of([frame], ["country"])
    over = [Window((on(day), on(day)), (on(7), on(7)) if day == 4 else None, on(2)) for day in range(4, 8)]
    found = pd.DataFrame(walk(over, [traffic_of(frame, values)] * len(over), methods(10, featured=True), Segments(values, 20)))
    return pd.concat([found.assign(regime=regime) for regime in ("stale", "fresh")], ignore_index=True)


def test_large_and_small_cells_are_told_apart_in_words(rows: pd.DataFrame) -> None:
    text = told(summary(rows, "day"))
    titles = [line.split(";")[0] for line in text if line.startswith(("stale", "fresh"))]
    assert titles == [
        f"{regime}: cells of {cells} fit positives, 2026-05-04 to 2026-05-07"
        for regime in ("stale", "fresh")
        for cells in ("100 and more", "fewer than 100")
    ]
    floors = [float(line.split()[-3]) for line in text if "; chance alone leaves" in line]
    assert floors[0] < floors[1] < 0.3  # large cells, then small ones
    raw, platt = (next(line.split() for line in text if line.startswith(name)) for name in ("raw ", "platt "))
    assert float(raw[1]) > 4 * float(platt[1])


def test_the_page_shows_each_regime_with_its_picture_its_choices_and_all_its_tables(rows: pd.DataFrame) -> None:
    html = page("demo<script>", True, rows, summary(rows, "day"), ["country"])
    text = words(html)
    assert "Simulated data" in text and "<script>" not in html and "demo<script>" in text
    for regime in ("Stale: one model for all days", "Fresh: a model for each day"):
        assert regime in text
    assert html.count("<svg") == 2
    assert "Chosen: raw from 2026-05-04, " in text
    for title in ("cells of fewer than 100 fit positives", "on the days on which scores are used", "head click", "noise floor", "oracle"):
        assert title in text
    assert "Chance alone would leave 0." in text


def test_on_real_logs_the_page_has_no_column_of_the_truth(rows: pd.DataFrame) -> None:
    seen = rows[~rows["method"].isin(["oracle", "noise floor"])].assign(error_true=None, segments_true=None, expected=None)
    text = words(page("real", False, seen, summary(seen, "day"), []))
    assert "Simulated" not in text and "against the truth" not in text
    assert "name some in calibration.features" in text
