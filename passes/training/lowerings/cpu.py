"""Formulations for the CPU provider of ONNX Runtime, in standard operators.

Its elementwise kernels differ by a factor of ten: of 13 MB, Relu, HardSigmoid and BatchNormalization in inference
mode take 0.6 ms, Mul and Add 1.3, sums 0.3, but Where, Greater and Sign 15.
"""

from __future__ import annotations

import math

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering
from wootz.passes.training.lowerings.clipping import clip_grad
from wootz.passes.training.lowerings.convolution import (
    add_up_columns,
    concat,
    conv_input_grad,
    conv_weight_grad,
    convolution,
    tap_slices,
)
from wootz.passes.training.lowerings.convolution_shape import Convolution
from wootz.passes.training.lowerings.scatter import max_pool_grad as scattered_max_pool_grad
from wootz.passes.training.lowerings.sums import channel_sum, product, reduction, square_root

LARGEST_FLOAT = float(np.finfo(np.float32).max)
LONG_ROW = 784
"""Elements of an image's channel from which a product of matrices sums products faster than Mul and ReduceSum."""


def batch_normalization(node: Node, builder: Builder) -> list[Tensor] | None:
    """In training mode, ONNX Runtime's kernel writes the new statistics over the old ones, its operands 3 and 4, even
    where others read them: it gets tensors of its own. With momentum 0 their values don't matter."""
    if not node.attrs.get("training_mode", 0):
        return None
    x, scale, bias, mean, variance = node.inputs
    scratch = [_tensor_of_its_own(statistic, builder) for statistic in (mean, variance)]
    return list(builder.ops("BatchNormalization", x, scale, bias, *scratch, count=3, **node.attrs))


def _tensor_of_its_own(statistic: Tensor, builder: Builder) -> Tensor:
    """As large as `statistic`. Nodes that share it get different multiples: equal ones would be merged."""
    left = sum(reader.op == "BatchNormalization" for reader in statistic.outputs)
    if left == 1:
        return builder.op("Neg", statistic)
    return builder.op("Mul", statistic, builder.constant(left, dtype=np.dtype(statistic.dtype)))


def batch_normalization_grad(call: Node, builder: Builder) -> list[Tensor]:
    """dx = scale/σ · dy - scale/σ · (dbias/n + h · dscale/n), h = (x - mean)/σ, in six to eight passes over memory.

    Σ dy h is (Σ dy x - mean Σ dy)/σ.
    """
    dy, x, scale, mean, variance = (Expression.of(t, builder) for t in call.inputs)
    epsilon, axes = call.attrs["epsilon"], call.attrs["axes"]
    deviation = (variance + epsilon).op("Sqrt")
    dbias = channel_sum(dy, axes)
    dscale = (_channel_products(dy, x, axes) - mean * dbias) / deviation
    gain = scale / (deviation * _negative_count(dy, x, scale))
    pixels = _pixels(x)
    if pixels is None or pixels < LONG_ROW:  # one pass for each part, on one thread
        zero = dy.constant(np.zeros(scale.shape))
        direct = dy.op("BatchNormalization", scale, zero, zero, variance, epsilon=epsilon)
        through_statistics = x.op("BatchNormalization", gain * dscale, gain * dbias, mean, variance, epsilon=epsilon)
        dx = direct + through_statistics
    else:  # more passes, on all threads
        channels = [-1, *[1] * (x.rank - 2)]
        slope = gain * dscale / deviation
        offset = gain * dbias - slope * mean
        direct = dy * (scale / deviation).reshape(channels)
        dx = direct + x * slope.reshape(channels) + offset.reshape(channels)
    return [dx.tensor, dscale.tensor, dbias.tensor]


def _channel_products(dy: Expression, x: Expression, axes: list[int]) -> Expression:
    """Σ dy x over all but the channels. Of long rows, products of matrices take it in one pass and without a tensor for
    what is to be summed; for short ones, their number costs more."""
    pixels = _pixels(x)
    if pixels is None or pixels < LONG_ROW:
        return channel_sum(dy * x, axes)
    row = [0, 0, 1, pixels]
    products = dy.reshape(row) @ x.reshape(row).transpose(0, 1, 3, 2)
    return channel_sum(products, [0, 2, 3])


def _negative_count(dy: Expression, x: Expression, scale: Expression) -> Expression:
    """Minus the elements of a channel. The images are counted on the graph's data, once for all layers."""
    batch, pixels = x.shape[0], _pixels(x)
    data = next((t for t in dy.builder.graph.inputs if t.shape and t.shape[0] == batch), None)
    if data is None or pixels is None:
        return dy.size().cast(dy) / -float(scale.shape[0])
    images = dy.builder.op("Shape", data, start=0, end=1)
    return Expression(images, dy.builder, np.dtype(np.int64)).cast(dy) * -float(pixels)


def _pixels(x: Expression) -> int | None:
    """The elements of an image's channel, where they are known."""
    space = [d for d in x.shape[2:] if isinstance(d, int)]
    return math.prod(space) if len(space) == x.rank - 2 else None


def max_pool_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """Tap by tap, what is left of dy goes where x equals y: to the first maximum of each window.

    MaxPool takes forty times as long when it has to give indices. `equal` is 1 where x - y is 0, and 0 where it is
    less than -3e-39.
    """
    dy, x, y, _ = (Expression.of(t, builder) for t in call.inputs)
    pooling = Convolution.planar(call, x, dy, tuple(call.attrs.get("kernel_shape", (0,))))
    if pooling is None or x.dtype != np.float32:
        return scattered_max_pool_grad(call, builder)
    left, parts = dy, []
    for seen in tap_slices(x, pooling, padding=-LARGEST_FLOAT):
        equal = (seen - y).op("HardSigmoid", alpha=LARGEST_FLOAT, beta=1.0)
        part = left * equal
        left = left - part
        parts.append(part.reshape([0, pooling.channels, 1, pooling.positions]))
    columns = concat(parts, axis=2).reshape([0, pooling.channels * pooling.taps, pooling.positions])
    return [add_up_columns(columns, pooling).tensor]


def relu_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """dy · min(1, y · huge): HardSigmoid as mask. Exact but for denormal y (below 3e-39)."""
    dy, y = (Expression.of(t, builder) for t in call.inputs)
    if y.dtype != np.float32:
        return None
    return [(dy * y.op("HardSigmoid", alpha=LARGEST_FLOAT, beta=0.0)).tensor]


CPU: dict[str, Lowering] = {
    "BatchNormalization": batch_normalization,
    "BatchNormalizationGrad": batch_normalization_grad,
    "ClipGrad": clip_grad,
    "Conv": convolution,
    "ConvInputGrad": conv_input_grad,
    "ConvWeightGrad": conv_weight_grad,
    "Gemm": product,
    "MatMul": product,
    "MaxPoolGrad": max_pool_grad,
    "ReduceMean": reduction,
    "ReduceSum": reduction,
    "ReluGrad": relu_grad,
    "Sqrt": square_root,
}
