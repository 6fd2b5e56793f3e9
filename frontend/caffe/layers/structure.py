"""Layers that move elements without computing: Concat, Slice, Flatten, Reshape, Permute, Crop, Tile, …"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wootz.frontend.caffe.layers.rearrange import shuffled_pixels
from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.network import SCALAR, BlobShape
from wootz.frontend.caffe.schema import Unsigned
from wootz.frontend.caffe.shape import Dim, Shape, count, quotient, static, text, total
from wootz.passes.ir.model import Constant


@dataclass(frozen=True)
class ConcatParameter:
    axis: int | None = None
    concat_dim: Unsigned = 1
    per_fla_fuse: bool = False


@dataclass(frozen=True)
class SliceParameter:
    axis: int | None = None
    slice_dim: Unsigned = 1
    slice_point: tuple[Unsigned, ...] = ()


@dataclass(frozen=True)
class FlattenParameter:
    axis: int = 1
    end_axis: int = -1


@dataclass(frozen=True)
class ReshapeParameter:
    """ReshapeParameter of caffe.proto; `pixelshuffler` is of SRGAN's forks."""

    shape: BlobShape = SCALAR
    axis: int = 0
    num_axes: int = -1
    pixelshuffler: Unsigned = 1


@dataclass(frozen=True)
class PermuteParameter:
    """PermuteParameter of the SSD fork."""

    order: tuple[Unsigned, ...] = ()


@dataclass(frozen=True)
class TransposeParameter:
    dim: tuple[int, ...] = ()


@dataclass(frozen=True)
class CropParameter:
    axis: int = 2
    offset: tuple[Unsigned, ...] = ()


@dataclass(frozen=True)
class TileParameter:
    tiles: Unsigned
    axis: int = 1


@dataclass(frozen=True)
class ShuffleChannelParameter:
    group: Unsigned = 1


@dataclass(frozen=True)
class SqueezeParameter:
    """Squeeze of PyTorch exporters: without axes every dimension of 1 behind the batch."""

    axis: int | None = None
    dim: tuple[int, ...] = ()


@dataclass(frozen=True)
class ParameterParameter:
    shape: BlobShape = SCALAR


def concat(site: Site, p: ConcatParameter) -> Value:
    site.expect_inputs(1, 10_000)
    if p.per_fla_fuse:
        raise site.error("per_fla_fuse: write what it stands for, a Permute and a Flatten layer before each bottom")
    first = site.input.shape
    axis = site.axis(int(p.concat_dim) if p.axis is None else p.axis, len(first))
    for other in site.inputs[1:]:
        if len(other.shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, other.shape, strict=True)) if i != axis
        ):
            raise site.error(f"bottoms of shapes {text(first)} and {text(other.shape)} can't be joined along {axis}")
    if len(site.inputs) == 1:
        return site.input
    shape = (*first[:axis], total([v.shape[axis] for v in site.inputs]), *first[axis + 1 :])
    constants = [v.tensor.values for v in site.inputs if isinstance(v.tensor, Constant)]
    if len(constants) == len(site.inputs):
        return Value(site.constant(np.concatenate(constants, axis), "joined"), shape)
    return Value(site.op("Concat", *(v.tensor for v in site.inputs), axis=axis), shape)


