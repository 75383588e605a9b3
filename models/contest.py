"""Arms of a comparison on the same rows: AUC and normalised entropy by head and tower, and how far each is from the first arm.

Intervals are 95%, of a bootstrap that draws users again with all their rows, the same ones for every arm; a figure is the mean over seeds, so
an interval holds what the test rows leave open, and `seed_sd` what a seed does. In a simulation the same is said against the true
probabilities, where a row counts as positive by its truth (a child's row by its parent's). Numpy only.

Shapes: N rows, H heads, S seeds, U users, D draws and the rows as they were, first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.metrics import sigmoid

ALL, MEAN = "all", "mean"
LABELS, TRUTH = "labels", "truth"
AT_ONCE = 4_000_000  # weights of rows x draws that an AUC holds


@dataclass(frozen=True)
class Judged:
    """What is known of the rows. `parents`: head -> its parent. `user` [N]: 0..U-1, a row without one is a user of its own."""

    heads: Sequence[str]
    parents: Mapping[str, str | None]
    tower: np.ndarray  # [N] str
    user: np.ndarray  # int64 [N]
    labels: Mapping[str, np.ndarray]  # float64 [N]: 1, 0, NaN = masked
    truth: Mapping[str, np.ndarray] | None = None  # float64 [N]: of a head given its parent, NaN where it does not apply
    whole: Mapping[str, np.ndarray] | None = None  # float64 [N]: with its parent's

    @staticmethod
    def of(rows: pd.DataFrame, parents: Mapping[str, str | None]) -> Judged:
        """`rows`: as etl/trial.py writes them."""
        alone = "\0" + rows["impression_id"].astype(str)
        user = pd.factorize(rows["user_id"].where(rows["user_id"].notna(), alone))[0]
        known = (
            {head: rows[f"{what}_{head}"].to_numpy(dtype=np.float64) for head in parents}
            if f"{what}_{next(iter(parents))}" in rows
            else None
            for what in ("label", "c", "p")
        )
        labels, truth, whole = known
        assert labels is not None
        return Judged(list(parents), parents, rows["tower"].to_numpy(dtype=str), user, labels, truth, whole)

    @property
    def towers(self) -> list[str]:
        return sorted(set(self.tower))

    def counted(self, head: str, against: str) -> tuple[np.ndarray, np.ndarray]:
        """By how much a row counts as positive and as negative, each float64 [N]; both 0 where the head is not known."""
        parent = self.parents[head]
        if against == LABELS:
            weight = np.ones(len(self.user)) if parent is None else (self.labels[parent] == 1).astype(np.float64)
            positive = self.labels[head]
        else:
            assert self.truth is not None and self.whole is not None
            weight = np.ones(len(self.user)) if parent is None else np.nan_to_num(self.whole[parent])
            positive = self.truth[head]
        known = ~np.isnan(positive)
        share = np.nan_to_num(positive)
        return weight * known * share, weight * known * (1 - share)


class Drawn(NamedTuple):
    """Of one arm in one cell, float64 [D] each, the first as it was; `seeds` [S] of the NE and of the AUC."""

    ne: np.ndarray
    auc: np.ndarray
    ratio: float
    seed_ne: np.ndarray
    seed_auc: np.ndarray


def contest(judged: Judged, answers: Mapping[str, np.ndarray], draws: int = 300) -> pd.DataFrame:
    """One row an arm, head, tower (and `all`; head `mean`: of the heads) and what it is held against. `answers`: arm -> log-odds [S, N, H].

    Columns: arm, head, tower, against, rows, positives, auc, auc_seed_sd, ne, ne_seed_sd, ratio (predicted over observed), and against the
    first arm auc_change and ne_change (relative: .01 is 1% more entropy left, so worse), each with _low and _high.
    """
    users = int(judged.user.max()) + 1
    weights_DU = np.random.default_rng(1).multinomial(users, np.full(users, 1 / users), draws).astype(np.float32)
    weights_DU = np.vstack([np.ones((1, users), np.float32), weights_DU])
    return pd.DataFrame(_lines(judged, answers, weights_DU))


def _lines(judged: Judged, answers: Mapping[str, np.ndarray], weights_DU: np.ndarray) -> Iterator[dict[str, object]]:
    for against in [LABELS] + ([TRUTH] if judged.truth is not None else []):
        whole: dict[str, list[Drawn]] = {name: [] for name in answers}
        for h, head in enumerate(judged.heads):
            positive, negative = judged.counted(head, against)
            for tower in [ALL, *judged.towers]:
                on = np.nonzero((positive + negative > 0) & ((judged.tower == tower) | (tower == ALL)))[0]
                if not positive[on].sum() or not negative[on].sum():
                    continue
                weights = weights_DU[:, judged.user[on]]
                found = {name: _drawn(z[:, on, h].astype(np.float64), positive[on], negative[on], weights) for name, z in answers.items()}
                stamp = {"head": head, "tower": tower, "against": against, "rows": len(on), "positives": float(positive[on].sum())}
                yield from _beside(found, stamp)
                if tower == ALL:
                    for name, drawn in found.items():
                        whole[name].append(drawn)
        if all(whole.values()):
            yield from _beside(
                {name: _mean(of_heads) for name, of_heads in whole.items()}, {"head": MEAN, "tower": ALL, "against": against}
            )


def _beside(found: Mapping[str, Drawn], stamp: Mapping[str, object]) -> Iterator[dict[str, object]]:
    first = next(iter(found.values()))
    for name, drawn in found.items():
        line = {"arm": name, **stamp, "auc": drawn.auc[0], "auc_seed_sd": _sd(drawn.seed_auc), "ne": drawn.ne[0]}
        line |= {"ne_seed_sd": _sd(drawn.seed_ne), "ratio": drawn.ratio}
        for what, change in (("auc", drawn.auc - first.auc), ("ne", drawn.ne / first.ne - 1)):
            low, high = np.nanpercentile(change[1:], [2.5, 97.5]) if len(change) > 1 else (np.nan, np.nan)
            line |= {f"{what}_change": change[0], f"{what}_change_low": float(low), f"{what}_change_high": float(high)}
        yield line


def _drawn(z_SN: np.ndarray, positive: np.ndarray, negative: np.ndarray, weights_DN: np.ndarray) -> Drawn:
    loss_SN = positive * np.logaddexp(0, -z_SN) + negative * np.logaddexp(0, z_SN)
    rows_D, positives_D = weights_DN @ (positive + negative), weights_DN @ positive
    rate_D = positives_D / rows_D
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of one class has no entropy
        entropy_D = -(rate_D * np.log(rate_D) + (1 - rate_D) * np.log1p(-rate_D))
        ne_DS = weights_DN @ loss_SN.T / (rows_D * entropy_D)[:, None]
    auc_DS = np.stack([_auc(z, positive, negative, weights_DN) for z in z_SN], axis=1)
    predicted = (sigmoid(z_SN) * (positive + negative)).sum(1).mean()
    return Drawn(ne_DS.mean(1), auc_DS.mean(1), float(predicted / positive.sum()), ne_DS[0], auc_DS[0])


def _auc(z: np.ndarray, positive: np.ndarray, negative: np.ndarray, weights_DN: np.ndarray) -> np.ndarray:
    """float64 [D]: share of (positive, negative) pairs in order, ties half (models.metrics.auc), of rows that count by weights."""
    order = np.argsort(z, kind="stable")
    starts = np.nonzero(np.diff(z[order], prepend=-np.inf))[0]  # of each level of the score
    found = []
    for part in np.array_split(weights_DN, max(1, weights_DN.size // AT_ONCE)):
        sorted_DN = part[:, order].astype(np.float64)
        up, down = (np.add.reduceat(sorted_DN * weight[order], starts, axis=1) for weight in (positive, negative))
        below = np.cumsum(down, axis=1) - down / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append((up * below).sum(1) / (up.sum(1) * down.sum(1)))
    return np.concatenate(found)


def _mean(of_heads: Sequence[Drawn]) -> Drawn:
    """Every head counts once. The ratio of a mean of heads tells nothing."""
    fields = (np.mean([getattr(drawn, name) for drawn in of_heads], axis=0) for name in ("ne", "auc", "seed_ne", "seed_auc"))
    ne, auc, seed_ne, seed_auc = fields
    return Drawn(ne, auc, float("nan"), seed_ne, seed_auc)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def mean_ne(judged: Judged, log_odds_NH: np.ndarray) -> float:
    """Mean over heads of the normalised entropy on all rows, against labels: what settings are chosen by."""
    one = np.ones((1, int(judged.user.max()) + 1), np.float32)
    lines = pd.DataFrame(_lines(Judged(**{**vars(judged), "truth": None, "whole": None}), {"": log_odds_NH[None]}, one))
    return float(lines[lines["head"] == MEAN]["ne"].iloc[0])
