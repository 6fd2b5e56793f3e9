"""What losses are, as formulas: scalars, the mean over a batch."""

from __future__ import annotations

from wootz.passes.analysis.class_scores import LastActivation, axis_behind, last_activation, softmax_axis
from wootz.passes.base import Pass
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Tensor
from wootz.passes.training.expression import Expression

SMALLEST_MEAN_SQUARE = 1e-12
"""What is less is no size to divide by: the target is 0."""


def squared_error(output: Expression, target: Expression) -> Expression:
    """The mean of (output - target)², over all elements."""
    difference = output - target
    return (difference * difference).mean(keepdims=False)


def absolute_error(output: Expression, target: Expression) -> Expression:
    """The mean of |output - target|, over all elements."""
    return (output - target).op("Abs").mean(keepdims=False)


def smooth_absolute_error(output: Expression, target: Expression, beta: float) -> Expression:
    """The mean of d²/2β where d = |output - target| is less than β, else of d - β/2 (Girshick 2015, "Fast R-CNN",
    section 2.3, there with β = 1)."""
    distance = (output - target).op("Abs")
    inner = distance.op("Min", beta)
    return (inner * (distance - inner * 0.5)).mean(keepdims=False) * (1 / beta)


def binary_cross_entropy(logits: Expression, target: Expression) -> Expression:
    """The mean of -t log σ(x) - (1 - t) log(1 - σ(x)) over all elements; targets are from 0 to 1."""
    return (target * (-logits).op("Softplus") + (1.0 - target) * logits.op("Softplus")).mean(keepdims=False)


def masked_cross_entropy(
    logits: Expression, labels: Expression, ignored: int, smoothing: float, weights: Expression | None
) -> Expression:
    """The cross-entropy along axis 1, averaged over those labels [N, …] that are not `ignored`: 0 if all are.

    A label stands for 1 - smoothing + smoothing/classes, the other classes for smoothing/classes. With `weights`
    [classes] it is divided by the sum of the labels' weights.
    """
    classes = int(logits.shape[1])
    beyond = labels.integers(classes)
    inside = beyond.where(labels.equal(ignored), labels)
    bounds = logits.constant([0.0, 1.0])
    of_label = Expression(
        logits.builder.op("OneHot", inside.tensor, beyond.tensor, bounds.tensor, axis=1), logits.builder, logits.dtype
    )
    counted = of_label.sum([1])
    wanted = of_label * (1.0 - smoothing) + counted * (smoothing / classes) if smoothing else of_label
    if weights is not None:
        weights = weights.reshape([1, classes, *[1] * (logits.rank - 2)])
        wanted, counted = wanted * weights, of_label * weights
    total = counted.sum(keepdims=False)
    surprise = -(wanted * logits.op("LogSoftmax", axis=1)).sum(keepdims=False)
    return surprise / total.where(total.greater(0.0), 1.0)


def normalized_squared_error(output: Expression, target: Expression) -> Expression:
    """The mean of (output - target)² over the mean of target²: 1 for an output of zeros, whatever the target's size."""
    return squared_error(output, target) / _mean_square(target)


def scaled_squared_error(output: Expression, target: Expression) -> Expression:
    """The mean of (output - target)² over the root of the mean of target².

    Its gradient is the difference in units of the target's size, as that of `distillation` is one of probabilities:
    beside each other neither drowns the other. Over the mean of target² small targets would have huge gradients.
    """
    return squared_error(output, target) / _mean_square(target).op("Sqrt")


def _mean_square(target: Expression) -> Expression:
    """1 where the target is 0 all over."""
    size = (target * target).mean(keepdims=False)
    return size.where(size.greater(SMALLEST_MEAN_SQUARE), 1.0)


def distillation(student: Expression, teacher: Expression, temperature: float, axis: int = 1) -> Expression:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) along the axis of the classes (Hinton et al. 2015,
    section 2)."""
    cooled_student, cooled_teacher = student / temperature, teacher / temperature
    log_student = cooled_student.op("LogSoftmax", axis=axis)
    log_teacher = cooled_teacher.op("LogSoftmax", axis=axis)
    divergence = (cooled_teacher.op("Softmax", axis=axis) * (log_teacher - log_student)).sum([axis], keepdims=False)
    return divergence.mean(keepdims=False) * temperature**2


def bernoulli_distillation(student: Expression, teacher: Expression, temperature: float) -> Expression:
    """T² · KL(σ(teacher / T) ‖ σ(student / T)) of the chances of yes and no, the mean over all elements."""
    cooled_student, cooled_teacher = student / temperature, teacher / temperature
    chance = cooled_teacher.op("Sigmoid")
    surprise = binary_cross_entropy(cooled_student, chance) - binary_cross_entropy(cooled_teacher, chance)
    return surprise * temperature**2


def logits_of(output: Tensor, builder: Builder, asking: Pass) -> Tensor:
    """An output without the activation over its classes, axis 1, that it comes from, perhaps in another layout.

    Raises PassError for `asking` where it can't be told whether a Softmax is over the classes.
    """
    last = last_activation(output)
    if last is None or not _is_over_classes(last, asking):
        return output
    return without_activation(last, builder)


def without_sigmoid(output: Tensor, builder: Builder) -> Tensor:
    """An output without the Sigmoid that it comes from, perhaps in another layout."""
    last = last_activation(output)
    return output if last is None or last.node.op != "Sigmoid" else without_activation(last, builder)


def without_activation(last: LastActivation, builder: Builder) -> Tensor:
    """What the activation is computed from, in the layout of the output."""
    logits = last.node.inputs[0]
    for node in last.behind:
        logits = builder.op(node.op, logits, *node.inputs[1:], hint="logits", **node.attrs)
        logits.dtype, logits.shape = node.outputs[0].dtype, node.outputs[0].shape
    return logits


def _is_over_classes(last: LastActivation, asking: Pass) -> bool:
    op = last.node.op
    if op == "Sigmoid":
        return True
    axis = softmax_axis(last.node)
    for i, node in enumerate(last.behind):
        if axis_behind(axis, last.behind[: i + 1]) is None:
            reason = f"the classes of the {op} before it can't be followed through {node.op}: remove the {op}"
            raise asking.refuse(reason, node.name or node.outputs[0].name)
    return axis_behind(axis, last.behind) == 1
