"""What a training is asked for, and what it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from conf.training import ModelConf, Training
from models.manifest import Manifest
from models.warm_start import Statistics


@dataclass(frozen=True)
class TrainRequest:
    """`snapshot`, `bundle_dir`, `parent`, `checkpoints` are folders; `parent` is the bundle to start from, None for a new model.

    `checkpoints` is this training's alone and gone once the bundle is saved; None: none are written, and none is gone on from.
    `tensorboard` is the folder of its event files; None: none are written.
    """

    snapshot: str
    bundle_dir: str
    model_id: str
    model: ModelConf
    training: Training
    epochs: int
    seed: int
    parent: str | None = None
    checkpoints: str | None = None
    tensorboard: str | None = None


@dataclass(frozen=True)
class TrainResult:
    """`loss`: log-loss a head over the last epoch, each batch measured before it was learned from; None for a head left out (no loss rows).
    `ratio`: of the same rows, positives predicted / observed; None too where none was observed.

    `carried` and `fresh` name the parts that came from the parent and those that started new; both empty without a parent. `seconds` and
    `rows_per_second` are of this run, from the checkpoint on where there was one; all else is of the whole training.
    """

    model_id: str
    bundle_dir: str
    loss: dict[str, float | None]
    ratio: dict[str, float | None]
    left_out: list[str]
    rows: int
    steps: int
    seconds: float
    rows_per_second: float
    ranks: int
    carried: list[str]
    fresh: list[str]


def bundle_meta(request: TrainRequest, manifest: Manifest, statistics: Statistics, result: TrainResult) -> dict[str, Any]:
    """What bundle.json says of a trained model; the same whenever and wherever it was trained."""
    timing = ("seconds", "rows_per_second", "bundle_dir", "model_id")
    trained = {key: value for key, value in asdict(result).items() if key not in timing}
    return {
        "model_id": request.model_id,
        "template": manifest.template.model_dump(mode="json"),
        "heads": {name: head.model_dump(mode="json") for name, head in manifest.heads.items()},
        "towers": list(manifest.towers),
        "model": request.model.model_dump(mode="json"),
        "statistics": statistics,
        "trained": {**trained, "snapshot": manifest.id, "days": list(manifest.days), "seed": request.seed, "epochs": request.epochs},
    }
