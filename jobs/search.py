"""Search widths, bottom, cross and learning rates for what predicts the last days best. Needs adtower[search] (Optuna).

python jobs/search.py --conf-file conf/demo.yaml --trials 50 [--split-at 2026-05-13] [--validate-days 1]

A trial is a model of the rows before the validation days (jobs/compare.py says how `examples` is parted; days from --split-at on are not read),
and its value the mean over heads of its normalised entropy on those days. The first trial is the configuration as it is. Optuna's TPE sampler
(Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011) proposes the others. Trials stand in `<workdir>/search/<id>.log`, so a
study of the same rows and configuration goes on where it was stopped; the best so far is `<workdir>/search/<id>.yaml`, to be named by `extends` or copied.
The best of many on few days is flattered: hold it against the configuration as it was on later days, by jobs/compare.py or a night's gate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from conf.arms import arm
from conf.load import ConfError
from conf.schema import Conf
from conf.training import ModelConf
from etl.runs import fingerprint
from etl.session import start
from jobs.common import DONE, StageFailed, conf_of, main, parser, say, write_whole
from jobs.compare import Comparison, one_or_more, split_of, split_options
from models.contest import mean_ne
from models.trial import Setting

BOTTOMS = {"64-32": (64, 32), "128-64": (128, 64), "256-128": (256, 128), "256-128-64": (256, 128, 64)}
TOWERS = {"32": (32,), "64-32": (64, 32), "128-64": (128, 64)}
RATES = ("learning_rate", "embedding_learning_rate", "linear_learning_rate")
AS_IT_IS = "as it is"


def run(argv: Sequence[str] | None) -> int:
    try:
        import optuna
    except ImportError as error:
        raise ConfError(f"jobs/search.py needs Optuna ({error}); install adtower[search]") from error
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--trials", type=one_or_more, default=50, metavar="N", help="in all, those of earlier runs included (default: 50)")
    split_options(options)
    arguments = options.parse_args(argv)
    conf = conf_of(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spark = start(conf.spark, f"adtower {conf.name} search")
    try:
        comparison = Comparison.of(spark, conf, split_of(spark, conf, arguments))
        path = Path(conf.workdir).resolve() / "search" / f"{fingerprint(comparison.folder.name, knobs(conf))}.yaml"
        study = _study(path.with_suffix(".log"), conf)
        towers, judged = comparison.rows.towers(), comparison.judged("validate")

        def value(trial: Any) -> float:
            tried = proposed(trial, conf) if any(other.state.is_finished() for other in study.trials) else conf
            place, prefix = replace(comparison, conf=tried), f"search: {trial.number + 1}/{arguments.trials}"
            setting = Setting(1.0, tried.training.epochs)
            try:
                answers = place.answers(arm(tried, "towers", towers), setting, conf.seed, "learn", "validate", prefix)
            except StageFailed as error:  # a learning rate too high, most likely: this one is no good, the others are
                raise optuna.TrialPruned(str(error)) from error
            found = mean_ne(judged, answers)
            trial.set_user_attr("knobs", knobs(tried))
            say(f"{prefix}: {found:.4f} {trial.params or AS_IT_IS}")
            return found

        left = arguments.trials - sum(trial.state.is_finished() for trial in study.trials)
        if left > 0:
            study.optimize(value, n_trials=left)
    finally:
        spark.stop()
    return _told(study, path, conf)


def proposed(trial: Any, conf: Conf) -> Conf:
    """The configuration with a trial's knobs."""
    cross = trial.suggest_categorical("cross", ["none", "latent", "dcn_v2"])
    model = {
        "bottom": trial.suggest_categorical("bottom", ["shared", "mmoe", "ple"]),
        "bottom_widths": BOTTOMS[trial.suggest_categorical("bottom_widths", list(BOTTOMS))],
        "tower_widths": TOWERS[trial.suggest_categorical("tower_widths", list(TOWERS))],
        "embedding_width": trial.suggest_categorical("embedding_width", [8, 16, 32]),
        "cross": cross,
        "cross_order": 2 if cross == "none" else trial.suggest_int("cross_order", 2, 3),
        "dropout": trial.suggest_categorical("dropout", [0.0, 0.1, 0.2]),
    }
    rates = {name: _short(getattr(conf.training, name) * trial.suggest_float(f"{name} x", 0.1, 4, log=True)) for name in RATES}
    training = rates | {
        "epochs": trial.suggest_int("epochs", 1, 8, log=True),
        "residual_decay": _short(trial.suggest_float("residual_decay", 1e-4, 1.0, log=True)),
    }
    made = ModelConf.model_validate(conf.model.model_dump() | model)
    return conf.model_copy(update={"model": made, "training": conf.training.model_copy(update=training)})


def knobs(conf: Conf) -> dict[str, Any]:
    """What a trial decides, as blocks of a configuration file."""
    model = ("bottom", "bottom_widths", "tower_widths", "embedding_width", "cross", "cross_order", "dropout")
    return conf.model_dump(mode="json", include={"model": set(model), "training": {*RATES, "epochs", "residual_decay"}})


def _short(value: float) -> float:
    """As it will stand in the file, so that this and nothing else was tried."""
    return float(f"{value:.3g}")


def _study(log: Path, conf: Conf) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    log.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(log)))
    study = optuna.create_study(study_name=log.stem, storage=storage, direction="minimize", load_if_exists=True)
    # Of a seed of its own for each run, since a sampler that begins anew would propose the same again.
    study.sampler = optuna.samplers.TPESampler(seed=conf.seed + len(study.trials))
    return study


def _told(study: Any, path: Path, conf: Conf) -> int:
    done = sorted((trial for trial in study.trials if trial.value is not None), key=lambda trial: trial.value)
    if not done:
        raise ConfError("no trial came to its end; lower training.learning_rate, which all are multiples of")
    first = next((trial.value for trial in done if not trial.params), None)
    for trial in done[:10]:
        print(f"{trial.value:.4f}  trial {trial.number + 1}: {trial.params or AS_IT_IS}")
    best = done[0]
    before = f"{first:.4f}" if first is not None else "did not end"
    head = (
        f"# Of {len(done)} trials of jobs/search.py on {conf.name}: mean NE on the validation days {best.value:.4f}, the configuration as it was {before}.\n"
        "# Flattered by being the best of many: hold it against that on later days before it serves.\n"
    )
    write_whole(path, head + yaml.safe_dump(best.user_attrs["knobs"], sort_keys=False))
    print(f"search: {path}", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    main(run)
