"""From a network to its training graph in one call."""

from __future__ import annotations

from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import TARGET, AttachLoss, LossKind
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize, Target
from wootz.passes.training.mixed_precision import MixedPrecision, Precision
from wootz.passes.training.training_mode import TrainingMode

FIRST_LOSS_SCALE = 2.0**16


def build_training_graph(
    model: Model,
    solver: Solver,
    *,
    loss: LossKind | None = "softmax-cross-entropy",
    losses: tuple[str, ...] = (),
    labels: str = "labels",
    frozen: str | tuple[str, ...] = (),
    target: Target = "onnx",
    precision: Precision = "float32",
) -> Model:
    """The training graph of `model`: `training-mode`, `attach-loss`, `build-gradients`, `apply-optimizer`, `legalize`.

    With precision="float16", `mixed-precision` is run before the gradients are built, and losses are scaled.

    With loss=None the model has its losses already: the scalar outputs `losses` (none named: all scalar outputs).
    `labels` names the input with the labels (Caffe's networks for training call it `label`).
    Parameters that `frozen` names (a name, or a prefix that ends in / or *) are not trained. What a program needs to
    run the result is `TrainingInterface.of(result)`. Raises PassError for what a pass refuses.
    """
    result = TrainingMode(seed=solver.random_seed).apply(model).model
    if loss is not None:
        result = AttachLoss(loss=loss, labels=labels).apply(result).model
    frozen_names = (frozen,) if isinstance(frozen, str) else frozen
    loss_scale = 0.0
    if precision == "float16":
        result = MixedPrecision(losses=losses, frozen=frozen_names).apply(result).model
        loss_scale = FIRST_LOSS_SCALE
    result = BuildGradients(losses=losses, frozen=frozen_names).apply(result).model
    result = (
        ApplyOptimizer.of(solver, losses=losses, labels=(labels, TARGET), loss_scale=loss_scale).apply(result).model
    )
    return Legalize(target=target).apply(result).model
