"""The gradients of a convolution in standard operators, in the formulation that costs least for the shape.

What was measured with ONNX Runtime's CPU provider (one core, float32): products of matrices run near the peak of the
core, so that copies decide: what a formulation copies, how large the product's smallest side is, and whether the
products of the images have to be written and summed. ConvTranspose adds up its columns image by image, which costs a
quarter of its time; a Conv with the kernel turned round does not.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression

FLOPS = 1e11
"""Floating-point operations a second of a product of matrices; only its ratio to COPIES matters."""
COPIES = 2e9
"""Floats read or written a second by operators that copy."""

LEAST_POSITIONS = 100
"""Below so many output positions an image, products image by image are too small to run well."""


@dataclass(frozen=True)
class Convolution:
    """The fixed numbers of a convolution of x[N,C,H,W] with w[M,C/g,kh,kw] to y[N,M,P,Q]; N may be symbolic."""

    channels: int
    filters: int
    group: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    size: tuple[int, int]
    count: tuple[int, int]

    @staticmethod
    def of(call: Node, x: Expression, dy: Expression, w: Expression) -> Convolution | None:
        """None where a number is symbolic."""
        numbers = [*x.shape[1:], *dy.shape[1:]]
        if not all(isinstance(n, int) for n in numbers):
            return None
        channels, height, width, filters, rows, columns = (int(n) for n in numbers)
        attrs = call.attrs
        return Convolution(
            channels=channels,
            filters=filters,
            group=int(attrs["group"]),
            kernel=(int(w.shape[2]), int(w.shape[3])),
            strides=tuple(attrs["strides"]),
            dilations=tuple(attrs["dilations"]),
            pads=tuple(attrs["pads"]),
            size=(height, width),
            count=(rows, columns),
        )

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def positions(self) -> int:
        return math.prod(self.count)

    @property
    def is_dense(self) -> bool:
        """Neither strided nor grouped."""
        return self.strides == (1, 1) and self.group == 1

    @property
    def is_depthwise(self) -> bool:
        return self.group == self.channels == self.filters

    @property
    def padded_rows(self) -> int:
        return self.size[0] + self.pads[0] + self.pads[2]


# Weight gradient: dw[m, c, i, j] = Σ over n, p, q of dy[n, m, p, q] · x[n, c, p · stride + i · dilation, …]


def weight_gradient(x: Expression, dy: Expression, conv: Convolution) -> Expression:
    """The formulation that copies and computes least."""
    if conv.is_depthwise:
        return _depthwise(x, dy, conv)
    if conv.group > 1:
        return _grouped(x, dy, conv)
    # products of single images are written and read once more; folding the batch copies x and dy once more
    products = 2 * 2 * conv.taps * conv.filters * conv.channels
    fold = products > 2 * (conv.filters + conv.channels) * conv.positions
    if conv.taps > 1 and conv.strides == (1, 1) and conv.kernel[0] > 1 and _shared_shifts_pay(conv):
        return _shifts_on_both_sides(x, dy, conv, fold)
    return _shifts_of_x(x, dy, conv, fold)


def _shared_shifts_pay(conv: Convolution) -> bool:
    """Whether the copies that `_shifts_on_both_sides` saves outweigh its products with the padding rows."""
    rows, columns = conv.kernel
    extended = conv.padded_rows * conv.count[1]
    more_flops = 2 * conv.taps * conv.filters * conv.channels * (extended - conv.positions)
    copies = 4 * conv.taps * conv.channels * conv.positions
    shared_copies = 4 * (columns * conv.channels + rows * conv.filters) * extended
    return more_flops / FLOPS < (copies - shared_copies) / COPIES


def _shifts_of_x(x: Expression, dy: Expression, conv: Convolution, fold: bool) -> Expression:
    """One product of dy with what each tap of the kernel sees of x."""
    if fold:
        x, dy = x.transpose(1, 0, 2, 3), dy.transpose(1, 0, 2, 3)
    seen = concat(tap_slices(x, conv), axis=0 if fold else 1)
    return _correlate(seen, dy, conv, (conv.taps, conv.channels), (conv.filters,), fold)


def _shifts_on_both_sides(x: Expression, dy: Expression, conv: Convolution, fold: bool) -> Expression:
    """x shifted along the columns, dy along the rows: kw + kh copies give the kh · kw taps."""
    if fold:
        x, dy = x.transpose(1, 0, 2, 3), dy.transpose(1, 0, 2, 3)
    top, left, bottom, right = conv.pads
    (rows, columns), (row_step, column_step) = conv.kernel, conv.dilations
    spare_rows, spare_columns = (rows - 1) * row_step, (columns - 1) * column_step
    axis = 0 if fold else 1
    x_shifts, dy_shifts = [], []
    for j in range(columns):
        shift = j * column_step
        x_shifts.append(pad(x, [top, left - shift, bottom, right - (spare_columns - shift)]))
    for i in range(rows):
        shift = i * row_step
        dy_shifts.append(pad(dy, [shift, 0, spare_rows - shift, 0]))
    return _correlate(
        concat(x_shifts, axis), concat(dy_shifts, axis), conv, (columns, conv.channels), (rows, conv.filters), fold
    )


def _correlate(
    seen: Expression,
    dy: Expression,
    conv: Convolution,
    seen_rows: tuple[int, ...],
    dy_rows: tuple[int, ...],
    fold: bool,
) -> Expression:
    """Σ over batch and positions of the outer products of `seen` and `dy`, as dw.

    Without `fold` both are [N, rows, …] and give a product an image; with `fold`, [rows, N, …] and give one product.
    """
    seen_size, dy_size = math.prod(seen_rows), math.prod(dy_rows)
    # the larger operand goes to the left: the right one is what gets packed
    swap = seen_size > dy_size
    left, right = (seen, dy) if swap else (dy, seen)
    left_size, right_size = (seen_size, dy_size) if swap else (dy_size, seen_size)
    if fold:
        product = left.reshape([left_size, -1]).op("Gemm", right.reshape([right_size, -1]), transB=1)
    else:
        products = left.reshape([0, left_size, -1]) @ right.reshape([0, right_size, -1]).transpose(0, 2, 1)
        product = products.sum([0], keepdims=False)
    names = (*seen_rows, *dy_rows) if swap else (*dy_rows, *seen_rows)
    return _as_weight(product.reshape(names), len(seen_rows), len(dy_rows), swap, conv)


def _as_weight(product: Expression, seen: int, dy: int, swap: bool, conv: Convolution) -> Expression:
    """[taps or columns, C] × [M] or [rows, M], in either order, as [M, C, kh, kw]."""
    first, second = (range(seen), range(seen, seen + dy)) if swap else (range(dy, dy + seen), range(dy))
    seen_taps, channels, dy_axes = first[0], first[1], list(second)
    filters, dy_taps = dy_axes[-1], dy_axes[:-1]
    order = [filters, channels, *dy_taps, seen_taps]
    return product.transpose(*order).reshape([conv.filters, conv.channels, *conv.kernel])


def _grouped(x: Expression, dy: Expression, conv: Convolution) -> Expression:
    """The products of each group of channels."""
    group, filters, channels = conv.group, conv.filters // conv.group, conv.channels // conv.group
    seen = concat(tap_slices(x, conv), axis=1).reshape([0, conv.taps, group, channels, conv.positions])
    left = dy.reshape([0, group, filters, conv.positions])
    right = seen.transpose(0, 2, 4, 1, 3).reshape([0, group, conv.positions, conv.taps * channels])
    product = (left @ right).sum([0], keepdims=False).reshape([conv.filters, conv.taps, channels])
    return product.transpose(0, 2, 1).reshape([conv.filters, channels, *conv.kernel])


def _depthwise(x: Expression, dy: Expression, conv: Convolution) -> Expression:
    """A product and a sum a tap."""
    taps = [(dy * seen).sum([0, 2, 3], keepdims=False).reshape([-1, 1]) for seen in tap_slices(x, conv)]
    return concat(taps, axis=1).reshape([conv.filters, 1, *conv.kernel])


# Input gradient: the transposed convolution


def input_gradient(dy: Expression, w: Expression, conv: Convolution) -> Expression | None:
    """A convolution with the kernel turned round, or columns of the whole batch; None: ConvTranspose is as good."""
    if conv.strides != (1, 1):
        return None
    if conv.is_dense and conv.taps > 1 and conv.positions < LEAST_POSITIONS:
        return _columns_of_the_batch(dy, w, conv)
    return _turned_kernel(dy, w, conv)


def _turned_kernel(dy: Expression, w: Expression, conv: Convolution) -> Expression | None:
    """The convolution of dy with w turned by 180° and with its channels and filters exchanged."""
    extent = [(k - 1) * d for k, d in zip(conv.kernel, conv.dilations, strict=True)]
    pads = [e - p for e, p in zip(extent * 2, conv.pads, strict=True)]
    if min(pads) < 0:
        return None
    group, filters, channels = conv.group, conv.filters // conv.group, conv.channels // conv.group
    taps = w.reshape([-1, conv.taps])
    if conv.taps > 1:  # a product with the exchange matrix is the fastest way to reverse an axis
        taps = taps @ taps.constant(np.eye(conv.taps)[::-1])
    turned = taps.reshape([group, filters, channels, conv.taps]).transpose(0, 2, 1, 3)
    kernel = turned.reshape([conv.channels, filters, *conv.kernel])
    return dy.op("Conv", kernel, pads=pads, dilations=list(conv.dilations), group=group)


def _columns_of_the_batch(dy: Expression, w: Expression, conv: Convolution) -> Expression:
    """One product for all images gives the columns, which Col2Im adds up."""
    rows = dy.transpose(1, 0, 2, 3).reshape([conv.filters, -1])
    columns = w.reshape([conv.filters, -1]).op("Gemm", rows, transA=1)
    images = columns.reshape([conv.channels * conv.taps, -1, conv.positions]).transpose(1, 0, 2)
    window = {"pads": list(conv.pads), "strides": list(conv.strides), "dilations": list(conv.dilations)}
    return images.op("Col2Im", dy.integers(list(conv.size)), dy.integers(list(conv.kernel)), **window)


# Copies


def tap_slices(x: Expression, conv: Convolution) -> list[Expression]:
    """For each tap of the kernel, what it sees of x at all positions; the first two axes stay."""
    padded = pad(x, list(conv.pads))
    slices = []
    for i, j in itertools.product(range(conv.kernel[0]), range(conv.kernel[1])):
        start = [i * conv.dilations[0], j * conv.dilations[1]]
        end = [s + (n - 1) * t + 1 for s, n, t in zip(start, conv.count, conv.strides, strict=True)]
        if conv.taps == 1 and conv.strides == (1, 1) and not any(conv.pads):
            slices.append(padded)
        else:
            slices.append(padded.op("Slice", *(x.integers(v) for v in (start, end, [2, 3], list(conv.strides)))))
    return slices


def pad(x: Expression, pads: list[int]) -> Expression:
    """Zeros around, or where negative cut off: top, left, bottom, right."""
    return x.op("Pad", x.integers([0, 0, *pads[:2], 0, 0, *pads[2:]])) if any(pads) else x


def concat(parts: list[Expression], axis: int) -> Expression:
    return parts[0].op("Concat", *parts[1:], axis=axis) if len(parts) > 1 else parts[0]


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    x, dy, w = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.of(call, x, dy, w)
    return [weight_gradient(x, dy, conv).tensor] if conv else None


def conv_input_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    dy, w, x = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.of(call, x, dy, w)
    dx = input_gradient(dy, w, conv) if conv else None
    return [dx.tensor] if dx else None
