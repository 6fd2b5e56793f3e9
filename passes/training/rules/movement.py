"""Gradients of operators that move elements: reshapes, slices, concatenations, reductions and their opposites."""

from __future__ import annotations

import itertools
import math

from wootz.passes.ir.model import Constant
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, like, static


def concat(b: Backward) -> Gradients:
    """Each operand's gradient is its slice of dy."""
    dy, axis = b.gradient(), b.attribute("axis")
    sizes = static([b.operand(i).shape[axis] for i in range(len(b.x))], "the concatenated axis")
    ends = list(itertools.accumulate(sizes))
    return [
        dy.op("Slice", dy.integers([end - size]), dy.integers([end]), dy.integers([axis])) if b.wants(i) else None
        for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def reduce_sum(b: Backward) -> Gradients:
    """dy, stretched over the axes that were summed."""
    return [_stretched(b, b.gradient())]


def reduce_mean(b: Backward) -> Gradients:
    """dy / count, stretched over the axes that were averaged."""
    dy = b.gradient()
    return [_stretched(b, dy / _count(b, _axes(b, b.operand(0).rank)).cast(dy))]


def _stretched(b: Backward, values: Expression) -> Expression:
    """`values`, of the shape of the result, in the shape of the operand."""
    x = b.operand(0)
    if not b.attribute("keepdims", 1):
        values = values.op("Unsqueeze", values.integers(_axes(b, x.rank)))
    return values.op("Expand", x.shape_tensor())


def _count(b: Backward, axes: list[int]) -> Expression:
    x = b.operand(0)
    sizes = [x.shape[a] for a in axes]
    if all(isinstance(d, int) for d in sizes):
        return x.constant(math.prod(static(sizes, "")))
    return x.shape_tensor().op("Gather", x.integers(axes)).op("ReduceProd", keepdims=0)


def _axes(b: Backward, rank: int) -> list[int]:
    """The axes that a reduction runs over: its second operand (an attribute in ReduceMean before opset 18), or all."""
    operand = b.x[1] if len(b.x) > 1 else None
    if operand is None:
        return [a % rank for a in b.attribute("axes", range(rank))]
    if not isinstance(operand.tensor, Constant):
        raise NoRule("the axes must be constant")
    return [int(a) % rank for a in operand.tensor.values]


def to_operand_shape(b: Backward) -> Gradients:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same elements in the operand's shape."""
    return [b.gradient().reshape(like(b.operand(0)))]


MOVEMENT: dict[str, Rule] = {
    "Reshape": to_operand_shape,
    "Flatten": to_operand_shape,
    "Squeeze": to_operand_shape,
    "Unsqueeze": to_operand_shape,
    "Concat": concat,
    "ReduceSum": reduce_sum,
    "ReduceMean": reduce_mean,
}
