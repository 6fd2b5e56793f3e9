"""Gradients of operators that act on each element: dL/dx from dL/dy = `dy`."""

from __future__ import annotations

from wootz.passes.ir.model import Constant
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import Backward, Gradients, Rule, binary, sum_to_shape, unary


def relu(b: Backward) -> Gradients:
    """dy where y > 0, else 0 (0 at the kink, as PyTorch and Caffe have it)."""
    return b.gradient().call("ReluGrad", b.result())


def prelu(b: Backward) -> Gradients:
    """y = max(x, 0) + slope · min(x, 0)."""
    dy, x, slope = b.gradient(), b.operand(0), b.operand(1)
    dx = dy.where(x.greater(0.0), dy * slope) if b.wants(0) else None
    dslope = sum_to_shape(dy * x.op("Min", 0.0), x, slope) if b.wants(1) else None
    return [dx, dslope]


def dropout(b: Backward) -> Gradients:
    """y = x · mask / (1 - ratio) in training, else y = x."""
    training = b.x[2] if len(b.x) > 2 else None
    if training is None or (isinstance(training.tensor, Constant) and not training.tensor.values):
        return [b.gradient()]
    ratio = b.x[1] if len(b.x) > 1 and b.x[1] is not None else b.gradient().constant(0.5)
    mask = b.extra_result(1, bool).cast(b.gradient())
    return [b.gradient() * mask / (1.0 - ratio.cast(b.gradient()))]


def _same(dy: Expression, *_: Expression) -> Expression:
    return dy


ELEMENTWISE: dict[str, Rule] = {
    "Identity": unary(_same),
    "Relu": relu,
    "PRelu": prelu,
    "Dropout": dropout,
    "Add": binary(_same, _same),
    "Sub": binary(_same, lambda dy, a, b, y: -dy),
    "Mul": binary(lambda dy, a, b, y: dy * b, lambda dy, a, b, y: dy * a),
    "Div": binary(lambda dy, a, b, y: dy / b, lambda dy, a, b, y: -dy * y / b),
}
