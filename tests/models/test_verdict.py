"""Verdicts from sums of known rows: hand arithmetic, and an interval that covers as often as it says."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from conf.gates import Publication
from models.metrics import sigmoid
from models.verdict import Decision, influence, judge

CONF = Publication(min_positives=20)


def cell(user: np.ndarray, label: np.ndarray, a: np.ndarray, b: np.ndarray, head: str = "click", tower: str = "feed") -> tuple[Any, Any]:
    """(sums, bins) of one cell's rows, as etl/comparison.py makes them, each row a bin of its own."""
    bins = pd.concat(
        [
            pd.DataFrame({"head": head, "tower": tower, "side": side, "bin": np.arange(len(z)), "z": np.sort(z), "rows": 1.0}).assign(
                positives=label[np.argsort(z, kind="stable")].astype(float)
            )
            for side, z in (("a", a), ("b", b))
        ],
        ignore_index=True,
    )
    effects = influence(bins)
    of_row = {}
    for side, z in (("a", a), ("b", b)):
        part, place = effects[effects["side"] == side], np.argsort(np.argsort(z, kind="stable"), kind="stable")
        of_row[side] = np.where(label == 1, part["if_positive"].to_numpy()[place], part["if_negative"].to_numpy()[place])
    values = {f"loss_{side}": np.logaddexp(0, z) - label * z for side, z in (("a", a), ("b", b))}
    values |= {"p_a": sigmoid(a), "p_b": sigmoid(b), "label": label.astype(float), "auc": of_row["a"] - of_row["b"]}
    by_user = pd.DataFrame(values).groupby(user).sum()
    sums: dict[str, Any] = {"head": head, "tower": tower, "rows": len(label), "positives": label.sum(), "users": len(by_user)}
    sums |= {f"sum_{name}": by_user[name].sum() for name in values}
    sums |= {f"sq_{x}_{y}": (by_user[x] * by_user[y]).sum() for x, y in combinations_with_replacement(sorted(values), 2)}
    return sums, bins


def verdict(*cells: tuple[Any, Any], conf: Publication = CONF, first: bool = False) -> Decision:
    sums = pd.DataFrame([sums for sums, _ in cells])
    numbers = sums.drop(columns=["head", "tower"]).sum()  # no user has rows in two of these cells
    total = pd.DataFrame([numbers.to_dict() | {"head": "(all)", "tower": "(all)"}])
    return judge(pd.concat([sums, total], ignore_index=True), pd.concat([bins for _, bins in cells]), conf, first=first)


