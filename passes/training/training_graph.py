"""From a network to its training graph, by the pipelines `training` and `training-float16`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wootz.passes.base import Pass
from wootz.passes.ir.model import Model
from wootz.passes.pipeline import Observers, parse_pipeline, run_pipeline
from wootz.passes.plan.lesson import TargetLoss
from wootz.passes.plan.solver import Solver
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import TARGET, AttachLoss, Loss
from wootz.passes.training.distill import DISTILLATION, Distill
from wootz.passes.training.interface import target_input
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.transforms.teacher_student import TEACHER


def build_training_graph(
    model: Model,
    solver: Solver,
    *,
    loss: Loss | Sequence[TargetLoss] | None = "softmax-cross-entropy",
    distill: Distill | None = None,
    ignore_label: int | None = None,
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
        solver,
        data=data_inputs(model, labels),
        loss=loss,
        distill=distill,
        ignore_label=ignore_label,
        losses=losses,
        labels=labels,
        frozen=frozen,
        target=target,
        precision=precision,
    )
    return run_pipeline(model, passes, verify_each, observers).model


def data_inputs(model: Model, labels: str = "labels") -> tuple[str, ...]:
    """The inputs with data of a network, by name."""
    return tuple(t.name for t in model.graph.inputs if t.name not in (labels, TARGET))


def training_pipeline(
    solver: Solver,
    *,
    data: tuple[str, ...] = (),
    loss: Loss | Sequence[TargetLoss] | None = "softmax-cross-entropy",
    distill: Distill | None = None,
    ignore_label: int | None = None,
    losses: tuple[str, ...] = (),
    labels: str = "labels",
    frozen: str | tuple[str, ...] = (),
    target: Target = "onnx",
    precision: Precision = "float32",
) -> tuple[Pass, ...]:
    """The passes of the pipeline `training`, or with precision="float16" of `training-float16`, with these options.

    A `loss` of several outputs, `TargetLoss`es, is their sum: `attach-loss` comes once for each, whose input for labels
    or targets is called after its output (`target_input`).
    With loss=None `attach-loss` is left out, and `trainable-part`: the model has its losses already, the scalar outputs
    `losses` (none named: all scalar outputs). `data` names the inputs of a network that has several, `labels` the input
    with the labels (Caffe's networks for training call it `label`).
    With `distill` these are the passes of `distillation` or `distillation-float16`, and the loss is mixed with that of
    the pass, or is its alone where the pass has all of it (loss=None).
    Parameters that `frozen` names (a name, or a prefix that ends in / or *) are not trained.
    """
    frozen = (frozen,) if isinstance(frozen, str) else frozen
    attached = () if loss is None or isinstance(loss, str) else tuple(loss)
    inputs = (labels, TARGET, *(target_input(one.output) for one in attached if one.output))
    settings = training_settings(solver, data, losses, inputs, (*frozen, TEACHER) if distill else frozen, target)
    if distill is None and loss is None:
        settings.pop("trainable-part")
    if distill is not None:
        settings["distill"] = vars(distill)
    if loss is not None:
        mixed = {"scale": 1.0 - distill.share, "plus": DISTILLATION} if distill else {}
        one = {} if attached else {"loss": loss, "ignore_label": ignore_label}
        settings["attach-loss"] = {"labels": labels, **one, **mixed}
    pipeline = "distillation" if distill else "training"
    passes = with_settings(pipeline if precision == "float32" else f"{pipeline}-float16", settings)
    return tuple(p for found in passes for p in _attached_in_turn(found, attached))


def _attached_in_turn(found: Pass, losses: Sequence[TargetLoss]) -> Iterator[Pass]:
    """In place of `attach-loss` one for each of the losses, that adds those before it; else the pass itself."""
    if not losses or not isinstance(found, AttachLoss):
        yield found
        return
    plus = found.plus
    for loss in losses:
        name = found.loss_name if loss is losses[-1] else f"{found.loss_name}/{loss.output}"
        target = target_input(loss.output)
        yield replace(
            found,
            loss=loss.kind,
            output=loss.output,
            loss_name=name,
            ignore_label=loss.ignore_label,
            scale=found.scale * loss.weight,
            plus=plus,
            labels=target if loss.output else found.labels,
            target=target if loss.output else found.target,
        )
        plus = name


def training_settings(
    solver: Solver,
    data: tuple[str, ...],
    losses: tuple[str, ...],
    labels: tuple[str, ...],
    frozen: str | tuple[str, ...],
    target: Target,
) -> dict[str, Mapping[str, Any]]:
    """The options of the passes that every training graph goes through, by the names of the passes."""
    chosen = {"losses": losses, "frozen": (frozen,) if isinstance(frozen, str) else frozen}
    interface = {"data": data if len(data) > 1 else (), "losses": losses, "labels": labels}
    return {
        "trainable-part": {},
        "training-mode": {"seed": solver.random_seed},
        "mixed-precision": chosen,
        "build-gradients": chosen,
        "apply-optimizer": {**ApplyOptimizer.settings(solver), **interface},
        "legalize": {"target": target},
    }


def with_settings(pipeline: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[Pass, ...]:
    """Those passes of a pipeline for which there are settings, with these beside what the pipeline says itself."""
    return tuple(replace(p, **settings[p.name]) for p in parse_pipeline(pipeline) if p.name in settings)
