"""The pages of a comparison: every arm, head and tower is told, and words from outside stay words."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd

from etl.trial import Split
from models.contest import Judged, contest
from validation.contest import page, told

SPLIT = Split(date(2026, 5, 1), date(2026, 5, 3), datetime(2026, 5, 2, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC))


def table(tower: str = "video") -> pd.DataFrame:
    random = np.random.default_rng(1)
    rows = pd.DataFrame(
        {"impression_id": [f"i{n}" for n in range(300)], "user_id": None, "tower": np.where(np.arange(300) % 2, tower, "standard")}
    )
    rows["label_click"] = (random.random(300) < 0.3).astype(float)
    rows["label_save"] = (random.random(300) < 0.1).astype(float)
    arms = {name: random.normal(-1, 1, (2, 300, 2)) for name in ("towers", "merged", "plain")}
    return contest(Judged.of(rows, {"click": None, "save": None}), arms, draws=20)


def test_every_head_and_arm_stands_in_the_text_and_an_ablation_is_ranked_by_its_cost():
    found = table()
    text = "\n".join(told(found))
    assert all(text.count(f"{head:<12}{arm:<30}") == 1 for head in ("mean", "click", "save") for arm in ("towers", "merged", "plain"))
    ranked = [line.split()[1] for line in told(found, ranked=True) if line.startswith("mean")]
    cost = found[found["head"] == "mean"].set_index("arm")["ne_change"]
    assert ranked == sorted(cost.index, key=lambda arm: -cost[arm])


def test_a_name_from_outside_is_escaped_in_the_page():
    html = page("a<b>c", True, SPLIT, 2, {"towers": {"rate": 1.0, "epochs": 2, "seconds": 12.3}}, table("<script>x</script>"))
    assert "<script" not in html and "&lt;script&gt;" in html and "a<b>" not in html
    assert "Simulated data" in html
    assert "2 epochs, 12 s of training" in html