def world(
    seed: int, rows: int = 20_000, users: int = 2_000, level: float = -2.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """(user, label, true log-odds, random)."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, rows)
    z = level + random.normal(0, 0.7, users)[user] + random.normal(0, 0.7, rows)
    return user, (random.random(rows) < sigmoid(z)).astype(int), z, random


def test_a_rise_of_entropy_and_its_interval_are_those_of_hand_arithmetic() -> None:
    user, label = np.array([1, 1, 2, 3]), np.array([1, 0, 0, 1])
    a, b = np.log([3.0, 1 / 3, 1.0, 1.0]), np.zeros(4)  # p: 3/4, 1/4, 1/2, 1/2 against 1/2 everywhere
    found = verdict(cell(user, label, a, b), conf=Publication(min_positives=1)).cells[0]
    loss_a, loss_b = np.array([2 * np.log(4 / 3), np.log(2), np.log(2)]), np.log(2) * np.array([2, 1, 1])  # by user
    rise = loss_a.sum() / loss_b.sum() - 1
    deviation = 1.959964 * np.sqrt(((loss_a - (1 + rise) * loss_b) ** 2).sum()) / loss_b.sum()
    assert found.ne_rise == pytest.approx((rise, rise - deviation, rise + deviation), rel=1e-5)
    assert found.ratio is not None and found.ratio.value == pytest.approx(1.0) and found.users == 3


def test_the_change_of_auc_is_scikit_learns_and_its_interval_that_of_resampled_users() -> None:
    user, label, z, random = world(1, rows=4_000, users=400)
    a, b = z + random.normal(0, 0.5, len(z)), z + random.normal(0, 1.0, len(z))
    change = verdict(cell(user, label, a, b)).cells[0].auc_change
    assert change is not None and change.value == pytest.approx(roc_auc_score(label, a) - roc_auc_score(label, b), abs=1e-6)
    rows_of = [np.flatnonzero(user == one) for one in range(400)]
    resampled = []
    for _ in range(400):
        rows = np.concatenate([rows_of[one] for one in random.integers(0, 400, 400)])
        resampled.append(roc_auc_score(label[rows], a[rows]) - roc_auc_score(label[rows], b[rows]))
    assert (change.high - change.low) / 2 / 1.959964 == pytest.approx(np.std(resampled), rel=0.15)


def test_an_interval_over_users_covers_the_truth_of_all_users_where_one_over_rows_would_not() -> None:
    def drawn(random: np.random.Generator, users: int) -> tuple[np.ndarray, ...]:
        """50 rows of each user; on all of them each model is wrong by the same amount."""
        user = np.repeat(np.arange(users), 50)
        z = -1.5 + random.normal(0, 1.0, users)[user]
        a, b = z + random.normal(0, 1.0, users)[user], z + random.normal(0, 1.0, users)[user]
        return user, (random.random(len(z)) < sigmoid(z)).astype(int), a, b

    _, label, a, b = drawn(np.random.default_rng(99), 100_000)
    true = (np.logaddexp(0, a) - label * a).sum() / (np.logaddexp(0, b) - label * b).sum() - 1
    covered = {"users": 0, "rows": 0}
    for seed in range(100):
        user, label, a, b = drawn(np.random.default_rng(seed), 100)
        for over, cluster in (("users", user), ("rows", np.arange(len(user)))):
            found = verdict(cell(cluster, label, a, b)).cells[0].ne_rise
            assert found is not None
            covered[over] += found.low <= true <= found.high
    assert covered["users"] >= 88 and covered["rows"] <= 75, covered


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (lambda z, random: np.full(len(z), z.mean()), "AUC"),  # one number for all
        (lambda z, random: z + np.log(1.8), "predicted over observed is 1."),  # the right order at another level
        (lambda z, random: random.permutation(z), "normalised entropy"),  # of other rows
        (lambda z, random: z * 4 - z.mean() * 3, "PSI"),  # far too sure
    ],
)
def test_a_bad_candidate_is_refused_in_words_that_name_cell_figure_and_knob(candidate: Any, words: str) -> None:
    user, label, z, random = world(3)
    found = verdict(cell(user, label, candidate(z, random), z + random.normal(0, 0.3, len(z))))
    assert found.verdict == "refuse" and "click in feed" in found.reason and words in found.reason and "publication." in found.reason


def test_a_candidate_as_good_is_published_one_that_nobody_can_tell_waits_and_a_first_one_needs_its_level_alone() -> None:
    user, label, z, random = world(4)
    b = z + random.normal(0, 0.3, len(z))
    assert verdict(cell(user, label, z, b)).verdict == "publish"
    few = slice(0, 600)
    noisy = b + random.normal(0, 0.4, len(z))
    waits = verdict(cell(user[few], label[few], noisy[few], b[few]))
    assert waits.verdict == "too little" and "cannot tell" in waits.reason and "publication.max_ne_rise" in waits.reason
    rare = verdict(cell(user[few], label[few], z[few], b[few]), conf=Publication(min_positives=1000))
    assert rare.verdict == "too little" and "no cell has 1000 positives" in rare.reason
    shuffled = random.permutation(z)
    assert verdict(cell(user, label, shuffled, shuffled), first=True).verdict == "publish"
    off = z + np.log(2)
    assert verdict(cell(user, label, off, off), first=True).verdict == "refuse"


def test_a_rare_head_that_cannot_be_told_holds_nobody_back_and_one_bad_cell_refuses_all() -> None:
    user, label, z, random = world(5)
    rare_user, rare_label, rare_z, _ = world(6, level=-6.0)
    b, rare_b = z + random.normal(0, 0.5, len(z)), rare_z + random.normal(0, 0.5, len(z))
    good = cell(user, label, z, b)
    wide = cell(rare_user + 10_000, rare_label, rare_z + random.normal(0, 0.55, len(z)), rare_b, head="hide")
    found = verdict(good, wide)
    assert found.verdict == "publish" and found.judged == 2
    rise = found.cells[1].ne_rise
    assert rise is not None and rise.high > CONF.max_ne_rise, "the rare head alone could not be published"
    bad = cell(rare_user + 10_000, rare_label, random.permutation(rare_z), rare_b, head="hide")
    assert verdict(good, bad).verdict == "refuse" and "hide in feed" in verdict(good, bad).reason


def test_of_many_reasons_the_first_are_told_and_the_others_counted() -> None:
    cells = []
    for place in range(5):
        user, label, z, random = world(10 + place)
        b = z + random.normal(0, 0.3, len(z))
        cells.append(cell(user + place * 10_000, label, random.permutation(z), b, tower=f"t{place}"))
    found = verdict(*cells)
    refusals = [reason for one in found.cells for reason in one.refuses]
    assert (
        len(refusals) == 10
        and found.reason.count("publication.") == 6
        and found.reason.endswith("; and 4 more, cell by cell in the report")
    )


def test_both_models_off_by_the_same_level_is_no_reason_to_refuse() -> None:
    user, label, z, random = world(7)
    off = z + np.log(1.8)
    assert verdict(cell(user, label, off, off + random.normal(0.05, 0.1, len(z)))).verdict == "publish"
