"""Gradients of operators that move elements or copy them: dy goes back to where its element came from."""

from __future__ import annotations

import itertools

import numpy as np

from wootz.passes.ir.model import Constant
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.interpolation import resize
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, integers, like, static, sum_to_shape

END = 2**31 - 1
"""A bound of Slice behind every element; its negative is before every element."""
LARGEST_SELECTION = 512
"""Elements of an axis up to which a product of matrices takes the place of gathering single ones."""


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
        _slice(dy, end - size, end, axis) if b.wants(i) else None
        for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def split(b: Backward) -> Gradients:
    """The gradients of all parts side by side, zeros for the parts that have none."""
    parts = [dy if dy is not None else _zeros(b.result(i)) for i, dy in enumerate(b.dy)]
    return [parts[0].op("Concat", *parts[1:], axis=b.attribute("axis", 0))]


def slice_(b: Backward) -> Gradients:
    """dy where an element was taken, zeros elsewhere."""
    x, dx = b.operand(0), b.gradient()
    starts, ends = integers(b, 1), integers(b, 2)
    axes = integers(b, 3) if len(b.x) > 3 and b.x[3] is not None else list(range(len(starts)))
    steps = integers(b, 4) if len(b.x) > 4 and b.x[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        (size,) = static([x.shape[axis]], "the sliced axis")
        taken = _taken(start, end, step, size)
        if not taken:
            return [_zeros(x)]
        dx = _put_back(dx, taken, axis % x.rank, size, is_last=axis % x.rank == x.rank - 1)
    return [dx]


def _taken(start: int, end: int, step: int, size: int) -> list[int]:
    """The elements that Slice takes of an axis, with bounds clamped as the operator's specification says."""
    first, last = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return list(range(max(first, 0), min(last, size), step))
    return list(range(min(max(first, 0), size - 1), max(last, -1), step))


def gather(b: Backward) -> Gradients:
    """dy goes back to where it was taken from; elements taken more than once sum theirs."""
    dy, x, indices = b.gradient(), b.operand(0), b.operand(1)
    axis = b.attribute("axis", 0) % x.rank
    if isinstance(indices.tensor, Constant) and indices.rank < 2 and isinstance(x.shape[axis], int):
        size = int(x.shape[axis])
        taken = [int(i) % size for i in indices.tensor.values.ravel()]
        if not taken:
            return [_zeros(x)]
        if len(set(taken)) == len(taken):
            parts = dy if indices.rank else dy.op("Unsqueeze", dy.integers([axis]))
            return [_put_back(parts, taken, axis, size, is_last=axis == x.rank - 1)]
    to_front = [*range(axis, axis + indices.rank), *range(axis), *range(axis + indices.rank, dy.rank)]
    rows = [axis, *range(axis), *range(axis + 1, x.rank)]
    zeros = _zeros(_turned(x, rows))
    column = indices.op("Unsqueeze", indices.integers([-1]))
    summed = _scattered(zeros, "ScatterND", column, _turned(dy, to_front))
    return [_turned(summed, np.argsort(rows).tolist())]


def gather_elements(b: Backward) -> Gradients:
    """dy is added where each element was taken."""
    zeros, axis = _zeros(b.operand(0)), b.attribute("axis", 0)
    return [_scattered(zeros, "ScatterElements", b.operand(1), b.gradient(), axis=axis)]


def gather_nd(b: Backward) -> Gradients:
    """dy is added where each slice was taken."""
    if b.attribute("batch_dims", 0):
        raise NoRule("batch_dims are not supported")
    return [_scattered(_zeros(b.operand(0)), "ScatterND", b.operand(1), b.gradient())]


def top_k(b: Backward) -> Gradients:
    """dy goes to the elements that were chosen, which the second result names."""
    indices = b.result(1)
    return [_zeros(b.operand(0)).op("ScatterElements", indices, b.gradient(), axis=b.attribute("axis", -1))]


def pad(b: Backward) -> Gradients:
    """What lies inside the padding; with mode reflect or edge, the border's gradients go to where it was copied from.

    A negative pad cuts off: what it cut off gets zeros.
    """
    mode = b.attribute("mode", "constant")
    if mode == "constant":
        return [_without_padding(b)]
    if mode not in ("reflect", "edge"):
        raise NoRule(f"mode={mode} is not supported: constant, reflect and edge are")
    dx, x = b.gradient(), b.operand(0)
    pads, axes = np.reshape(integers(b, 1), [2, -1]), _padded_axes(b)
    if (pads < 0).any():
        raise NoRule(f"negative pads are not supported with mode={mode}: slice")
    for begin, end, axis in zip(*pads.tolist(), axes, strict=True):
        if begin or end:
            (size,) = static([x.shape[axis]], "the padded axis")
            if mode == "reflect" and max(begin, end) >= size:
                raise NoRule("mode=reflect needs pads that are smaller than the axis")
            dx = _fold_border(dx, begin, end, axis, size, mode)
    return [dx, None, 0]


def _without_padding(b: Backward) -> Expression:
    dy, operand = b.gradient(), b.operand(1)
    if not isinstance(operand.tensor, Constant):  # the opposite pads cut off what was added
        axes = b.x[3] if len(b.x) > 3 else None
        return dy.op("Pad", operand.op("Neg"), None, axes)
    pads = np.reshape(integers(b, 1), [2, -1])
    axes = dy.integers(_padded_axes(b))
    begin, end = np.maximum(pads, 0)
    last = np.where(end > 0, -end, END)
    dx = dy.op("Slice", dy.integers(begin.tolist()), dy.integers(last.tolist()), axes) if (pads > 0).any() else dy
    if (pads < 0).any():
        dx = dx.op("Pad", dx.integers(np.maximum(-pads, 0).flatten().tolist()), None, axes)
    return dx


def _padded_axes(b: Backward) -> list[int]:
    axes = integers(b, 3) if len(b.x) > 3 and b.x[3] is not None else range(b.operand(0).rank)
    return [a % b.operand(0).rank for a in axes]


def _fold_border(dy: Expression, begin: int, end: int, axis: int, size: int, mode: str) -> Expression:
    """dy without the border along one axis; what the border has is added where the border's elements come from."""
    total = _slice(dy, begin, begin + size, axis)
    borders = [(begin, 0, begin, 1), (end, begin + size, begin + size + end, size - 1 - end)]
    for width, first, last, mirrored in borders:
        if not width:
            continue
        if mode == "edge":
            part = _slice(dy, first, last, axis).sum([axis])
            place = 0 if first == 0 else size - 1
        else:
            part = _slice(dy, last - 1, first - 1 if first else -END, axis, step=-1)
            place = mirrored
        width = 1 if mode == "edge" else width
        total = total + _put_back(part, list(range(place, place + width)), axis, size)
    return total


def trilu(b: Backward) -> Gradients:
    """The same triangle of dy."""
    diagonal = b.operand(1) if len(b.x) > 1 and b.x[1] is not None else None
    return [b.gradient().op("Trilu", diagonal, upper=b.attribute("upper", 1))]


def expand(b: Backward) -> Gradients:
    return [sum_to_shape(b.gradient(), b.result(), b.operand(0))]


def tile(b: Backward) -> Gradients:
    """The sum over the repetitions: [r0·d0, r1·d1, …] as [r0, d0, r1, d1, …], summed over each r."""
    shape = b.operand(0).shape
    repeats = integers(b, 1)
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


def _scattered(zeros: Expression, scatter: str, indices: Expression, dy: Expression, **attributes: int) -> Expression:
    """`dy` added to `zeros` by ScatterND or ScatterElements; in float32 for float16, which ONNX Runtime can't add on
    CPUs."""
    wide = np.dtype(np.float32) if dy.dtype == np.float16 else dy.dtype
    summed = zeros.as_type(wide).op(scatter, indices, dy.as_type(wide), reduction="add", **attributes)
    return summed.as_type(dy.dtype)


def _put_back(dy: Expression, taken: list[int], axis: int, size: int, is_last: bool = False) -> Expression:
    """Element i of `dy` along `axis` goes to position taken[i] of `size`; the other positions are zero.

    Along the last axis a product with ones and zeros does that: runtimes gather single elements slowly.
    """
    if taken == list(range(taken[0], taken[0] + len(taken))):
        return dy.op("Pad", dy.integers([taken[0], size - taken[-1] - 1]), None, dy.integers([axis]))
    if is_last and size <= LARGEST_SELECTION:
        return dy.op("MatMul", dy.constant(np.eye(size)[taken]))
    with_zero = dy.op("Pad", dy.integers([0, 1]), None, dy.integers([axis]))
    position = {place: i for i, place in enumerate(taken)}
    source = [position.get(place, len(taken)) for place in range(size)]
    return with_zero.op("Gather", dy.integers(source), axis=axis)


def _slice(values: Expression, start: int, end: int, axis: int, step: int = 1) -> Expression:
    return values.op("Slice", *(values.integers([v]) for v in (start, end, axis, step)))


def _turned(values: Expression, permutation: list[int]) -> Expression:
    """The Transpose, where there is something to move."""
    return values if permutation == sorted(permutation) else values.transpose(*permutation)


def _zeros(operand: Expression) -> Expression:
    zero = operand.constant(0.0)
    return zero.op("Expand", operand.shape_tensor())


MOVEMENT: dict[str, Rule] = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": to_operand_shape,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Pad": pad,
    "Reshape": to_operand_shape,
    "Resize": resize,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": to_operand_shape,
    "Tile": tile,
    "TopK": top_k,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": to_operand_shape,
}
