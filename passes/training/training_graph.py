"""From a network to its training graph, by the pipelines `training` and `training-float16`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wootz.passes.base import Pass
from wootz.passes.ir.model import Model
from wootz.passes.pipeline import Observers, parse_pipeline, run_pipeline
from wootz.passes.plan.solver import Solver
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import TARGET, LossKind
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision


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
    verify_each: bool = False,
    observers: Observers | None = None,
) -> Model:
    """The training graph of `model`: what `training_pipeline` makes of it.

    What a program needs to run the result is `TrainingInterface.of(result)`. `verify_each` and `observers` are those of
    `run_pipeline`. Raises PassError for what a pass refuses.
    """
    passes = training_pipeline(
        solver, loss=loss, losses=losses, labels=labels, frozen=frozen, target=target, precision=precision
    )
    return run_pipeline(model, passes, verify_each, observers).model


def training_pipeline(
    solver: Solver,
    *,
    loss: LossKind | None = "softmax-cross-entropy",
    losses: tuple[str, ...] = (),
    labels: str = "labels",
    frozen: str | tuple[str, ...] = (),
    target: Target = "onnx",
    precision: Precision = "float32",
) -> tuple[Pass, ...]:
    """The passes of the pipeline `training`, or with precision="float16" of `training-float16`, with these options.

    With loss=None `attach-loss` is left out: the model has its losses already, the scalar outputs `losses` (none named:
    all scalar outputs). `labels` names the input with the labels (Caffe's networks for training call it `label`).
    Parameters that `frozen` names (a name, or a prefix that ends in / or *) are not trained.
    """
    settings = training_settings(solver, losses, labels, frozen, target)
    if loss is not None:
        settings["attach-loss"] = {"loss": loss, "labels": labels}
    return with_settings("training" if precision == "float32" else "training-float16", settings)


def training_settings(
    solver: Solver, losses: tuple[str, ...], labels: str, frozen: str | tuple[str, ...], target: Target
) -> dict[str, Mapping[str, Any]]:
    """The options of the passes that every training graph goes through, by the names of the passes."""
    chosen = {"losses": losses, "frozen": (frozen,) if isinstance(frozen, str) else frozen}
    return {
        "training-mode": {"seed": solver.random_seed},
        "mixed-precision": chosen,
        "build-gradients": chosen,
        "apply-optimizer": {**ApplyOptimizer.settings(solver), "losses": losses, "labels": (labels, TARGET)},
        "legalize": {"target": target},
    }


def with_settings(pipeline: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[Pass, ...]:
    """Those passes of a pipeline for which there are settings, with these beside what the pipeline says itself."""
    return tuple(replace(p, **settings[p.name]) for p in parse_pipeline(pipeline) if p.name in settings)
