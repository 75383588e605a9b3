"""A finished night on simulated logs against the truth: predicted over true, AUC beside the best possible, and the promise on calibration.

python jobs/truth.py --conf-file conf/demo.yaml --day 2026-05-16 [--strict]

For each head and source of the scored inventory: the sum of calibrated probabilities over the sum of true ones (ratio), the AUC, and the
AUC that the true probabilities reach on the same rows. The oracle is Platt scaling of the same fit rows with true probabilities for labels:
what is left of its error is drift, which no calibrator can know. Promised: where the fit rows hold 500 positives, |ratio - 1| exceeds the
oracle's by at most .10. Other cells are too few, shown with the 95% interval that the Poisson noise of their positives gives the ratio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from conf.schema import Conf
from etl import schemas
from etl.calibration_stats import faded
from etl.registry import registered
from etl.session import start
from etl.splits import Night
from etl.tables import TableError, read_days
from etl.truth import Platt, broken_promises, fit_bins, score_bins, scored_sums, true_rows
from jobs.common import BUG, DONE, SCORING, conf_of, day_option, main, parser
from models.metrics import Bins, auc, poisson_interval
from models.platt import fit_platt

ENOUGH_POSITIVES = 500
LARGEST_EXCESS = 0.10
VERDICTS = {
    "holds": "hold",
    "FAILS": "fail",
    "too few": f"have fewer than {ENOUGH_POSITIVES} positives among their fit rows (the interval is the noise of those, Poisson, 95%)",
}


@dataclass(frozen=True)
class Cell:
    """One head in one source of a scored day. A child's probabilities include its parent's; fit_positives those given the parent."""

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
    conf = conf_of(arguments)
    night, spark = Night.of(arguments.day, conf), start(conf.spark, f"adtower {conf.name} truth")
    try:
        found, broken = compare(spark, conf, night)
    finally:
        spark.stop()
    print("\n".join([TITLE, *(cell.line() for cell in found)]))
    counts = Counter(cell.verdict for cell in found)
    print(", ".join(f"{counts[verdict]} cells {told}" for verdict, told in VERDICTS.items()))
    print("\n".join(broken) if broken else "every inventory row is scored exactly once, every probability lies in (0, 1)")
    return SCORING if broken else BUG if counts["FAILS"] and arguments.strict else DONE


def compare(spark: SparkSession, conf: Conf, night: Night) -> tuple[list[Cell], list[str]]:
    """The cells of the night's scores, and what they break of the promises that hold for every row."""
    scored, heads = night.scored, conf.heads
    scores = read_days(spark, conf.workdir, schemas.scores(conf), scored, scored)
    model, trained_to = model_of(spark, conf, night, scores)
    first, last = night.fit_from(trained_to, conf.calibration.fit_days), night.calibrate_to
    served = read_days(spark, conf.workdir, schemas.served(conf), first, last)
    seen, by = true_rows(spark, conf, "impressions", first, last), ("source", "tower", "day")
    fits = fit_bins(served.where(served["model"] == model), seen, heads, by)
    truth = true_rows(spark, conf, "inventory", scored, scored).persist()
    inventory = read_days(spark, conf.workdir, schemas.inventory(conf), scored, scored)
    print(f"scores of {scored} by model {model}, calibrated on {first} to {last}, against the simulated truth")
    sums = scored_sums(scores, truth, heads, oracle_of(faded(fits, last, conf.calibration.half_life_days)))
    return list(cells(conf, sums, score_bins(scores, truth, heads), fits)), broken_promises(scores, inventory, truth, heads)


def model_of(spark: SparkSession, conf: Conf, night: Night, scores: DataFrame) -> tuple[str, date]:
    """The one model that scored the day, and the last day it was trained on."""
    named = [row["model"] for row in scores.select("model").distinct().collect()]
    found = registered(spark, conf, named[0]) if len(named) == 1 else None
    if found is None:
        raise TableError(f"{len(named)} models scored {night.scored}, one that is registered is needed; run the night of {night.day} first")
    return found.model, found.trained_to


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
        for row in sums[sums["head"] == head].to_dict("records"):
            ordered, fitted = (frame[(frame["head"] == head) & (frame["source"] == row["source"])] for frame in (bins, fits))
            ratio, oracle_ratio = row["predicted"] / row["true"], row["oracle"] / row["true"]
            aucs = auc_by(ordered, "predicted"), auc_by(ordered, "true")
            yield Cell(head, row["source"], row["rows"], ratio, oracle_ratio, *aucs, fit_positives=int(fitted["positives"].sum()))


def auc_by(bins: pd.DataFrame, by: str) -> float | None:
    """Expected AUC when rows are ordered `by`: each counts as positive with its true probability, and as negative with the rest."""
    side = bins[bins["by"] == by]
    return auc(Bins.of(side["bin"].to_numpy(), side["rows"].to_numpy(), side["positives"].to_numpy()))


if __name__ == "__main__":
    main(run)
