"""Updates: AdamW for the dense parts on one flat gradient, Adagrad for the rows of ids that a batch touched (models/tables.py).

Shapes: P dense parameters laid end to end, X further numbers that ride along, U rows of the table, E embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conf.training import Training
from models.engagement import EngagementModel
from models.gates import SUFFIX

# Above rounding noise, below any gradient that means something: where summands cancel, Adam would otherwise turn the last bit, which
# depends on the number of ranks, into a full step.
ADAM_EPSILON = 1e-7


class FlatGradient:
    """The gradients of all dense parameters as views of one buffer [P + X], so that ranks exchange one tensor a step.

    `extra` [X] are sums that take the same way: losses and counts.
    """

    def __init__(self, model: EngagementModel, extra: int) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        count = sum(parameter.numel() for parameter in parameters)
        self.all = torch.zeros(count + extra, device=parameters[0].device)
        self.gradient, self.extra = self.all[:count], self.all[count:]
        for parameter, view in zip(parameters, self.gradient.split([parameter.numel() for parameter in parameters]), strict=True):
            parameter.grad = view.view_as(parameter)

    def clip_(self, largest_norm: float) -> Tensor:
        """Scale the gradient to at most this global norm; returns the norm before."""
        norm = self.gradient.norm()
        self.gradient.mul_((largest_norm / (norm + 1e-12)).clamp(max=1.0))
        return norm


def adamw(model: EngagementModel, training: Training) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101): matrices decay by weight_decay, all that a tower has of its own by residual_decay, other biases and gates not.

    Gates are groups by themselves (`gates`), as they are learned in the first epoch alone.
    """
    residual = {id(parameter) for module in model.residual_modules() for parameter in module.parameters()}
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gate, of_tower = name.endswith(SUFFIX), id(parameter) in residual
            decay = 0.0 if gate else training.residual_decay if of_tower else training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((gate, decay), []).append(parameter)
    options = [{"params": parameters, "weight_decay": decay, "gates": gate} for (gate, decay), parameters in groups.items()]
    optimizer = torch.optim.AdamW(options, lr=training.learning_rate, eps=ADAM_EPSILON, fused=True)
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        # As torch makes it at the first step; made here, a checkpoint can be copied into it before that.
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def pace(step: int, steps: int, warm_up_share: float) -> float:
    """What share of the learning rates step `step` (0-based) of `steps` takes: up to 1 over the first `warm_up_share`, then down to 0.

    A constant rate leaves the level of a head where the last batches happened to push it; linear decay ends quietly (arXiv:2405.18392).
    """
    warm_up = round(steps * warm_up_share)
    return (step + 1) / (warm_up + 1) if step < warm_up else (steps - step) / (steps - warm_up)


def linear_prior(training: Training, share_H: Tensor) -> Tensor:
    """float32 [H]: where Adagrad's squares of the linear path start, as if each weight had met training.linear_prior_rows rows.

    `share_H`: models.losses.share_of_weight, the largest gradient that one row of weight 1 can have.
    """
    return training.linear_prior_rows * share_H.square()


def adagrad_(weights: Tensor, squares: Tensor, gradient: Tensor, learning_rate: float) -> None:
    """Update `weights` [U, E] in place by their gradient [U, E], and `squares`, which Adagrad keeps of them.

    squares += g^2;  weights -= learning_rate * g / sqrt(squares). `squares` [U, 1] keeps one number a row, the mean of its g^2 (FBGEMM's
    EXACT_ROWWISE_ADAGRAD); of the weights' own shape, one a weight. A gradient of zero (a padding row's) changes nothing.
    """
    squared = gradient.square()
    squares += squared if squares.shape == weights.shape else squared.mean(1, keepdim=True)
    weights.add_(gradient * (squares.sqrt() + 1e-10).reciprocal(), alpha=-learning_rate)
