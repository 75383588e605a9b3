"""Training: a snapshot and widths -> a bundle. `train` is for callers, `train_on_rank` runs on every rank, `_step` is one update.

Numbers do not depend on the number of ranks beyond rounding: the manifest fixes the batches, losses have constant divisors, gradients are
summed. (With dropout the masks are each rank's own.) For the same reason a training goes on from a checkpoint on any number of ranks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from conf.training import Training
from models import bundle
from models.backends import launch
from models.batches import Batch, read_batches, read_served, shards_of, steps_an_epoch
from models.checkpoints import STEPS, Checkpoints, rows_of
from models.collectives import Collective, summed
from models.engagement import EngagementModel
from models.errors import TrainingFailed
from models.head_weighting import HeadWeighting
from models.losses import head_losses, head_sums, share_of_weight
from models.manifest import Manifest, read_manifest
from models.optimizers import FlatGradient, adamw, linear_prior, pace
from models.progress import Progress, Seen
from models.requests import TrainRequest, TrainResult, bundle_meta
from models.tables import IdTables, gradient_of
from models.warm_start import Start, cold, warm

SUMS = "position.sums"  # float64 [4, H]: over the epoch's batches so far, see Fit.sums_KH
RANDOM = "position.random"  # uint8: the generator that dropout draws from
LOG_VARIANCE = "head_weighting.log_variance"  # float32 [H]


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
        share_H = share_of_weight(manifest.weight, manifest.rows, request.training.batch_size)
        weighting = HeadWeighting(request.training.head_weighting, manifest)
        prior_H = linear_prior(request.training, share_H * weighting.weight_H)
        start = warm(manifest, request.model, prior_H, request.parent) if request.parent else cold(manifest, request.model, prior_H)
        _centre_serving(start, manifest, shards, collective)
        an_epoch = steps_an_epoch(manifest, request.training.batch_size)
        fit = Fit(start, share_H, weighting, request.training, collective, an_epoch, request.epochs)
        checkpoints = _checkpoints(request, manifest) if collective.rank == 0 else None
        fit.begin(checkpoints)
        progress = Progress(
            collective.rank, fit.steps_in_all, manifest.rows * request.epochs, fit.steps, list(manifest.heads), request.tensorboard
        )
        for epoch in range(fit.steps // an_epoch, request.epochs):
            done = fit.steps - epoch * an_epoch  # of this epoch, above 0 only where a checkpoint was taken in it
            if not done:
                fit.begin_epoch()
            for batch in _batches(request, manifest, shards, epoch, skip_steps=done):
                fit.step(batch.to(collective.device))
                progress.step(fit.steps, fit.seen)
                if checkpoints is not None and checkpoints.due():
                    checkpoints.save(fit.state(), epoch)
    progress.close()
    result = _result(request, manifest, fit, left_out, progress, collective.size)
    if collective.rank == 0:
        bundle.save(request.bundle_dir, fit.model, fit.squares, bundle_meta(request, manifest, fit.start.statistics, result))
    if checkpoints is not None:
        checkpoints.clear()
    collective.barrier()
    return result


class Fit:
    """A model being fitted on one rank; every rank holds the same weights after every step.

    Shapes: B local rows, H heads, U ids of a batch, G weights an id has in all tables. `sums_KH`: the epoch's losses, positives
    predicted, positives observed and rows so far, of all ranks.
    """

    def __init__(
        self,
        start: Start,
        share_H: Tensor,
        weighting: HeadWeighting,
        training: Training,
        collective: Collective,
        an_epoch: int,
        epochs: int,
    ) -> None:
        self.start, self.weighting, self.training, self.collective = start, weighting, training, collective
        self.model: EngagementModel = start.model.to(collective.device).train()
        self.squares = {name: squares.to(collective.device) for name, squares in start.squares.items()}
        self.tables = IdTables(self.model, self.squares)
        self.share_H = share_H.to(collective.device)
        self.weighting.log_variance_H = weighting.log_variance_H.to(collective.device)
        self.flat = FlatGradient(self.model, extra=4 * len(share_H))
        self.batch_KH = self.flat.extra.view(4, -1)
        self.adamw = adamw(self.model, self.training)
        self.steps, self.first_epoch, self.steps_in_all = 0, an_epoch, an_epoch * epochs
        self.sums_KH = torch.zeros(4, len(share_H), dtype=torch.float64)

    def begin(self, checkpoints: Checkpoints | None) -> None:
        """Every rank takes over rank 0's state: that of the newest good checkpoint, without one the start's."""
        state = self.state()
        found = checkpoints.restore(state) if checkpoints is not None else None
        self.collective.broadcast_(state[STEPS])
        self.steps = int(state[STEPS])
        # Before the first step the rest is the same on every rank, and not worth a message a tensor.
        for tensor in (state if self.steps else bundle.tensors_of(self.model, self.squares)).values():
            whole = tensor.contiguous()  # what ids have lies in one buffer, each table in a part of its rows
            self.collective.broadcast_(whole)
            tensor.copy_(whole)
        _generator(self.collective.device).set_state(state[RANDOM])
        if found is not None:
            print(f"train: resumed at step {self.steps}/{self.steps_in_all} from checkpoint {found}", file=sys.stderr, flush=True)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name: the tensors in use, but for STEPS and RANDOM, which are copies."""
        moments = {
            f"optimizer.adamw.{name}.{key}": tensor
            for name, parameter in self.model.named_parameters()
            for key, tensor in self.adamw.state.get(parameter, {}).items()
        }
        position = {STEPS: torch.tensor(self.steps), SUMS: self.sums_KH, RANDOM: _generator(self.collective.device).get_state()}
        return bundle.tensors_of(self.model, self.squares) | moments | position | {LOG_VARIANCE: self.weighting.log_variance_H}

    def begin_epoch(self) -> None:
        self.sums_KH.zero_()

    def seen(self) -> Seen:
        loss_H, predicted_H, observed_H, rows_H = self.sums_KH
        # A head's losses are shares of its weight (models/losses.py); those of one left out are 0 of 0.
        mean_H, ratio_H = loss_H / (self.share_H.cpu() * rows_H), predicted_H / observed_H
        return Seen(mean_H.tolist(), ratio_H.tolist(), pace(max(self.steps - 1, 0), self.steps_in_all, self.training.warm_up_share))

    def step(self, batch: Batch) -> None:
        """One update by the global batch of which `batch` is this rank's part."""
        self.flat.all.zero_()
        lookup = self.tables.lookup(batch.features.ids_BF)
        ids_of_all = self.collective.gather(lookup.ids_U)  # on its way while the layers are computed
        device = self.collective.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.training.in_bfloat16(device)):
            logits_BH = self.model(batch.features, lookup, batch.served)
        loss_H = head_losses(logits_BH, batch.labels_BH, batch.known_BH, batch.weight_B, self.share_H)
        (loss_H * self.weighting.weight_H).sum().backward()
        self.batch_KH[0] = loss_H.detach()
        self.batch_KH[1:] = head_sums(logits_BH.detach(), batch.labels_BH, batch.known_BH, batch.weight_B)
        # Each row once, with the sum of all ranks: every rank then makes the same update.
        ids_U, gradient_UG = summed(self.collective, self.flat.all, lookup.ids_U, ids_of_all(), gradient_of(lookup))
        norm = self.flat.clip_(self.training.gradient_clip)
        self._require_finite(norm + gradient_UG.sum())
        share = pace(self.steps, self.steps_in_all, self.training.warm_up_share)
        for group in self.adamw.param_groups:
            still = group["gates"] and self.steps >= self.first_epoch  # see models/gates.py
            group["lr"] = 0.0 if still else share * self.training.learning_rate
        self.adamw.step()
        rates = {"embedding": self.training.embedding_learning_rate, "linear": self.training.linear_learning_rate}
        self.tables.step_(ids_U, gradient_UG, {name: share * rate for name, rate in rates.items()})
        self.weighting.learn_(self.batch_KH[0], self.batch_KH[3] * self.share_H)
        self.steps += 1
        self.sums_KH += self.batch_KH.cpu()

    def _require_finite(self, total: Tensor) -> None:
        # Of sums over all ranks, so all ranks stop at the same step.
        if not torch.isfinite(total + self.batch_KH[0].sum()):
            raise TrainingFailed(
                f"loss or gradient is not finite at step {self.steps + 1} (losses by head: {self.batch_KH[0].tolist()}); "
                f"lower training.learning_rate, embedding_learning_rate and linear_learning_rate, or look for wild values where transform is none"
            )


