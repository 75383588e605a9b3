"""Training: a snapshot and widths -> a bundle. `train` is for callers, `train_on_rank` runs on every rank, `_step` is one update.

Numbers do not depend on the number of ranks beyond rounding: the manifest fixes the batches, losses have constant divisors, gradients are
summed. (With dropout the masks are each rank's own.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from conf.schema import ModelConf, Training
from models import bundle
from models.batches import Batch, read_batches, shards_of, steps_an_epoch
from models.distributed import Collective, launch
from models.engagement import EngagementModel
from models.errors import TrainingFailed
from models.losses import head_losses, share_of_weight
from models.manifest import Manifest, read_manifest
from models.optimizers import FlatGradient, adamw, merged, pace, rowwise_adagrad_
from models.progress import Progress
from models.warm_start import Start, cold, warm


@dataclass(frozen=True)
class TrainRequest:
    """`snapshot`, `bundle_dir`, `parent` are folders; `parent` is the bundle to start from, None for a new model."""

    snapshot: str
    bundle_dir: str
    model_id: str
    model: ModelConf
    training: Training
    epochs: int
    seed: int
    parent: str | None = None


@dataclass(frozen=True)
class TrainResult:
    """`loss`: log-loss a head over the last epoch, each batch measured before it was learned from; None for a head left out (no loss rows).

    `carried` and `fresh` name the parts that came from the parent and those that started new; both empty without a parent.
    """

    model_id: str
    bundle_dir: str
    loss: dict[str, float | None]
    left_out: list[str]
    rows: int
    steps: int
    seconds: float
    rows_per_second: float
    ranks: int
    carried: list[str]
    fresh: list[str]


def train(request: TrainRequest) -> TrainResult:
    """Train by `request.training.backend` and write the bundle. Any failure is TrainingFailed, and leaves no bundle."""
    return launch(request.training, train_on_rank, request)


def train_on_rank(collective: Collective, request: TrainRequest) -> TrainResult:
    manifest = read_manifest(request.snapshot)
    shards = shards_of(collective.rank, collective.size, len(manifest.shards))
    manifest.require_unchanged(shards)
    left_out = [head for head, weight in manifest.weight.items() if weight <= 0]
    _require_something_to_learn(manifest, left_out, collective.rank)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        start = warm(manifest, request.model, request.parent) if request.parent else cold(manifest, request.model)
        steps = steps_an_epoch(manifest, request.training.batch_size) * request.epochs
        fit = Fit(start, manifest, request, collective, steps)
        progress = Progress(collective.rank, steps, manifest.rows * request.epochs)
        for epoch in range(request.epochs):
            fit.begin_epoch()
            for batch in read_batches(manifest, request.training.batch_size, shards, epoch, request.seed):
                loss = fit.step(batch.to(collective.device))
                progress.step(fit.steps, loss)
    result = _result(request, manifest, fit, left_out, progress, collective.size)
    if collective.rank == 0:
        _save(request, manifest, fit, result)
    collective.barrier()
    return result


class Fit:
    """A model being fitted on one rank; every rank holds the same weights after every step.

    Shapes: B local rows, H heads, U rows of the table in the local batch, E embedding width.
    """

    def __init__(self, start: Start, manifest: Manifest, request: TrainRequest, collective: Collective, steps: int) -> None:
        self.start, self.training, self.collective = start, request.training, collective
        self.model: EngagementModel = start.model.to(collective.device).train()
        self.squares = start.squares.to(collective.device)
        for tensor in (*self.model.state_dict().values(), self.squares):
            collective.broadcast_(tensor)
        self.share_H = share_of_weight(manifest.weight, manifest.rows, self.training.batch_size).to(collective.device)
        self.flat = FlatGradient(self.model, extra=len(manifest.heads))
        self.adamw = adamw(self.model, self.training)
        self.steps, self.steps_in_all, self.loss_H = 0, steps, torch.zeros(len(manifest.heads), dtype=torch.float64)

    def begin_epoch(self) -> None:
        self.loss_H.zero_()

    def step(self, batch: Batch) -> float:
        """One update by the global batch of which `batch` is this rank's part; returns its loss, summed over heads."""
        self.flat.all.zero_()
        lookup = self.model.representation.embedding.lookup(batch.features.ids_BF)
        with torch.autocast(self.collective.device.type, torch.bfloat16, enabled=self.collective.device.type == "cuda"):
            logits_BH = self.model(batch.features, lookup)
        loss_H = head_losses(logits_BH, batch.labels_BH, batch.known_BH, batch.weight_B, self.share_H)
        loss_H.sum().backward()
        self.flat.extra.copy_(loss_H.detach())
        self.collective.sum_(self.flat.all)
        ids_U, gradient_UE = self._gathered(lookup.ids_U, lookup.rows_UE.grad)
        norm = self.flat.clip_(self.training.gradient_clip)
        self._require_finite(norm + gradient_UE.sum())
        share = pace(self.steps, self.steps_in_all, self.training.warm_up_share)
        for group in self.adamw.param_groups:
            group["lr"] = share * self.training.learning_rate
        self.adamw.step()
        table, rate = self.model.representation.embedding.table, share * self.training.embedding_learning_rate
        rowwise_adagrad_(table, self.squares, ids_U, gradient_UE, rate)
        self.steps += 1
        self.loss_H += self.flat.extra.cpu()
        return float(self.flat.extra.sum())

    def _gathered(self, ids_U: Tensor, gradient_UE: Tensor | None) -> tuple[Tensor, Tensor]:
        """The embedding gradient of all ranks, each row once: every rank then makes the same update."""
        if gradient_UE is None:  # a template without embedded features
            gradient_UE = self.squares.new_zeros(0, self.model.representation.embedding.table.shape[1])
        ids, rows = self.collective.gather_rows(ids_U, gradient_UE)
        return (ids, rows) if self.collective.size == 1 else merged(ids, rows)

    def _require_finite(self, total: Tensor) -> None:
        # Of sums over all ranks, so all ranks stop at the same step.
        if not torch.isfinite(total + self.flat.extra.sum()):
            raise TrainingFailed(
                f"loss or gradient is not finite at step {self.steps + 1} (losses by head: {self.flat.extra.tolist()}); "
                f"lower training.learning_rate and training.embedding_learning_rate, or look for wild values where transform is none"
            )


