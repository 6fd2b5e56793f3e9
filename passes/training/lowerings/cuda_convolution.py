"""The gradients of a convolution in standard operators, for GPUs.

cuDNN's own kernel for the weight gradient can't be reached from an ONNX graph. As a convolution with batch and channels
exchanged it is slow: its kernel is as large as the activations (56 × 56 in a ResNet's first stage), which cuDNN runs by
FFT or by a product with too few tiles for the GPU. A product of matrices runs on the tensor cores in any precision.
What the taps of the kernel see of x is gathered by one node; few nodes count, since each is a kernel to be launched.
"""

from __future__ import annotations

import math

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings.convolution_shape import Convolution


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """dw[m, c·tap] = Σ dy[n, m, position] · seen[n, c·tap, position] over images and positions."""
    x, dy, w = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.of(call, x, dy, w.shape[2:])
    if conv is None:
        return None
    seen = _seen_by_taps(x, conv)
    flat = dy.reshape([0, conv.filters, conv.positions])
    dw = _one_product(flat, seen, conv) if _folding_pays(conv) else _product_an_image(flat, seen, conv)
    return [dw.reshape([conv.filters, conv.channels // conv.group, *conv.kernel]).tensor]


def _seen_by_taps(x: Expression, conv: Convolution) -> Expression:
    """[N, channels, taps, positions]"""
    if conv.taps == 1 and conv.size == conv.count and max(conv.strides) == 1:
        return x.reshape([0, conv.channels, 1, conv.positions])
    if any(conv.pads):
        x = x.op("Pad", x.integers([0, 0, *conv.pads_begin, 0, 0, *conv.pads_end]))
    flat = x.reshape([0, conv.channels, math.prod(conv.padded)])
    indices = Expression(x.builder.constant(_seen_elements(conv), "seen"), x.builder, np.dtype(np.int32))
    return flat.op("Gather", indices, axis=2)


def _seen_elements(conv: Convolution) -> np.ndarray:
    """Which element of the padded image each tap sees at each position: int32[taps, positions]."""
    index = np.zeros((1, 1), np.int32)
    for axis, length in enumerate(conv.padded):
        taps = np.arange(conv.kernel[axis], dtype=np.int32) * conv.dilations[axis]
        positions = np.arange(conv.count[axis], dtype=np.int32) * conv.strides[axis]
        place = taps[:, None] + positions[None, :]
        together = index[:, None, :, None] * np.int32(length) + place[None, :, None, :]
        index = together.reshape(index.shape[0] * len(taps), index.shape[1] * len(positions))
    return index


def _folding_pays(conv: Convolution) -> bool:
    """Whether turning the operands moves less than writing and adding up a result an image."""
    operands = conv.taps * conv.channels * conv.positions + conv.filters * conv.positions
    return conv.group == 1 and conv.filters * conv.channels * conv.taps > operands


def _one_product(dy: Expression, seen: Expression, conv: Convolution) -> Expression:
    """The images side by side: [filters, N · positions] times [channels · taps, N · positions]."""
    left = dy.transpose(1, 0, 2).reshape([conv.filters, -1])
    right = seen.transpose(1, 2, 0, 3).reshape([conv.channels * conv.taps, -1])
    return left.op("Gemm", right, transB=1)


def _product_an_image(dy: Expression, seen: Expression, conv: Convolution) -> Expression:
    """A product an image and group, then their sum."""
    left = dy.reshape([0, conv.group, conv.filters // conv.group, conv.positions])
    right = seen.reshape([0, conv.group, conv.channels // conv.group * conv.taps, conv.positions])
    return (left @ right.transpose(0, 1, 3, 2)).sum([0], keepdims=False)


def conv_input_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """ConvTranspose, which is cuDNN's kernel for this gradient, with equal pads on both sides: few of cuDNN's engines
    take others. The result is then extended by `output_padding`, or cut."""
    dy, w, x = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.of(call, x, dy, w.shape[2:])
    if conv is None:
        return None
    reached = [
        (n - 1) * s + (k - 1) * d + 1 - 2 * p
        for n, s, k, d, p in zip(conv.count, conv.strides, conv.kernel, conv.dilations, conv.pads_begin, strict=True)
    ]
    missing = [n - r for n, r in zip(conv.size, reached, strict=True)]
    if any(m >= s for m, s in zip(missing, conv.strides, strict=True)):
        return None
    dx = dy.op(
        "ConvTranspose",
        w,
        strides=list(conv.strides),
        dilations=list(conv.dilations),
        pads=[*conv.pads_begin, *conv.pads_begin],
        output_padding=[max(m, 0) for m in missing],
        group=conv.group,
    )
    if min(missing) < 0:
        axes = list(range(2, x.rank))
        dx = dx.op("Slice", *(dx.integers(v) for v in ([0] * len(axes), list(conv.size), axes)))
    return [dx.tensor]
