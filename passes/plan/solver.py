"""How a network is trained: the settings of a Caffe solver, and the learning-rate policies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class SolverType(Enum):
    SGD = "SGD"
    NESTEROV = "Nesterov"
    ADAM = "Adam"
    ADAMW = "AdamW"
    RMSPROP = "RMSProp"
    ADAGRAD = "AdaGrad"
    ADADELTA = "AdaDelta"


LearningRatePolicy = Literal["fixed", "step", "multistep", "exp", "inv", "poly", "sigmoid", "cosine"]


@dataclass(frozen=True)
class Solver:
    """Fields have the names and defaults of Caffe's SolverParameter; those below `solver_mode` are ours.

    `iter_size` batches make one step; `weight_decay` is multiplied by each parameter's `decay_mult`; `clip_gradients`
    is a bound on the ℓ2 norm of all gradients, negative for none. `average_loss` losses are averaged for display.
    """

    type: SolverType = SolverType.SGD
    base_lr: float = 0.01
    lr_policy: LearningRatePolicy = "fixed"
    gamma: float = 0.1
    power: float = 1.0
    stepsize: int = 0
    stepvalue: tuple[int, ...] = ()
    max_iter: int = 1000
    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8
    weight_decay: float = 0.0
    regularization_type: Literal["L1", "L2"] = "L2"
    iter_size: int = 1
    clip_gradients: float = -1.0
    snapshot: int = 0
    snapshot_prefix: str = ""
    test_iter: int = 0
    test_interval: int = 0
    random_seed: int = 0
    average_loss: int = 1
    display: int = 0
    solver_mode: Literal["CPU", "GPU"] = "CPU"
    warmup_iter: int = 0
    warmup_start_lr: float | None = None
    batch_size: int = 32
    data: str = ""
    machines: int = 0

    def faults(self) -> Iterator[tuple[str, str]]:
        """The fields whose values mean nothing, each with the reason."""
        if self.momentum and self.type in (SolverType.ADAGRAD, SolverType.RMSPROP):
            yield "momentum", f"{self.type.value} takes no momentum"
        if list(self.stepvalue) != sorted(set(self.stepvalue)):
            yield "stepvalue", "the stepvalues have to ascend"
        for name in ("iter_size", "average_loss", "batch_size"):
            if getattr(self, name) < 1:
                yield name, f"{name} has to be 1 or more"
        for name in ("momentum", "momentum2", "rms_decay"):
            if not 0 <= getattr(self, name) < 1:
                yield name, f"{name} has to be at least 0 and less than 1"
        for name in ("base_lr", "delta", "weight_decay"):
            if getattr(self, name) < 0:
                yield name, f"{name} can't be negative"
        if self.warmup_start_lr is not None and not 0 <= self.warmup_start_lr < math.inf:
            yield "warmup_start_lr", "warmup_start_lr has to be finite, and can't be negative"
        for name in ("base_lr", "delta", "weight_decay", "clip_gradients"):
            if not math.isfinite(getattr(self, name)):
                yield name, f"{name} has to be finite"

    def learning_rate(self, step: int) -> float:
        """The rate at `step` (from 0): Caffe's policies (caffe.proto, SolverParameter.lr_policy), and `cosine`.

        cosine is base_lr/2 · (1 + cos(π·t/T)) over the T steps after the warm-up. The first `warmup_iter` steps of
        any policy rise linearly to base_lr, from `warmup_start_lr` where it is given (Intel's `GetWarmUpLR`).
        """
        if step < self.warmup_iter and self.warmup_start_lr is not None:
            left = self.warmup_iter - step
            return (step * self.base_lr + left * self.warmup_start_lr) / self.warmup_iter
        if step < self.warmup_iter:
            return self.base_lr * (step + 1) / self.warmup_iter
        return self.base_lr * self._decay(step)

    def _decay(self, step: int) -> float:
        match self.lr_policy:
            case "fixed":
                return 1.0
            case "step":
                return self.gamma ** (step // self.stepsize)
            case "multistep":
                return self.gamma ** sum(step >= s for s in self.stepvalue)
            case "exp":
                return self.gamma**step
            case "inv":
                return (1 + self.gamma * step) ** -self.power
            case "poly":
                return (1 - step / self.max_iter) ** self.power
            case "sigmoid":
                exponent = self.gamma * (step - self.stepsize)
                small = math.exp(-abs(exponent))
                return (1.0 if exponent >= 0 else small) / (1 + small)
            case "cosine":
                span = max(1, self.max_iter - self.warmup_iter)
                return 0.5 * (1 + math.cos(math.pi * (step - self.warmup_iter) / span))