def slice_blob(site: Site, p: SliceParameter) -> list[Value]:
    """Split, at the given points or in equal parts."""
    site.expect_inputs(1)
    x, tops = site.input, len(site.layer.tops)
    axis = site.axis(int(p.slice_dim) if p.axis is None else p.axis, len(x.shape))
    size = static(x.shape[axis])
    if p.slice_point and len(p.slice_point) != tops - 1:
        raise site.error(f"{len(p.slice_point)} slice points for {tops} tops")
    if not p.slice_point and size % tops:
        raise site.error(f"{size} positions can't be sliced into {tops} equal parts")
    points = [0, *(p.slice_point or range(size // tops, size, size // tops)), size]
    sizes = [b - a for a, b in pairwise(points)]
    if min(sizes) < 1:
        raise site.error(f"slice points {points[1:-1]} on {size} positions leave a top empty")
    if tops == 1:
        return [x]
    parts = site.ops("Split", x.tensor, site.constant(sizes, "sizes"), count=tops, axis=axis)
    return [Value(t, (*x.shape[:axis], s, *x.shape[axis + 1 :])) for t, s in zip(parts, sizes, strict=True)]


def split(site: Site, p: None) -> list[Value]:
    """Every top is the bottom."""
    site.expect_inputs(1)
    return [site.input] * len(site.layer.tops)


def flatten(site: Site, p: FlattenParameter) -> Value:
    site.expect_inputs(1)
    x = site.input
    start, end = site.axis(p.axis, len(x.shape)), site.axis(p.end_axis, len(x.shape), "end_axis")
    shape = (*x.shape[:start], count(x.shape[start : end + 1]), *x.shape[end + 1 :])
    if shape == x.shape:
        return x
    if start == 1 and len(shape) == 2:
        return Value(site.op("Flatten", x.tensor, axis=1), shape)
    return Value(site.reshape(x.tensor, x.shape, shape), shape)


def reshape(site: Site, p: ReshapeParameter) -> Value:
    """Reshape; 0 keeps a dimension, -1 takes what is left, and the axes outside `axis`, `num_axes` stay.

    Where a written first dimension fits for the declared batch size only, it stands for any.
    """
    site.expect_inputs(1)
    if p.pixelshuffler != 1:
        return shuffled_pixels(site, int(p.pixelshuffler), "CRD")
    x = site.input
    rank = len(x.shape)
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    end = rank if p.num_axes == -1 else start + p.num_axes
    if not 0 <= start <= end <= rank:
        raise site.error(f"axis {p.axis} and num_axes {p.num_axes} for a blob of shape {text(x.shape)}")
    middle = _resolved(site, p.shape.dim, x.shape, start, end)
    shape = (*x.shape[:start], *middle, *x.shape[end:])
    if count(shape) != count(x.shape) and start == 0 and shape and shape[0] == site.lowered.batch:
        shape = (x.shape[0], *shape[1:])
    if count(shape) != count(x.shape):
        raise site.error(f"{text(x.shape)} can't be reshaped to {text(shape)}: other number of elements")
    return Value(site.reshape(x.tensor, x.shape, shape), shape)


def _resolved(site: Site, target: Sequence[int], shape: Shape, start: int, end: int) -> list[Dim]:
    """`target` with the zeros and the -1 replaced."""
    dims: list[Dim] = []
    for i, dim in enumerate(target):
        if dim == 0 and start + i >= len(shape):
            raise site.error(f"dimension {i} of the shape is 0, and the bottom has no dimension {start + i} to copy")
        dims.append(shape[start + i] if dim == 0 else dim)
    if list(target).count(-1) > 1 or min(target, default=0) < -1:
        raise site.error(f"the shape {list(target)} has to have at most one -1 and nothing below")
    replaced = shape[start:end]
    if -1 not in target:
        return dims
    unknown = list(target).index(-1)
    rest = quotient(count(replaced), count([d for i, d in enumerate(dims) if i != unknown]))
    if rest is None:
        raise site.error(f"{text(replaced)} can't be reshaped to {list(target)}")
    dims[unknown] = rest
    return dims


def permute(site: Site, p: PermuteParameter) -> Value:
    """Transpose; axes that are not named follow in their order."""
    return _transposed(site, list(map(int, p.order)))


def transpose(site: Site, p: TransposeParameter) -> Value:
    return _transposed(site, [site.axis(d, len(site.input.shape), "dim") for d in p.dim])


def _transposed(site: Site, order: list[int]) -> Value:
    site.expect_inputs(1)
    x = site.input
    full = order + [i for i in range(len(x.shape)) if i not in order]
    if sorted(full) != list(range(len(x.shape))):
        raise site.error(f"the order {order} is no permutation of the axes of a blob of shape {text(x.shape)}")
    if full == sorted(full):
        return x
    return Value(site.op("Transpose", x.tensor, perm=full), tuple(x.shape[i] for i in full))


def crop(site: Site, p: CropParameter) -> Value:
    """Slice: from `axis` on the first bottom gets the size of the second, from `offset` on."""
    site.expect_inputs(2)
    x, reference = site.inputs
    axis = site.axis(p.axis, len(x.shape))
    axes = list(range(axis, len(x.shape)))
    if len(p.offset) not in (0, 1, len(axes)):
        raise site.error(f"{len(p.offset)} offsets for {len(axes)} axes")
    offsets = list(p.offset) * len(axes) if len(p.offset) == 1 else list(p.offset) or [0] * len(axes)
    sizes = [static(reference.shape[a]) for a in axes]
    for a, offset, size in zip(axes, offsets, sizes, strict=True):
        if static(x.shape[a]) < offset + size:
            raise site.error(f"axis {a} has {x.shape[a]} positions, fewer than offset {offset} and size {size}")
    shape = (*x.shape[:axis], *sizes)
    if shape == x.shape:
        return x
    ends = [o + s for o, s in zip(offsets, sizes, strict=True)]
    y = site.op(
        "Slice",
        x.tensor,
        site.constant([int(o) for o in offsets], "starts"),
        site.constant(ends, "ends"),
        site.constant(axes, "axes"),
    )
    return Value(y, shape)


def tile(site: Site, p: TileParameter) -> Value:
    site.expect_inputs(1)
    x = site.input
    axis = site.axis(p.axis, len(x.shape))
    if p.tiles < 1:
        raise site.error("tiles has to be 1 or more")
    if p.tiles == 1:
        return x
    repeats = [int(p.tiles) if i == axis else 1 for i in range(len(x.shape))]
    shape = (*x.shape[:axis], count((x.shape[axis], p.tiles)), *x.shape[axis + 1 :])
    return Value(site.op("Tile", x.tensor, site.constant(repeats, "repeats")), shape)


def shuffle_channel(site: Site, p: ShuffleChannelParameter) -> Value:
    """Reshape, Transpose, Reshape: channel (g, i) becomes (i, g) (ShuffleNet)."""
    site.expect_inputs(1)
    x = site.input
    channels = static(x.shape[1])
    if p.group < 1 or channels % p.group:
        raise site.error(f"{channels} channels can't be split into {p.group} groups")
    if p.group in (1, channels):
        return x
    rest = x.shape[2:]
    groups: Shape = (x.shape[0], int(p.group), channels // p.group, *rest)
    swapped: Shape = (x.shape[0], channels // p.group, int(p.group), *rest)
    grouped = site.reshape(x.tensor, x.shape, groups)
    order = [0, 2, 1, *range(3, len(groups))]
    return Value(site.reshape(site.op("Transpose", grouped, perm=order), swapped, x.shape), x.shape)


def squeeze(site: Site, p: SqueezeParameter) -> Value:
    site.expect_inputs(1)
    x = site.input
    rank = len(x.shape)
    named = [*p.dim, *([] if p.axis is None else [p.axis])]
    axes = sorted({site.axis(a, rank) for a in named}) or [i for i in range(1, rank) if x.shape[i] == 1]
    for a in axes:
        if x.shape[a] != 1:
            raise site.error(f"axis {a} of {text(x.shape)} can't be squeezed: it is not 1")
    shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    if not axes:
        return x
    return Value(site.op("Squeeze", x.tensor, site.constant(axes, "axes", np.int64)), shape)


def parameter(site: Site, p: ParameterParameter) -> Value:
    """A blob of the layer itself, which starts at 0."""
    if min(p.shape.dim, default=1) < 1:
        raise site.error(f"its shape {text(p.shape.dim)} has to have dimensions of 1 or more", "parameter_param")
    (values,) = site.parameters(filled(0, "weight", p.shape.dim))
    return Value(values, p.shape.dim)
