"""Which losses the targets of the data are for: what they hold, beside what the network gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.class_scores import last_activation
from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Tensor, tensor_shape
from wootz.passes.plan.lesson import LossKind, TargetLoss
from wootz.runtime.data.dataset import Targets, differ_by_ones

IGNORED = (255, -1)
"""Labels that usually stand for none, where they are no classes."""


@dataclass(frozen=True)
class Found:
    """The losses that targets are for, and what isn't learned from, or how, a line each."""

    losses: tuple[TargetLoss, ...] = ()
    notes: tuple[str, ...] = ()


def losses_for(network: Model, targets: Targets) -> Found:
    """The losses that follow from targets and outputs where one alone makes sense:

    1. whole numbers [n, …] beside scores [n, classes, …]: the cross-entropy, at each position. 255 or -1 among them
       is ignored, where it is no class;
    2. numbers from 0 to 1, whole or not, in the shape of an output that comes from a Sigmoid, or has `logit` in its
       name: the cross-entropy of each;
    3. other floats in the shape of an output that doesn't come from a Softmax: the mean squared difference, over that
       of an output of zeros.

    Shapes are the same, too, if they differ by axes of extent 1. A dictionary has targets by the names of outputs; an
    array is for the one output that it fits. Of several losses the mean is taken.
    """
    outputs = _outputs(network)
    if not isinstance(targets, Mapping):
        fitting, reasons = _fitting(outputs, dict.fromkeys(outputs, targets))
        if len(fitting) == 1:
            ((name, loss),) = fitting.items()
            return _found({"" if len(outputs) == 1 else name: loss}, {name: targets})
        fits = f"fit several outputs ({', '.join(fitting)})" if fitting else _misfit(outputs, targets)
        why = "" if fitting else "".join(f"; {reason}" for reason in dict.fromkeys(reasons.values()))
        return Found(notes=(f"The targets {fits}{why}: they are for the metric alone (--loss).",))
    fitting, reasons = _fitting(outputs, targets)
    found = _found(fitting, targets)
    unused = [f"{name} ({reasons[name]})" if name in reasons else name for name in targets if name not in fitting]
    note = f"No loss follows from the targets {', '.join(unused)}: they are for the metric alone (--loss)."
    return replace(found, notes=(*found.notes, note)) if unused else found


def _fitting(
    outputs: Mapping[str, Tensor], targets: Mapping[str, np.ndarray]
) -> tuple[dict[str, TargetLoss], dict[str, str]]:
    """The losses of outputs by the targets that they have, and why there is none where shapes would allow one."""
    losses, reasons = dict[str, TargetLoss](), dict[str, str]()
    for name in (name for name in outputs if name in targets):
        kind = _kind_for(outputs[name], targets[name])
        try:
            if kind is not None:
                losses[name] = _checked(kind, None, outputs[name], targets[name])
        except WootzError as error:
            if kind != "softmax-cross-entropy" or _are_for_scores(outputs[name], targets[name]):
                reasons[name] = str(error)
    return losses, reasons


def losses_named(kind: LossKind, ignore_label: int | None, network: Model, targets: Targets) -> Found:
    """Those of one kind, wherever targets fit it. Raises WootzError where they fit no output, or several."""
    outputs = _outputs(network)
    named = targets if isinstance(targets, Mapping) else dict.fromkeys(outputs, targets)
    losses, reasons = dict[str, TargetLoss](), list[str]()
    for name in (name for name in outputs if name in named):
        try:
            losses[name] = _checked(kind, ignore_label, outputs[name], named[name])
        except WootzError as error:
            reasons.append(str(error))
    if not losses:
        reason = "; ".join(reasons) or f"there are targets for {', '.join(named)}, and outputs {', '.join(outputs)}"
        raise WootzError(f"--loss {kind}: {reason}")
    if not isinstance(targets, Mapping):
        if len(losses) > 1:
            raise WootzError(f"--loss {kind}: the targets fit {', '.join(losses)}: choose one by --output NAME")
        ((name, loss),) = losses.items()
        return _found({"" if len(outputs) == 1 else name: loss}, {name: targets})
    return _found(losses, named)


def _outputs(network: Model) -> dict[str, Tensor]:
    """Those with known shapes but for the batch."""
    annotated = network.copy()
    annotate_symbolic_shapes(annotated.graph)
    shapes = ((output, tensor_shape(output)) for output in annotated.graph.outputs)
    return {t.name: t for t, shape in shapes if shape and all(isinstance(extent, int) for extent in shape[1:])}


