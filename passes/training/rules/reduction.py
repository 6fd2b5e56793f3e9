"""Gradients of reductions: dy is stretched back over the axes that were reduced."""

from __future__ import annotations

import math
from collections.abc import Callable

from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, integers, like, static

Formula = Callable[[Expression, Expression, Expression], Expression]


def reduction(formula: Formula) -> Rule:
    """The rule from `formula(dy, x, y)`, in which dy and y have size 1 along the reduced axes."""

    def rule(b: Backward) -> Gradients:
        dy, x, y = _with_reduced_axes(b, b.gradient()), b.operand(0), _with_reduced_axes(b, b.result())
        return [formula(dy, x, y)]

    return rule


def reduce_sum(b: Backward) -> Gradients:
    return [_stretched(b, b.gradient())]


def reduce_mean(b: Backward) -> Gradients:
    return [_stretched(b, b.gradient() / _count(b).cast(b.gradient()))]


def reduce_extremum(b: Backward) -> Gradients:
    """dy goes to the elements that equal y; several that do share it."""
    dy, y = _with_reduced_axes(b, b.gradient()), _with_reduced_axes(b, b.result())
    chosen = b.operand(0).equal(y).cast(dy)
    return [chosen * (dy / chosen.sum(_axes(b)))]


def reduce_prod(b: Backward) -> Gradients:
    """dy times the product of the other elements: of those that are not zero, where no other one is zero, else 0."""
    dy, x, axes = _with_reduced_axes(b, b.gradient()), b.operand(0), _axes(b)
    is_zero = x.equal(0.0)
    other = x.constant(1.0).where(is_zero, x)
    product = other.op("ReduceProd", x.integers(axes)) / other
    zero = is_zero.cast(x)
    zeros_elsewhere = zero.sum(axes) - zero
    return [(dy * product).where(zeros_elsewhere.less(0.5))]


def _stretched(b: Backward, values: Expression) -> Expression:
    return _with_reduced_axes(b, values).op("Expand", b.operand(0).shape_tensor())


def _with_reduced_axes(b: Backward, values: Expression) -> Expression:
    """`values`, of the shape of the result, with size 1 along the reduced axes."""
    if b.attribute("keepdims", 1) or b.node.op == "GlobalAveragePool":
        return values
    return values.op("Unsqueeze", values.integers(_axes(b)))


def _count(b: Backward) -> Expression:
    """The number of elements that one result is made of."""
    x, axes = b.operand(0), _axes(b)
    sizes = [x.shape[a] for a in axes]
    if all(isinstance(d, int) for d in sizes):
        return x.constant(math.prod(static(sizes, "the reduced axes")))
    return x.size() if len(axes) == x.rank else x.size() / b.result().size()


def _axes(b: Backward) -> list[int]:
    """The reduced axes: the second operand, an attribute in older operators, or all."""
    rank = b.operand(0).rank
    if b.node.op == "GlobalAveragePool":
        return list(range(2, rank))
    axes = b.attribute("axes", [])
    if len(b.x) > 1 and b.x[1] is not None:
        axes = integers(b, 1)
    if not axes and b.attribute("noop_with_empty_axes", 0):
        raise NoRule("noop_with_empty_axes=1 without axes is not supported")
    return [a % rank for a in axes or range(rank)]


def cumulative_sum(b: Backward) -> Gradients:
    """Each element is in all sums behind it: the cumulative sum of dy from the other end."""
    reverse, exclusive = 1 - b.attribute("reverse", 0), b.attribute("exclusive", 0)
    return [b.gradient().op("CumSum", b.operand(1), reverse=reverse, exclusive=exclusive)]


def global_max_pool(b: Backward) -> Gradients:
    """dy goes to the first maximum of each plane."""
    dy, x = b.gradient(), b.operand(0)
    planes = x.reshape([0, 0, -1])
    first = Expression(planes.op("ArgMax", axis=2).tensor, b.builder, planes.integers(0).dtype)
    zeros = planes * 0.0
    return [zeros.op("ScatterElements", first, dy.reshape([0, 0, -1]), axis=2).reshape(like(x))]


REDUCTION: dict[str, Rule] = {
    "CumSum": cumulative_sum,
    "GlobalAveragePool": reduce_mean,
    "GlobalMaxPool": global_max_pool,
    "ReduceL1": reduction(lambda dy, x, y: dy * x.op("Sign")),
    "ReduceL2": reduction(lambda dy, x, y: (x * (dy / y)).where(y.greater(0.0))),
    "ReduceLogSum": reduction(lambda dy, x, y: (dy * (-y).op("Exp")).op("Expand", x.shape_tensor())),
    "ReduceLogSumExp": reduction(lambda dy, x, y: dy * (x - y).op("Exp")),
    "ReduceMax": reduce_extremum,
    "ReduceMean": reduce_mean,
    "ReduceMin": reduce_extremum,
    "ReduceProd": reduce_prod,
    "ReduceSum": reduce_sum,
    "ReduceSumSquare": reduction(lambda dy, x, y: x * (dy * 2.0)),
}
