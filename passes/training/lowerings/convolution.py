"""The gradients of a convolution in standard operators, in the formulation that costs least for the shape.

What was measured with ONNX Runtime's CPU provider (float32): products of matrices run near the peak of the core, so
that copies decide. Products image by image write a result each, to be summed; folding the batch into the inner axis of
one product copies the operands instead. ConvTranspose adds up its columns image by image, which costs a quarter of its
time; a Conv with the kernel turned round does not.
"""

from __future__ import annotations

import itertools

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings.convolution_shape import Convolution
from wootz.passes.training.lowerings.sums import channel_sum, outer_product

WIDEST_SHIFT = 32
"""Up to as many columns, a product with a constant shifts a row on all threads for less than Pad does on one."""

FEW_CHANNELS = 16
"""With fewer input channels, a product a tap is too narrow to run well."""

TURNING = 16
"""Turning a kernel costs as much as this many passes over the operand and the result."""

FOLDING = 4
"""With more weights than this many times an image's activations, one product for the batch beats one an image."""

WIDEST_SPREAD = 16
"""Columns up to which a product with a constant spreads pixels over a larger image for less than ConvTranspose does."""


# Weight gradient: dw[m, c, i, j] = Σ over n, p, q of dy[n, m, p, q] · x[n, c, p · stride + i · dilation, …]


def weight_gradient(x: Expression, dy: Expression, conv: Convolution) -> Expression:
    """The formulation that copies and computes least."""
    if conv.is_depthwise:
        return _depthwise(x, dy, conv)
    if conv.group > 1:
        return _grouped(x, dy, conv)
    fold = 4 * conv.taps * conv.filters * conv.channels > 3 * conv.activations
    if fold:
        x, dy = x.transpose(1, 0, 2, 3), dy.transpose(1, 0, 2, 3)
    if conv.taps > 1 and (conv.channels < FEW_CHANNELS or conv.filters > 3 * conv.positions):
        return _one_product(x, dy, conv, fold)
    operands = _tap_operands(x, dy, conv, fold)
    return _as_weight([_outer_products(d, s, conv.filters, conv.channels, fold) for d, s in operands], conv)


def _tap_operands(
    x: Expression, dy: Expression, conv: Convolution, fold: bool = False
) -> list[tuple[Expression, Expression]]:
    """For each tap of the kernel dy and what the tap sees of x, position by position.

    Where x has its columns moved to where dy has them, and dy its rows to where x has them, kw + kh copies, less what
    needs no move, serve kh · kw taps.
    """
    if not _can_shift(conv):
        return [(dy, seen) for seen in tap_slices(x, conv, fold)]
    rows, columns = ([n * d for n in range(k)] for k, d in zip(conv.kernel, conv.dilations, strict=True))
    spread = _spread(dy, conv.count, (conv.strides[0], 1)) if conv.strides[0] > 1 else dy
    x_shifts = [_shift_columns(x, conv.pads[1] - column, conv) for column in columns]
    dy_shifts = [_shift_rows(spread, row - conv.pads[0], conv) for row in rows]
    return list(itertools.product(dy_shifts, x_shifts))


def _can_shift(conv: Convolution) -> bool:
    """Whether every tap sees something of x, so that no shift moves a whole image out, and columns that the convolution
    steps over are few."""
    extents = [(k - 1) * d for k, d in zip(conv.kernel, conv.dilations, strict=True)]
    overlap = all(e < min(n, m * s) for e, n, m, s in zip(extents, conv.size, conv.count, conv.strides, strict=True))
    return overlap and (conv.strides == (1, 1) or max(conv.size[1], conv.count[1] * conv.strides[0]) <= WIDEST_SHIFT)


def _shift_rows(dy: Expression, shift: int, conv: Convolution) -> Expression:
    """As many rows as x has."""
    return pad(dy, [shift, 0, conv.size[0] - conv.count[0] * conv.strides[0] - shift, 0])


def _shift_columns(x: Expression, shift: int, conv: Convolution) -> Expression:
    """As many columns as dy has: column q is column q · stride - shift of x."""
    step, before, after = conv.strides[1], conv.size[1], conv.count[1]
    if step == 1 and (max(before, after) > WIDEST_SHIFT or (shift == 0 and before == after)):
        return pad(x, [0, shift, 0, after - before - shift])
    moved = np.eye(before, after * step, k=shift)[:, ::step]
    return x @ x.constant(moved)


def _one_product(x: Expression, dy: Expression, conv: Convolution, fold: bool) -> Expression:
    """One product of dy with all that the taps see, which lie behind the channel, as in dw."""
    columns = conv.channels * conv.taps
    if fold:
        seen = concat([s.reshape([conv.channels, 1, -1]) for s in tap_slices(x, conv, fold)], axis=1)
    else:
        seen = concat([s.reshape([0, conv.channels, 1, conv.positions]) for s in tap_slices(x, conv)], axis=2)
    return _outer_products(dy, seen, conv.filters, columns, fold).reshape([conv.filters, conv.channels, *conv.kernel])


