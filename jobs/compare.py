"""Hold models beside each other on the same rows: towers, one merged model, a model for each source or head, or less of the template.

python jobs/compare.py --conf-file conf/demo.yaml [--arms towers,merged,...] [--seeds 3] [--split-at 2026-05-13] [--ablate]

Reads `examples`, whose labels must be final. Rows shown before --split-at are learned from, the others judge. Where --rates or --epochs name
several values, each arm's are chosen by its mean normalised entropy on the last --validate-days before the split, with its first seed, and
the chosen model learns from these days too. `conf/arms.py` says what the arms are. Prints a table and leaves `table.csv`, `table.txt` and
`report.html` in `<workdir>/compare/<id>`; finished trainings are kept there, so a comparison goes on where it was stopped and takes in more
arms or seeds later. Delete that folder to begin anew, also after a change of code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.arms import KNOWN, PARADOX, Arm, Which, arm, groups
from conf.schema import Conf
from etl import schemas
from etl.contents import Contents
from etl.runs import fingerprint
from etl.session import start
from etl.splits import ONE_DAY
from etl.tables import TableError, read
from etl.trial import Split, TrialRows
from jobs.common import DONE, TRAINING, StageFailed, conf_of, day_option, main, parser, say, write_whole
from models.contest import Judged, contest, mean_ne
from models.errors import TrainingFailed
from models.trial import Question, Setting, answers
from validation.contest import page, told


def run(argv: Sequence[str] | None) -> int:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--arms", default=",".join(PARADOX), help=f"of {', '.join(KNOWN)}; the first is what others are held against")
    options.add_argument(
        "--ablate", action="store_true", help="arms without each group of features in place of --arms, ranked by their cost"
    )
    split_options(options)
    options.add_argument("--seeds", type=one_or_more, default=3, metavar="N", help="trainings an arm, from seed 1 on (default: 3)")
    options.add_argument("--epochs", type=whole_numbers, help="epochs to choose from, such as 1,2,3; by default training.epochs")
    options.add_argument(
        "--rates", type=factors, default=(1.0,), help="factors of the learning rates to choose from, such as 0.5,1,2 (default: 1)"
    )
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    ablated = [f"without_{name}" for name in groups(conf)]
    names = ["towers", *ablated] if arguments.ablate else arguments.arms.split(",")
    if unknown := set(names) - {*KNOWN, *ablated}:
        options.error(f"--arms names {', '.join(sorted(unknown))}; there are {', '.join(KNOWN)}")
    settings = [Setting(*pair) for pair in product(arguments.rates, arguments.epochs or (conf.training.epochs,))]
    spark = start(conf.spark, f"adtower {conf.name} compare")
    try:
        split = split_of(spark, conf, arguments)
        table, path = compare(spark, conf, split, names, settings, range(1, arguments.seeds + 1))
    finally:
        spark.stop()
    print("\n".join(told(table, ranked=arguments.ablate)))
    print(f"compare: {path}", file=sys.stderr)
    return DONE


def compare(
    spark: SparkSession, conf: Conf, split: Split, names: Sequence[str], settings: Sequence[Setting], seeds: Sequence[int]
) -> tuple[pd.DataFrame, Path]:
    """The table of models/contest.py, and the page that shows it."""
    comparison = Comparison.of(spark, conf, split)
    chosen, given = comparison.answered(names, settings, seeds)
    table = contest(comparison.judged("test"), given)
    folder = comparison.folder
    settings_of = {name: asdict(one) | {"seconds": comparison.seconds(name, one, seeds)} for name, one in chosen.items()}
    write_whole(folder / "chosen.json", json.dumps(settings_of, indent=1) + "\n")
    write_whole(folder / "table.csv", table.to_csv(index=False))
    write_whole(folder / "table.txt", "\n".join(told(table)) + "\n")
    return table, write_whole(folder / "report.html", page(conf.name, conf.simulation is not None, split, len(seeds), settings_of, table))


@dataclass(frozen=True)
class Comparison:
    """The rows of one split, and what arms have answered about them."""

    conf: Conf
    rows: TrialRows
    folder: Path

    @staticmethod
    def of(spark: SparkSession, conf: Conf, split: Split) -> Comparison:
        inputs = Contents(spark, conf).of_days("examples", split.first, split.last)
        made_of = conf.model_dump(mode="json", include={"heads", "template", "sampling", "seed"})
        folder = Path(conf.workdir).resolve() / "compare" / fingerprint(inputs, made_of, asdict(split), conf.training.virtual_shards)
        return Comparison(conf, TrialRows(spark, conf, split, folder), folder)

    def answered(
        self, names: Sequence[str], settings: Sequence[Setting], seeds: Sequence[int]
    ) -> tuple[dict[str, Setting], dict[str, np.ndarray]]:
        """Of each arm the setting that was chosen, and its answers about the test rows, float32 [S, N, H]."""
        towers, chosen, given = self.rows.towers(), {}, {}
        for number, name in enumerate(names, 1):
            tried, prefix = arm(self.conf, name, towers), f"compare: {number}/{len(names)} {name}"
            chosen[name] = self.best(tried, settings, seeds[0], prefix)
            given[name] = np.stack([self.answers(tried, chosen[name], seed, "both", "test", prefix) for seed in seeds])
        return chosen, given

    def judged(self, which: Which) -> Judged:
        parents = {name: head.parent for name, head in self.conf.heads.items()}
        return Judged.of(pd.read_parquet(self.rows.facts(which)), parents)

    @cached_property
    def validating(self) -> Judged:
        return self.judged("validate")

    def best(self, tried: Arm, settings: Sequence[Setting], seed: int, prefix: str) -> Setting:
        """The setting whose model of the earlier rows answers best for the later ones."""
        if len(settings) == 1:
            return settings[0]
        losses = self.losses(tried, settings, seed, prefix)
        say(f"{prefix}: " + ", ".join(f"{setting} {loss:.4f}" for setting, loss in losses.items()))
        return min(losses, key=lambda setting: losses[setting])

    def losses(self, tried: Arm, settings: Sequence[Setting], seed: int, prefix: str) -> dict[Setting, float]:
        """Mean NE on the validation rows, by setting."""
        return {one: mean_ne(self.validating, self.answers(tried, one, seed, "learn", "validate", prefix)) for one in settings}

    def answers(self, tried: Arm, setting: Setting, seed: int, learn: Which, asked: Which, prefix: str) -> np.ndarray:
        """float32 [N, H]; trained once, then read from its file, beside which stands what was trained and for how many seconds."""
        path = self._kept(tried, setting, seed, learn, asked)
        if path.is_file():
            return np.load(path)
        training = setting.of(self.conf.training)
        question = Question(learn, asked, self.judged(asked).tower, list(self.conf.heads))
        try:
            found, seconds = answers(tried, self.rows, question, training, seed, self.folder / "bundles")
        except TrainingFailed as error:
            raise StageFailed(f"{prefix}: {error}", TRAINING) from error
        about = {"arm": tried.name, **asdict(setting), "seed": seed, "learned": learn, "asked": asked, "seconds": round(seconds, 1)}
        write_whole(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
        scratch = path.with_suffix(".tmp")
        with scratch.open("wb") as file:
            np.save(file, found)
        os.replace(scratch, path)
        say(f"{prefix}: {setting}, seed {seed}, {learn} -> {asked}, {seconds:.0f} s of training")
        return found

    def seconds(self, name: str, setting: Setting, seeds: Sequence[int]) -> float:
        """Of one training of the arm on all rows before the split, the mean over seeds."""
        tried = arm(self.conf, name, self.rows.towers())
        kept = (self._kept(tried, setting, seed, "both", "test").with_suffix(".json") for seed in seeds)
        return round(float(np.mean([json.loads(path.read_text())["seconds"] for path in kept])), 1)

    def _kept(self, tried: Arm, setting: Setting, seed: int, learn: Which, asked: Which) -> Path:
        training = setting.of(self.conf.training)
        models = ((part.view.name, part.model, part.as_large_as and part.as_large_as.model) for part in tried.parts)
        parts = [(name, *(model and model.model_dump(mode="json") for model in of)) for name, *of in models]
        key = fingerprint(
            parts, tried.parts[0].view.template.model_dump(mode="json"), training.deciding, setting.epochs, seed, learn, asked
        )
        return self.folder / "answers" / f"{tried.name}-{key}.npy"


def split_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--from", dest="first", type=day_option, help="first day to learn from; by default the first there is")
    options.add_argument("--to", dest="last", type=day_option, help="last day to judge on; by default the last whose labels are final")
    options.add_argument("--split-at", type=moment, help="YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS (UTC); by default the start of the last day")
    options.add_argument(
        "--validate-days", type=one_or_more, default=1, metavar="DAYS", help="before the split, that choose settings (default: 1)"
    )


def split_of(spark: SparkSession, conf: Conf, arguments: argparse.Namespace) -> Split:
    """The days there are, of which the last have no final labels yet, parted as asked."""
    days = read(spark, conf.workdir, schemas.examples(conf)).agg(F.min("day"), F.max("day")).first()
    if days is None or days[0] is None:
        raise TableError("examples has no rows to compare on; build some days first: jobs/nightly.py --only ingest,build_examples")
    final = days[1] - (conf.label_days - 1) * ONE_DAY
    last = min(arguments.last or final, final)
    test_from = arguments.split_at or moment(last.isoformat())
    return Split(arguments.first or days[0], last, test_from - timedelta(days=arguments.validate_days), test_from)


def moment(text: str) -> datetime:
    """A day or a time, UTC."""
    found = datetime.fromisoformat(text) if "T" in text else datetime.combine(day_option(text), clock.min)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def one_or_more(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(one_or_more(part) for part in text.split(","))


def factors(text: str) -> tuple[float, ...]:
    found = tuple(float(part) for part in text.split(","))
    if not all(0 < factor < 1000 for factor in found):
        raise argparse.ArgumentTypeError(f"{text!r}: factors lie above 0 and below 1000")
    return found


if __name__ == "__main__":
    main(run)
