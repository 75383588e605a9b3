"""A finished night on simulated logs against the truth: predicted over true, AUC beside the best possible, and the promise on calibration.

python jobs/truth.py --conf-file conf/demo.yaml --day 2026-05-16 [--strict]

For each head and source of the scored inventory: the sum of calibrated probabilities over the sum of true ones (ratio), the AUC, and the AUC
that the true probabilities reach on the same rows. The oracle is Platt scaling of the same fit rows with true probabilities for labels: what
is left of its error is drift, which no calibrator can know. Promised: where the fit rows hold 500 positives, |ratio - 1| exceeds the
oracle's by at most .10. Other cells are too few, shown with the 95% interval that the Poisson noise of their positives gives the ratio.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from conf.schema import Conf
from etl.session import start
from etl.splits import ONE_DAY, Night
from etl.truth import Platt, broken_promises, fit_bins, model_of, score_bins, scored_sums
from jobs.common import BUG, DONE, SCORING, conf_of, day_option, main, parser
from models.calibration import fit_platt
from models.metrics import Bins, auc

ENOUGH_POSITIVES = 500
LARGEST_EXCESS = 0.10


@dataclass(frozen=True)
class Cell:
    """One head in one source of a scored day. Probabilities of a child head include its parent's; fit_positives are those given its parent."""

    head: str
    source: str
    rows: int
    ratio: float
    oracle_ratio: float
    auc: float | None
    true_auc: float | None
    fit_positives: int

    @property
    def excess(self) -> float:
        """By how much |ratio - 1| exceeds the oracle's."""
        return abs(self.ratio - 1) - abs(self.oracle_ratio - 1)

    @property
    def verdict(self) -> str:
        if self.fit_positives < ENOUGH_POSITIVES:
            return "too few"
        return "holds" if self.excess <= LARGEST_EXCESS else "FAILS"

    def line(self) -> str:
        least, most = poisson_interval(self.fit_positives)
        noise = f"  ratio {self.ratio * least:.2f} to {self.ratio * most:.2f}" if self.verdict == "too few" and self.fit_positives else ""
        aucs = " ".join("    -" if value is None else f"{value:.3f}" for value in (self.auc, self.true_auc))
        return (
            f"{self.head:<11} {self.source:<9} {self.rows:>8,} {self.ratio:>7.3f} {self.oracle_ratio:>7.3f} {self.excess:>+7.3f} {aucs} "
            f"{self.fit_positives:>7,}  {self.verdict}{noise}"
        )


TITLE = f"{'head':<11} {'source':<9} {'rows':>8} {'ratio':>7} {'oracle':>7} {'excess':>7} {'AUC':>5} {'best':>5} {'fit pos':>7}  verdict"


def run(argv: Sequence[str] | None) -> int:
    options = parser("Compare a finished night's scores with the simulated truth.")
    options.add_argument("--day", type=day_option, required=True, help="the night's day (UTC); its scores are those of the day after")
    options.add_argument("--strict", action="store_true", help="exit 1 where a cell with enough positives misses the promise")
    arguments = options.parse_args(argv)
    conf, night = conf_of(arguments), Night.of(arguments.day, conf_of(arguments))
    spark = start(conf.spark, f"{conf.name} truth")
    model, trained_to = model_of(spark, conf, night.day, night.scored)
    first, last = trained_to + ONE_DAY, night.calibrate_to
    fits = fit_bins(spark, conf, model, first, last)
    sums = scored_sums(spark, conf, night.scored, oracle_of(fits))
    found = list(cells(conf, sums, score_bins(spark, conf, night.scored), fits))
    print(f"scores of {night.scored} by model {model}, calibrated on {first} to {last}, against the simulated truth")
    print("\n".join([TITLE, *(cell.line() for cell in found)]))
    failed = [cell for cell in found if cell.verdict == "FAILS"]
    held = sum(cell.verdict == "holds" for cell in found)
    print(f"{held} of {held + len(failed)} cells with at least {ENOUGH_POSITIVES} positives hold; {len(found) - held - len(failed)} are too few")
    broken = broken_promises(spark, conf, night.scored)
    for line in broken:
        print(f"truth: {line}", file=sys.stderr)
    if not broken:
        print("every inventory row is scored exactly once, every probability lies in (0, 1)")
    return SCORING if broken else BUG if failed and arguments.strict else DONE


def oracle_of(fits: pd.DataFrame) -> Platt:
    """(b0, b1) by (head, tower), fitted on true conditional probabilities for labels; cells of one class are left out: the identity."""
    fitted = {}
    for (head, tower), bins in fits.groupby(["head", "tower"]):
        if 0 < bins["expected"].sum() < bins["rows"].sum():
            mean = (bins["z_sum"] / bins["rows"]).to_numpy()
            fitted[str(head), str(tower)] = fit_platt(mean, bins["expected"].to_numpy(), bins["rows"].to_numpy())
    return fitted


def cells(conf: Conf, sums: pd.DataFrame, bins: pd.DataFrame, fits: pd.DataFrame) -> Iterator[Cell]:
    """By head in the order of the configuration, then source."""
    for head in conf.heads:
        for row in sums[sums["head"] == head].itertuples(index=False):
            mine = [frame[(frame["head"] == head) & (frame["source"] == row.source)] for frame in (bins, fits)]
            yield Cell(
                head,
                str(row.source),
                int(row.rows),
                float(row.predicted / row.true),
                float(row.oracle / row.true),
                auc_by(mine[0], "predicted"),
                auc_by(mine[0], "true"),
                int(mine[1]["positives"].sum()),
            )


def auc_by(bins: pd.DataFrame, by: str) -> float | None:
    """Expected AUC when rows are ordered `by`: each counts as positive with its true probability, and as negative with the rest."""
    side = bins[bins["by"] == by]
    return auc(Bins.of(side["bin"].to_numpy(), side["rows"].to_numpy(), side["positives"].to_numpy()))


def poisson_interval(count: int) -> tuple[float, float]:
    """95% limits of a Poisson mean over the `count` seen, by Byar's approximation; a ratio inherits them from its fit rows' positives."""
    if not count:
        return 0.0, float("inf")
    z, after = 1.959964, count + 1
    low = count * (1 - 1 / (9 * count) - z / (3 * count**0.5)) ** 3
    high = after * (1 - 1 / (9 * after) + z / (3 * after**0.5)) ** 3
    return low / count, high / count


if __name__ == "__main__":
    main(run)