def _outer_products(left: Expression, right: Expression, rows: int, columns: int, fold: bool) -> Expression:
    """Σ over batch and positions of left[row] · right[column], [rows, columns].

    Without `fold` the operands hold [N, rows, …], with it [rows, N, …].
    """
    if fold:
        return outer_product(left.reshape([rows, -1]), right.reshape([columns, -1]), rows, columns)
    if rows < columns:
        return _outer_products(right, left, columns, rows, fold).transpose(1, 0)
    products = left.reshape([0, rows, -1]) @ right.reshape([0, columns, -1]).transpose(0, 2, 1)
    return products.sum([0], keepdims=False)


def _as_weight(taps: list[Expression], conv: Convolution) -> Expression:
    """The [M, C] of each tap as [M, C, kh, kw]."""
    if len(taps) == 1:
        return taps[0].reshape([conv.filters, conv.channels, 1, 1])
    together = concat(taps, axis=0).reshape([conv.taps, conv.filters * conv.channels])
    return together.transpose(1, 0).reshape([conv.filters, conv.channels, *conv.kernel])


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
    taps = [channel_sum(d * s, [0, 2, 3]).reshape([-1, 1]) for d, s in _tap_operands(x, dy, conv)]
    return concat(taps, axis=1).reshape([conv.filters, 1, *conv.kernel])


# Input gradient: the transposed convolution


def input_gradient(dy: Expression, w: Expression, conv: Convolution) -> Expression | None:
    """The formulation that costs least; None: ConvTranspose is as good."""
    if conv.taps == 1 and conv.group == 1 and not any(conv.pads):
        return _of_one_tap(dy, w, conv)
    turned = conv.taps * conv.filters * conv.channels
    if conv.group == 1 and conv.taps > 1 and turned > TURNING * conv.activations:
        return _columns_of_the_batch(dy, w, conv)
    return _turned_kernel(dy, w, conv) if conv.strides == (1, 1) else None


def _of_one_tap(dy: Expression, w: Expression, conv: Convolution) -> Expression | None:
    """A product of the filters with dy, whose pixels lie apart where the convolution has strides."""
    strides = conv.strides
    fits = conv.size == tuple(n * s for n, s in zip(conv.count, strides, strict=True))
    if strides != (1, 1) and (not fits or conv.count[1] > WIDEST_SPREAD):
        return None
    if is_heavy(conv):
        pixels = dy.transpose(1, 0, 2, 3).reshape([conv.filters, -1])
        product = w.reshape([conv.filters, -1]).op("Gemm", pixels, transA=1)
        dx = product.reshape([conv.channels, -1, *conv.count]).transpose(1, 0, 2, 3)
    else:
        turned = w.reshape([conv.filters, -1]).transpose(1, 0).reshape([conv.channels, conv.filters, 1, 1])
        dx = dy.op("Conv", turned)
    return dx if strides == (1, 1) else _spread(dx, conv.count, strides)


def _spread(pixels: Expression, count: tuple[int, ...], strides: tuple[int, ...]) -> Expression:
    """[N, C, P, Q] as [N, C, P · stride, Q · stride] with zeros between: a product with the matrix that puts a row of
    pixels into the first of `stride` rows."""
    rows, columns = strides
    width = count[1] * columns
    places = np.zeros((count[1], rows * width))
    places[np.arange(count[1]), np.arange(0, width, columns)] = 1
    return (pixels @ pixels.constant(places)).reshape([0, 0, count[0] * rows, width])


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
    kernel.tensor.dtype, kernel.tensor.shape = w.dtype, [conv.channels, filters, *conv.kernel]  # a session looks at it
    return dy.op("Conv", kernel, pads=pads, dilations=list(conv.dilations), group=group)


def _columns_of_the_batch(dy: Expression, w: Expression, conv: Convolution) -> Expression:
    """One product for all images gives the columns, which Col2Im adds up."""
    rows = dy.transpose(1, 0, 2, 3).reshape([conv.filters, -1])
    columns = w.reshape([conv.filters, -1]).op("Gemm", rows, transA=1)
    images = columns.reshape([conv.channels * conv.taps, -1, conv.positions]).transpose(1, 0, 2)
    return add_up_columns(images, conv)


def add_up_columns(columns: Expression, conv: Convolution) -> Expression:
    """[N, C · taps, P·Q] as [N, C, H, W]: each column's elements are added where the window saw them."""
    size, kernel = columns.integers(list(conv.size)), columns.integers(list(conv.kernel))
    window = {"pads": list(conv.pads), "strides": list(conv.strides), "dilations": list(conv.dilations)}
    return columns.op("Col2Im", size, kernel, **window)


