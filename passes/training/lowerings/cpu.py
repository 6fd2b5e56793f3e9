"""Formulations for CPUs, in standard operators."""

from __future__ import annotations

import itertools
import math

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering

LARGEST_FLOAT = float(np.finfo(np.float32).max)


def batch_normalization(node: Node, builder: Builder) -> list[Tensor] | None:
    """In training mode, ONNX Runtime's kernel writes the new statistics over the old ones, its operands 3 and 4, even
    where others read them: it gets tensors of its own. With momentum 0 their values don't matter."""
    if not node.attrs.get("training_mode", 0):
        return None
    x, scale, bias, mean, variance = node.inputs
    scratch = [builder.op("Neg", statistic) for statistic in (mean, variance)]
    return list(builder.ops("BatchNormalization", x, scale, bias, *scratch, count=3, **node.attrs))


def relu_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """dy · min(1, y · huge): HardSigmoid as mask costs a sixth of Where. Exact but for denormal y (below 3e-39)."""
    dy, y = _operands(call, builder)
    if y.dtype != np.float32:
        return None
    return [(dy * y.op("HardSigmoid", alpha=LARGEST_FLOAT, beta=0.0)).tensor]


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """One product of dy with all shifted slices of x: dw[m, cij] = Σ_n Σ_p dy[n, m, p] · slices[n, cij, p]."""
    x, dy, _ = _operands(call, builder)
    group, kernel = int(call.attrs["group"]), tuple(call.attrs["kernel_shape"])
    channels, filters = x.shape[1], dy.shape[1]
    if not all(isinstance(d, int) for d in (channels, filters, *x.shape[2:], *dy.shape[2:])):
        return None
    positions = math.prod(int(d) for d in dy.shape[2:])
    columns = _shifted_slices(x, call, (int(dy.shape[2]), int(dy.shape[3])))
    taps = math.prod(kernel)
    # columns[n, taps · C, P], or [n · group, ...] with groups; rows [n, M, P]
    if group == 1:
        rows = dy.reshape([-1, int(filters), positions])
        products = (rows @ columns.transpose(0, 2, 1)).sum([0], keepdims=False)
        weight = products.reshape([int(filters), taps, int(channels)]).transpose(0, 2, 1)
    else:
        per_group = int(filters) // group
        rows = dy.reshape([-1, group, per_group, positions])
        grouped = columns.reshape([-1, taps, group, int(channels) // group, positions]).transpose(0, 2, 4, 1, 3)
        flat = grouped.reshape([-1, group, positions, taps * (int(channels) // group)])
        products = (rows @ flat).sum([0], keepdims=False)
        weight = products.reshape([int(filters), taps, int(channels) // group]).transpose(0, 2, 1)
    return [weight.reshape([int(filters), int(channels) // group, *kernel]).tensor]


def _shifted_slices(x: Expression, call: Node, size: tuple[int, int]) -> Expression:
    """What each tap of the kernel sees, [N, taps · C, P]."""
    pads, strides, dilations = call.attrs["pads"], call.attrs["strides"], call.attrs["dilations"]
    kernel = call.attrs["kernel_shape"]
    channels, positions = int(x.shape[1]), math.prod(size)
    if any(pads):
        x = x.op("Pad", x.integers([0, 0, *pads[:2], 0, 0, *pads[2:]]))
    slices = []
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        start = [i * dilations[0], j * dilations[1]]
        end = [s + (n - 1) * t + 1 for s, n, t in zip(start, size, strides, strict=True)]
        cut = x.op("Slice", *(x.integers(v) for v in (start, end, [2, 3], list(strides))))
        slices.append(cut)
    together = slices[0].op("Concat", *slices[1:], axis=1) if len(slices) > 1 else slices[0]
    return together.reshape([-1, len(slices) * channels, positions])


def _operands(call: Node, builder: Builder) -> list[Expression]:
    return [Expression.of(t, builder) for t in call.inputs]


CPU: dict[str, Lowering] = {
    "BatchNormalization": batch_normalization,
    "ReluGrad": relu_grad,
    "ConvWeightGrad": conv_weight_grad,
}