def _require_something_to_learn(manifest: Manifest, left_out: Sequence[str], rank: int) -> None:
    if len(left_out) == len(manifest.heads):
        raise TrainingFailed(
            f"no head has a labelled row in {manifest.directory}; train on more days (clock.train_days) or check the labels"
        )
    if left_out and rank == 0:
        print(
            f"train: no labelled row for {', '.join(left_out)}; left out of the loss, scores stay at the base rate",
            file=sys.stderr,
            flush=True,
        )


def _result(request: TrainRequest, manifest: Manifest, fit: Fit, left_out: list[str], progress: Progress, ranks: int) -> TrainResult:
    # Summed over an epoch, the batches' losses are the mean loss x rows / batch size.
    mean_H = (fit.loss_H * request.training.batch_size / manifest.rows).tolist()
    rows = manifest.rows * request.epochs
    return TrainResult(
        model_id=request.model_id,
        bundle_dir=str(request.bundle_dir),
        loss={head: None if head in left_out else mean for head, mean in zip(manifest.heads, mean_H, strict=True)},
        left_out=left_out,
        rows=rows,
        steps=fit.steps,
        seconds=progress.seconds,
        rows_per_second=rows / max(progress.seconds, 1e-9),
        ranks=ranks,
        carried=fit.start.carried,
        fresh=fit.start.fresh,
    )


def _save(request: TrainRequest, manifest: Manifest, fit: Fit, result: TrainResult) -> None:
    timing = ("seconds", "rows_per_second", "bundle_dir", "model_id")
    trained: dict[str, Any] = {key: value for key, value in asdict(result).items() if key not in timing}
    meta = {
        "model_id": request.model_id,
        "template": manifest.template.model_dump(mode="json"),
        "heads": {name: head.model_dump(mode="json") for name, head in manifest.heads.items()},
        "towers": list(manifest.towers),
        "model": request.model.model_dump(mode="json"),
        "statistics": fit.start.statistics,
        "trained": {**trained, "snapshot": manifest.id, "days": list(manifest.days), "seed": request.seed, "epochs": request.epochs},
    }
    bundle.save(request.bundle_dir, fit.model, fit.squares, meta)
