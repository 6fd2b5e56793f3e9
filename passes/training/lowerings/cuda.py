"""Formulations for the CUDA provider of ONNX Runtime, in standard operators that it has kernels for.

A node without one runs on the CPU, in the middle of a step, with copies there and back. The kernels, as listed in ONNX
Runtime's docs/OperatorKernels.md, are in tests/passes/training/test_cuda_kernels.py.
"""

from __future__ import annotations

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering
from wootz.passes.training.lowerings.clipping import clip_grad
from wootz.passes.training.lowerings.cuda_convolution import conv_input_grad, conv_weight_grad
from wootz.passes.training.lowerings.cuda_normalization import batch_normalization, batch_normalization_grad
from wootz.passes.training.lowerings.scatter import max_pool_grad
from wootz.passes.training.lowerings.sums import reduction


def relu_grad(call: Node, builder: Builder) -> list[Tensor]:
    """dy where y > 0: eight bytes an element in float16, where a product with a mask takes twelve."""
    dy, y = (Expression.of(t, builder) for t in call.inputs)
    return [dy.where(y.greater(0.0)).tensor]


def softmax_cross_entropy(node: Node, builder: Builder) -> list[Tensor] | None:
    """-Σ w · log p[label] / Σ w: the provider has no kernel for the loss, the CPU has."""
    if node.attrs.get("reduction", "mean") != "mean" or "ignore_index" in node.attrs:
        return None
    logits, labels = (Expression.of(t, builder) for t in node.inputs[:2])
    log_probability = logits.op("LogSoftmax", axis=1)
    column = labels.op("Unsqueeze", labels.integers([1]))
    picked = log_probability.op("GatherElements", column, axis=1)
    if len(node.inputs) == 2:
        return [(-picked.mean(keepdims=False)).tensor, log_probability.tensor]
    weights = Expression.of(node.inputs[2], builder).op("Gather", column)
    loss = -((picked * weights).sum(keepdims=False) / weights.sum(keepdims=False))
    return [loss.tensor, log_probability.tensor]


def softmax_cross_entropy_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """(softmax - onehot) · dloss · w[label] / Σ w[label], without shapes and counts, which live on the CPU."""
    dloss, log_probability, labels = (Expression.of(t, builder) for t in call.inputs[:3])
    classes = log_probability.shape[1]
    if not isinstance(classes, int):
        return None
    column = labels.op("Unsqueeze", labels.integers([1]))
    numbers = labels.constant(np.arange(classes).reshape([1, -1, *[1] * (log_probability.rank - 2)]))
    onehot = column.equal(numbers).cast(dloss)
    difference = log_probability.op("Exp") - onehot
    if len(call.inputs) == 3:
        return [(difference * (dloss / onehot.sum(keepdims=False))).tensor]
    weights = Expression.of(call.inputs[3], builder).op("Gather", column)
    return [(difference * weights * (dloss / weights.sum(keepdims=False))).tensor]


def celu(node: Node, builder: Builder) -> list[Tensor]:
    """alpha · Elu(x / alpha)."""
    x, alpha = Expression.of(node.inputs[0], builder), node.attrs.get("alpha", 1.0)
    return [((x / alpha).op("Elu") * alpha).tensor]


def mean(node: Node, builder: Builder) -> list[Tensor]:
    """The sum of the operands, divided by their number."""
    first, *others = (Expression.of(t, builder) for t in node.inputs)
    return [(first.op("Sum", *others) / float(len(node.inputs))).tensor]


def mean_variance_normalization(node: Node, builder: Builder) -> list[Tensor]:
    """(x - mean) / (σ + 1e-9), the operator's definition."""
    x, axes = Expression.of(node.inputs[0], builder), node.attrs.get("axes", [0, 2, 3])
    centred = x - x.mean(axes)
    return [(centred / ((centred * centred).mean(axes).op("Sqrt") + 1e-9)).tensor]


CUDA: dict[str, Lowering] = {
    "BatchNormalization": batch_normalization,
    "BatchNormalizationGrad": batch_normalization_grad,
    "Celu": celu,
    "ClipGrad": clip_grad,
    "ConvInputGrad": conv_input_grad,
    "ConvWeightGrad": conv_weight_grad,
    "MaxPoolGrad": max_pool_grad,
    "Mean": mean,
    "MeanVarianceNormalization": mean_variance_normalization,
    "ReduceMean": reduction,
    "ReduceSum": reduction,
    "ReluGrad": relu_grad,
    "SoftmaxCrossEntropyGrad": softmax_cross_entropy_grad,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "WeightedSoftmaxCrossEntropyGrad": softmax_cross_entropy_grad,
}
