"""What a gradient rule is.

A rule is given one node of the forward graph with the gradients of its results, and gives the gradients of its
operands. Most rules are written with `unary` and `binary`: one formula an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Node, Variable
from wootz.passes.training.expression import Expression


class NoRule(Exception):
    """The rule does not cover this form of the operator; the message says which."""


@dataclass(frozen=True)
class Backward:
    """A node seen from behind: operands `x`, results `y`, gradients `dy` of the results; None where there is none.

    `wanted[i]` says whether the gradient of operand i is used. What a rule gives for the others is dropped.
    Only the rules of `SEVERAL_RESULTS` are asked where another result than the first has a gradient.
    """

    node: Node
    builder: Builder
    x: tuple[Expression | None, ...]
    y: tuple[Expression | None, ...]
    dy: tuple[Expression | None, ...]
    wanted: tuple[bool, ...]

    def operand(self, index: int) -> Expression:
        """Operand `index`, which the operator requires."""
        operand = self.x[index]
        assert operand is not None
        return operand

    def result(self, index: int = 0) -> Expression:
        result = self.y[index]
        assert result is not None
        return result

    def gradient(self, index: int = 0) -> Expression:
        """The gradient of result `index`, which must have one."""
        gradient = self.dy[index]
        assert gradient is not None
        return gradient

    def wants(self, index: int) -> bool:
        return index < len(self.wanted) and self.wanted[index]

    def extra_result(self, index: int, dtype: Any) -> Expression:
        """An optional result of the forward node, added to it where it has none."""
        outputs = self.node.outputs
        while len(outputs) <= index:
            outputs.append(Variable.empty())
        if outputs[index].is_empty():
            outputs[index] = self.builder.variable(f"output_{index}", dtype)
        return Expression.of(outputs[index], self.builder)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attrs.get(name, default)


Gradients = Sequence[Expression | Literal[0] | None]
"""The gradient of each operand: 0 where the result doesn't depend on its value, None where there is no rule for it."""

Rule = Callable[[Backward], Gradients]

Unary = Callable[[Expression, Expression, Expression], Expression]
Binary = Callable[[Expression, Expression, Expression, Expression], Expression]


def unary(formula: Unary) -> Rule:
    """The rule of y = f(x) from `formula(dy, x, y)`."""
    return lambda b: [formula(b.gradient(), b.operand(0), b.result())]


def binary(left: Binary, right: Binary) -> Rule:
    """The rule of y = f(a, b) with broadcasting, from `left(dy, a, b, y)` and `right(dy, a, b, y)`."""

    def rule(b: Backward) -> Gradients:
        arguments = (b.gradient(), b.operand(0), b.operand(1), b.result())
        return [
            sum_to_shape(formula(*arguments), b.result(), b.operand(i)) if b.wants(i) else None
            for i, formula in enumerate((left, right))
        ]

    return rule


def sum_to_shape(gradient: Expression, result: Expression, operand: Expression) -> Expression:
    """Sums `gradient`, of the shape of `result`, over the axes along which `operand` was broadcast to it.

    A symbolic dimension of the operand is taken not to be broadcast.
    """
    leading = result.rank - operand.rank
    stretched = [leading + i for i, d in enumerate(operand.shape) if d == 1 and result.shape[leading + i] != 1]
    if not leading and not stretched:
        return gradient
    summed = gradient.sum([*range(leading), *stretched], keepdims=bool(stretched))
    if not leading or not stretched:
        return summed
    return summed.op("Squeeze", summed.integers(list(range(leading))))


def static(dimensions: Sequence[int | str], what: str) -> list[int]:
    """`dimensions` as numbers. Raises NoRule where one is symbolic."""
    numbers = [d for d in dimensions if isinstance(d, int)]
    if len(numbers) != len(dimensions):
        raise NoRule(
            f"{what} must have a fixed size, not {list(dimensions)}: where the network's inputs leave it open, "
            f"fix-sizes{{size=HEIGHT,WIDTH}} gives it one"
        )
    return numbers


def integers(b: Backward, index: int) -> list[int]:
    """Operand `index` as numbers. Raises NoRule where it is computed."""
    tensor = b.operand(index).tensor
    if not isinstance(tensor, Constant):
        raise NoRule(f"operand {index} must be constant")
    return [int(v) for v in tensor.values]


def like(operand: Expression) -> Sequence[int] | Expression:
    """The shape of `operand` for a Reshape: a constant where at most one dimension is symbolic."""
    symbolic = [d for d in operand.shape if not isinstance(d, int)]
    if len(symbolic) > 1 or 0 in operand.shape:
        return operand.shape_tensor()
    return [d if isinstance(d, int) else -1 for d in operand.shape]