# The convolution itself


def is_heavy(conv: Convolution) -> bool:
    """Whether it has so many more weights than pixels that folding the batch into one product pays."""
    return conv.filters * conv.channels > FOLDING * conv.activations


def convolution(node: Node, builder: Builder) -> list[Tensor] | None:
    """A heavy convolution of one tap whose weights are trained as one product for the batch: the weight gradient reads
    the folded x, too."""
    x, w = (Expression.of(t, builder) for t in node.inputs[:2])
    if len(node.inputs) > 2 or not any(w.tensor is t for t in builder.graph.inputs) or x.tensor.shape is None:
        return None
    y = Expression.of(node.outputs[0], builder)
    attrs = {"strides": [1, 1], "pads": [0] * 4, **node.attrs}
    plain = not any(attrs["pads"]) and list(attrs["strides"]) == [1, 1] and attrs.get("auto_pad", "NOTSET") == "NOTSET"
    if not plain or x.rank != 4 or w.shape[2:] != (1, 1) or attrs.get("group", 1) != 1:
        return None
    conv = Convolution.planar(Node("Conv", attrs={**attrs, "dilations": [1, 1]}), x, y, w.shape[2:])
    if conv is None or not is_heavy(conv):
        return None
    pixels = x.transpose(1, 0, 2, 3).reshape([conv.channels, -1])
    product = w.reshape([conv.filters, -1]).op("Gemm", pixels)
    return [product.reshape([conv.filters, -1, *conv.count]).transpose(1, 0, 2, 3).tensor]


# Copies


def tap_slices(x: Expression, conv: Convolution, fold: bool = False, padding: float = 0.0) -> list[Expression]:
    """For each tap of the kernel, what it sees of x at all positions: [N, C, P, Q], or with `fold` [C, N, P, Q]."""
    if conv.taps == 1 and conv.strides == (1, 1) and not any(conv.pads):
        return [x]
    step = conv.strides[1]
    if step > 1 and conv.taps > 1:
        return _slices_of_phases(x, conv, fold, padding)
    padded = pad(x, list(conv.pads), padding)
    slices = []
    for start in _tap_starts(conv):
        end = [s + (n - 1) * t + 1 for s, n, t in zip(start, conv.count, conv.strides, strict=True)]
        slices.append(padded.op("Slice", *(x.integers(v) for v in (start, end, [2, 3], list(conv.strides)))))
    return slices


def _slices_of_phases(x: Expression, conv: Convolution, fold: bool, padding: float) -> list[Expression]:
    """The same from x split once by the column's remainder, so that the columns of each slice lie side by side.

    The Reshape behind the Transpose keeps ONNX Runtime from moving the Transpose behind the slices.
    """
    step = conv.strides[1]
    top, left, bottom, right = conv.pads
    height, width = conv.padded[0], conv.size[1] + left + right
    spare = -width % step
    padded = pad(x, [top, left, bottom, right + spare], padding)
    columns = (width + spare) // step
    phases = padded.reshape([0, 0, height, columns, step]).transpose(4, 0, 1, 2, 3).reshape([step, -1, height, columns])
    slices = []
    for row, column in _tap_starts(conv):
        phase, first = column % step, column // step
        start = [phase, row, first]
        end = [phase + 1, row + (conv.count[0] - 1) * conv.strides[0] + 1, first + conv.count[1]]
        seen = phases.op("Slice", *(x.integers(v) for v in (start, end, [0, 2, 3], [1, conv.strides[0], 1])))
        slices.append(seen.reshape([*((conv.channels, -1) if fold else (-1, conv.channels)), *conv.count]))
    return slices


def _tap_starts(conv: Convolution) -> list[list[int]]:
    """Row and column of the padded operand that each tap sees at the first position."""
    rows, columns = (range(0, k * d, d) for k, d in zip(conv.kernel, conv.dilations, strict=True))
    return [list(start) for start in itertools.product(rows, columns)]


def pad(x: Expression, pads: list[int], padding: float = 0.0) -> Expression:
    """Padding around, or where negative cut off: top, left, bottom, right."""
    if not any(pads):
        return x
    return x.op("Pad", x.integers([0, 0, *pads[:2], 0, 0, *pads[2:]]), *([padding] if padding else []))


def concat(parts: list[Expression], axis: int) -> Expression:
    return parts[0].op("Concat", *parts[1:], axis=axis) if len(parts) > 1 else parts[0]


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    x, dy, w = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.planar(call, x, dy, w.shape[2:])
    return [weight_gradient(x, dy, conv).tensor] if conv else None


def conv_input_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    dy, w, x = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.planar(call, x, dy, w.shape[2:])
    dx = input_gradient(dy, w, conv) if conv else None
    return [dx.tensor] if dx else None