def _generator(device: torch.device) -> torch.Generator:
    """The one that layers on this device draw from."""
    return torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]


def _batches(request: TrainRequest, manifest: Manifest, shards: range, epoch: int, skip_steps: int) -> Iterator[Batch]:
    serving, unknown_user_share = request.model.serving == "additive", request.training.unknown_user_share
    return read_batches(manifest, request.training.batch_size, shards, epoch, request.seed, skip_steps, serving, unknown_user_share)


def _checkpoints(request: TrainRequest, manifest: Manifest) -> Checkpoints | None:
    if request.checkpoints is None:
        return None
    of = {
        "model_id": request.model_id,
        "snapshot": rows_of(manifest),
        "seed": request.seed,
        "epochs": request.epochs,
        "model": request.model.model_dump(mode="json"),
        "training": request.training.deciding,
        "parent": bundle.read_meta(request.parent)["model_id"] if request.parent else None,
    }
    return Checkpoints(request.checkpoints, of, request.training.checkpoint_seconds)


def _centre_serving(start: Start, manifest: Manifest, shards: range, collective: Collective) -> None:
    """Over the rows of all ranks; see models/serving.py."""
    if start.model.serving is not None:
        sums_TX = start.model.serving.sums(read_served(manifest, shards)).to(collective.device)
        collective.sum_(sums_TX)
        start.model.serving.centre_(sums_TX.cpu())


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
    seen = fit.seen()
    return TrainResult(
        model_id=request.model_id,
        bundle_dir=str(request.bundle_dir),
        loss=_known(manifest.heads, seen.loss),
        ratio=_known(manifest.heads, seen.ratio),
        left_out=left_out,
        rows=manifest.rows * request.epochs,
        steps=fit.steps,
        seconds=progress.seconds,
        rows_per_second=progress.rows_per_second(fit.steps),
        ranks=ranks,
        carried=fit.start.carried,
        fresh=fit.start.fresh,
    )


def _known(heads: Iterable[str], numbers: Iterable[float]) -> dict[str, float | None]:
    """By head; None where there was nothing to tell from."""
    return {head: number if math.isfinite(number) else None for head, number in zip(heads, numbers, strict=True)}
