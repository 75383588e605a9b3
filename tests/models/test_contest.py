"""Arms beside each other: the figures are those of models/metrics.py, and intervals count people, not rows."""

import numpy as np
import pandas as pd
import pytest

from models.contest import ALL, LABELS, MEAN, TRUTH, Judged, contest, mean_ne
from models.metrics import Bins, auc, normalized_entropy, sigmoid

PARENTS = {"click": None, "good_click": "click"}


def rows(count: int = 600, truth: bool = False, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    z = random.normal(-1, 1, count)
    click = (random.random(count) < sigmoid(z)).astype(float)
    good = np.where(click == 1, (random.random(count) < 0.5).astype(float), 0.0)
    good[:20] = np.nan
    found = pd.DataFrame(
        {
            "impression_id": [f"i{n:04d}" for n in range(count)],
            "user_id": [f"u{n % 50}" for n in range(count)],
            "tower": np.where(np.arange(count) % 3 == 0, "a", "b"),
            "label_click": click,
            "label_good_click": good,
            "z": z,
        }
    )
    if truth:
        found["c_click"] = found["p_click"] = sigmoid(z)
        found["c_good_click"], found["p_good_click"] = 0.5, 0.5 * sigmoid(z)
    return found


def answers(frame: pd.DataFrame, noise: float = 0.0, seeds: int = 2) -> np.ndarray:
    random = np.random.default_rng(7)
    z = frame["z"].to_numpy()
    return np.stack([np.stack([z + noise * random.normal(size=len(z)), random.normal(size=len(z))], 1) for _ in range(seeds)])


def line(table: pd.DataFrame, **of: object) -> pd.Series:
    for name, value in of.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_figures_are_means_over_seeds_of_what_metrics_says_of_a_cell():
    frame = rows()
    given = answers(frame, noise=0.5)
    found = line(contest(Judged.of(frame, PARENTS), {"one": given}, draws=5), head="click", tower="a")
    on = (frame["tower"] == "a").to_numpy()
    bins = [Bins.of(z[on, 0], np.ones(on.sum()), frame["label_click"].to_numpy()[on]) for z in given]
    assert found["auc"] == pytest.approx(np.mean([auc(b) for b in bins]))
    assert found["ne"] == pytest.approx(np.mean([normalized_entropy(b) for b in bins]))
    assert found["ne_seed_sd"] == pytest.approx(np.std([normalized_entropy(b) for b in bins], ddof=1))


def test_a_child_counts_where_its_parent_happened_and_its_own_outcome_is_known():
    frame = rows()
    found = line(contest(Judged.of(frame, PARENTS), {"one": answers(frame)}, draws=2), head="good_click", tower=ALL)
    assert found["rows"] == ((frame["label_click"] == 1) & frame["label_good_click"].notna()).sum()


def test_ties_count_half():
    frame = rows()
    flat = np.zeros((1, len(frame), 2))
    assert line(contest(Judged.of(frame, PARENTS), {"one": flat}, draws=2), head="click", tower=ALL)["auc"] == 0.5


def test_the_first_arm_differs_from_itself_by_nothing_and_a_noisier_one_is_shown_to_be_worse():
    frame = rows(4000)
    table = contest(Judged.of(frame, PARENTS), {"one": answers(frame), "same": answers(frame), "noisy": answers(frame, noise=1.5)})
    same, noisy = (line(table, arm=name, head="click", tower=ALL) for name in ("same", "noisy"))
    assert (same["ne_change"], same["ne_change_low"], same["ne_change_high"], same["auc_change"]) == (0, 0, 0, 0)
    assert noisy["ne_change_low"] > 0
    assert noisy["auc_change_high"] < 0


def test_an_interval_counts_users_and_not_rows():
    """Nine copies of every row: by the same people they tell nothing new, by others they make it three times as sure."""
    frame = rows(400).assign(user_id=[f"u{n}" for n in range(400)])
    widths = []
    for copies, of_copy in ((1, ""), (9, ""), (9, "of copy {}")):
        many = pd.concat([frame.assign(user_id=frame["user_id"] + of_copy.format(n)) for n in range(copies)], ignore_index=True)
        many["impression_id"] = [f"i{n}" for n in range(len(many))]
        given = {"one": answers(frame), "noisy": answers(frame, noise=0.7)}
        given = {name: np.concatenate([z] * copies, axis=1) for name, z in given.items()}
        found = line(contest(Judged.of(many, PARENTS), given), arm="noisy", head="click", tower=ALL)
        widths.append(found["ne_change_high"] - found["ne_change_low"])
    assert widths[1] == pytest.approx(widths[0], rel=1e-3)
    assert widths[2] == pytest.approx(widths[0] / 3, rel=0.2)


def test_against_the_truth_the_true_log_odds_cannot_be_beaten():
    frame = rows(truth=True)
    true = answers(frame)
    true[:, :, 1] = 0.0  # a child's true probability is one half
    off = true + np.random.default_rng(3).normal(0, 0.3, true.shape)
    table = contest(Judged.of(frame, PARENTS), {"truth": true, "off": off}, draws=20)
    of = table[(table["against"] == TRUTH) & (table["arm"] == "off")]
    assert (of["ne_change"] > 0).all()
    found = line(table, arm="truth", head="good_click", tower=ALL, against=TRUTH)
    assert found["ne"] == pytest.approx(1.0)
    assert found["positives"] == pytest.approx(frame["p_good_click"].sum())


def test_the_mean_over_heads_is_that_of_the_heads_and_what_settings_are_chosen_by():
    frame = rows()
    judged, given = Judged.of(frame, PARENTS), answers(frame, noise=0.3, seeds=1)
    table = contest(judged, {"one": given}, draws=3)
    heads = [line(table, head=head, tower=ALL, against=LABELS)["ne"] for head in PARENTS]
    assert line(table, head=MEAN)["ne"] == pytest.approx(np.mean(heads))
    assert mean_ne(judged, given[0]) == pytest.approx(np.mean(heads))


def test_a_cell_of_one_class_is_left_out():
    frame = rows()
    frame.loc[frame["tower"] == "a", "label_click"] = 0.0
    table = contest(Judged.of(frame, PARENTS), {"one": answers(frame)}, draws=2)
    assert set(table[table["head"] == "click"]["tower"]) == {ALL, "b"}