def _found(losses: Mapping[str, TargetLoss], targets: Mapping[str, np.ndarray]) -> Found:
    """The mean of losses of outputs, by name."""
    weighted = (replace(loss, output=name, weight=loss.weight / len(losses)) for name, loss in losses.items())
    return Found(tuple(weighted))


def _kind_for(output: Tensor, targets: np.ndarray) -> LossKind | None:
    """The one kind of loss that targets in some shape may be for."""
    last = last_activation(output)
    activation = "" if last is None else last.node.op
    if not differ_by_ones(targets.shape, output.shape):
        return "softmax-cross-entropy"
    if (activation == "Sigmoid" or "logit" in output.name.lower()) and _are_shares(targets):
        return "bce-with-logits"
    return "mse" if targets.dtype.kind == "f" and "Softmax" not in activation else None


def _are_for_scores(output: Tensor, targets: np.ndarray) -> bool:
    """Whether targets have the shape of classes, one for the scores at each position."""
    classes, *extents = output.shape[1:] or [0]
    return classes >= 2 and differ_by_ones(targets.shape, [0, *extents])


def _checked(kind: LossKind, ignore_label: int | None, output: Tensor, targets: np.ndarray) -> TargetLoss:
    """The loss of an output. Raises WootzError, which says why, where targets don't fit it."""
    if kind == "softmax-cross-entropy":
        return TargetLoss(kind, ignore_label=_ignored(ignore_label, output, targets))
    if ignore_label is not None:
        raise WootzError("--ignore-label is for the cross-entropy")
    if not differ_by_ones(targets.shape, output.shape):
        raise WootzError(f"{_shapes(output, targets)}: both have to be the same")
    if not np.isfinite(targets).all():
        raise WootzError(f"the targets of {output.name} hold NaN or infinity")
    if kind == "bce-with-logits":
        if not _are_shares(targets):
            raise WootzError(f"the targets of {output.name} aren't from 0 to 1")
        return TargetLoss(kind)
    return TargetLoss(kind, weight=_weight(kind, targets))


def _ignored(ignore_label: int | None, output: Tensor, targets: np.ndarray) -> int | None:
    """The label that counts for nothing, if there is one. Raises WootzError for targets that are no classes."""
    if not _are_for_scores(output, targets):
        raise WootzError(f"{_shapes(output, targets)}: classes for scores [n, classes, …] are [n, …]")
    if targets.dtype.kind not in "iu":
        raise WootzError(f"the targets of {output.name} are no whole numbers, as classes are")
    classes = output.shape[1]
    beyond = [int(label) for label in np.unique(targets[(targets < 0) | (targets >= classes)])]
    if ignore_label is None and len(beyond) == 1 and beyond[0] in IGNORED:
        ignore_label = beyond[0]
    if ignore_label is not None and np.all(targets == ignore_label):
        raise WootzError(f"the targets of {output.name} are {ignore_label} all over, which stands for no class")
    if not beyond or beyond == [ignore_label]:
        return ignore_label
    others = [label for label in beyond if label != ignore_label]
    raise WootzError(f"the targets of {output.name} hold {others[0]}, and it has scores of {classes} classes")


def _weight(kind: LossKind, targets: np.ndarray) -> float:
    """1 over the loss of an output of zeros, in three digits: whatever the size of numbers, a loss of 1 is as bad."""
    total = 0.0
    for values in targets.astype(np.float64):
        distance = np.abs(values)
        match kind:
            case "mse":
                distance = distance**2
            case "smooth-l1":
                distance = np.where(distance < 1, distance**2 / 2, distance - 0.5)
        total += float(distance.sum())
    return float(f"{targets.size / total:.3g}") if total else 1.0


def _are_shares(targets: np.ndarray) -> bool:
    return bool(targets.size and targets.min() >= 0 and targets.max() <= 1)


def _misfit(outputs: Mapping[str, Tensor], targets: np.ndarray) -> str:
    held = "numbers" if targets.dtype.kind == "f" else "whole numbers"
    given = ", ".join(f"{name} {_shape(output.shape)}" for name, output in outputs.items())
    return f"are {held} {_shape(targets.shape)} beside {given or 'no output of known shape'}"


def _shapes(output: Tensor, targets: np.ndarray) -> str:
    return f"the targets are {_shape(targets.shape)}, and {output.name} is {_shape(output.shape)}"


def _shape(extents: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, ('n', *extents[1:])))}]"
