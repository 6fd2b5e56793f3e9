"""Gradients of operators that move elements or copy them: dy goes back to where its element came from."""

from __future__ import annotations

import itertools

import numpy as np

from wootz.passes.ir.model import Constant
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.interpolation import resize
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, like, static, sum_to_shape

END = 2**31 - 1
"""A bound of Slice behind every element; its negative is before every element."""


def to_operand_shape(b: Backward) -> Gradients:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same elements in the operand's shape."""
    return [b.gradient().reshape(like(b.operand(0)))]


def transpose(b: Backward) -> Gradients:
    """The inverse permutation; without `perm`, axes are reversed, which is its own inverse."""
    rank = b.operand(0).rank
    permutation = b.attribute("perm") or list(reversed(range(rank)))
    return [b.gradient().transpose(*np.argsort(permutation).tolist())]


def concat(b: Backward) -> Gradients:
    """Each operand's gradient is its slice of dy."""
    dy, axis = b.gradient(), b.attribute("axis")
    sizes = static([b.operand(i).shape[axis] for i in range(len(b.x))], "the concatenated axis")
    ends = list(itertools.accumulate(sizes))
    return [
        dy.op("Slice", dy.integers([end - size]), dy.integers([end]), dy.integers([axis])) if b.wants(i) else None
        for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def split(b: Backward) -> Gradients:
    """The gradients of all parts side by side, zeros for the parts that have none."""
    parts = [dy if dy is not None else _zeros(b.result(i)) for i, dy in enumerate(b.dy)]
    return [parts[0].op("Concat", *parts[1:], axis=b.attribute("axis", 0))]


def slice_(b: Backward) -> Gradients:
    """dy where an element was taken, zeros elsewhere."""
    x, dx = b.operand(0), b.gradient()
    starts, ends = _integers(b, 1), _integers(b, 2)
    axes = _integers(b, 3) if len(b.x) > 3 and b.x[3] is not None else list(range(len(starts)))
    steps = _integers(b, 4) if len(b.x) > 4 and b.x[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        (size,) = static([x.shape[axis]], "the sliced axis")
        dx = _put_back(dx, list(range(*slice(_bound(start), _bound(end), step).indices(size))), axis % x.rank, size)
    return [dx]


def gather(b: Backward) -> Gradients:
    """dy goes back to where it was taken from; elements taken more than once sum theirs."""
    dy, x, indices = b.gradient(), b.operand(0), b.operand(1)
    axis = b.attribute("axis", 0) % x.rank
    if isinstance(indices.tensor, Constant) and indices.rank == 1 and isinstance(x.shape[axis], int):
        size = int(x.shape[axis])
        taken = [int(i) % size for i in indices.tensor.values]
        if len(set(taken)) == len(taken):
            return [_put_back(dy, taken, axis, size)]
    to_front = [*range(axis, axis + indices.rank), *range(axis), *range(axis + indices.rank, dy.rank)]
    rows = [axis, *range(axis), *range(axis + 1, x.rank)]
    zeros = _zeros(x.transpose(*rows))
    column = indices.op("Unsqueeze", indices.integers([-1]))
    summed = zeros.op("ScatterND", column, dy.transpose(*to_front), reduction="add")
    return [summed.transpose(*np.argsort(rows).tolist())]


def pad(b: Backward) -> Gradients:
    """What lies inside the padding; what a negative pad cut off gets zeros."""
    if b.attribute("mode", "constant") != "constant":
        raise NoRule(f"mode={b.attribute('mode')} is not supported, only constant padding is")
    dy, pads = b.gradient(), np.asarray(_integers(b, 1))
    count = len(pads) // 2
    axes = _integers(b, 3) if len(b.x) > 3 and b.x[3] is not None else list(range(count))
    begin, end = np.maximum(pads[:count], 0), np.maximum(pads[count:], 0)
    last = np.where(end > 0, -end, END)
    bounds = (dy.integers([int(v) for v in bound]) for bound in (begin, last))
    dx = dy.op("Slice", *bounds, dy.integers(axes)) if (pads > 0).any() else dy
    if (pads < 0).any():
        dx = dx.op("Pad", dx.integers([max(-int(p), 0) for p in pads]), None, dx.integers(axes))
    return [dx]


def expand(b: Backward) -> Gradients:
    return [sum_to_shape(b.gradient(), b.result(), b.operand(0))]


def tile(b: Backward) -> Gradients:
    """The sum over the repetitions: [r0·d0, r1·d1, …] as [r0, d0, r1, d1, …], summed over each r."""
    shape = b.operand(0).shape
    repeats = _integers(b, 1)
    if sum(not isinstance(d, int) for d in shape) > 1:
        raise NoRule("only one axis may have a symbolic size")
    apart = [n for r, d in zip(repeats, shape, strict=True) for n in (r, d if isinstance(d, int) else -1)]
    return [b.gradient().reshape(apart).sum(list(range(0, len(apart), 2)), keepdims=False)]


def depth_to_space(b: Backward) -> Gradients:
    """SpaceToDepth; in mode CRD its channels are (channel, row, column) instead of (row, column, channel)."""
    dy, block = b.gradient(), b.attribute("blocksize")
    blocks = dy.op("SpaceToDepth", blocksize=block)
    if b.attribute("mode", "DCR") == "DCR":
        return [blocks]
    channels, height, width = static(b.operand(0).shape[1:], "channels, height and width")
    apart = blocks.reshape([-1, block * block, channels // block**2, height, width])
    return [apart.transpose(0, 2, 1, 3, 4).reshape(like(b.operand(0)))]


def space_to_depth(b: Backward) -> Gradients:
    return [b.gradient().op("DepthToSpace", blocksize=b.attribute("blocksize"))]


def _put_back(dy: Expression, taken: list[int], axis: int, size: int) -> Expression:
    """Element i of `dy` along `axis` goes to position taken[i] of `size`; the other positions are zero."""
    if taken == list(range(taken[0], taken[0] + len(taken))):
        return dy.op("Pad", dy.integers([taken[0], size - taken[-1] - 1]), None, dy.integers([axis]))
    with_zero = dy.op("Pad", dy.integers([0, 1]), None, dy.integers([axis]))
    position = {place: i for i, place in enumerate(taken)}
    source = [position.get(place, len(taken)) for place in range(size)]
    return with_zero.op("Gather", dy.integers(source), axis=axis)


def _bound(value: int) -> int | None:
    """A bound of Slice for Python."""
    return None if abs(value) >= END else value


def _integers(b: Backward, index: int) -> list[int]:
    """Operand `index` as numbers. Raises NoRule where it is computed."""
    tensor = b.operand(index).tensor
    if not isinstance(tensor, Constant):
        raise NoRule(f"operand {index} must be constant")
    return [int(v) for v in tensor.values]


def _zeros(operand: Expression) -> Expression:
    zero = operand.constant(0.0)
    return zero.op("Expand", operand.shape_tensor())


MOVEMENT: dict[str, Rule] = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": to_operand_shape,
    "Gather": gather,
    "Pad": pad,
    "Reshape": to_operand_shape,
    "Resize": resize,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": to_operand_shape,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": to_operand_shape,
}
