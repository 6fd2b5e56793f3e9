"""Gradients of operators that act on each element: dL/dx from dL/dy = `dy`.

Derivatives: the operators' definitions (onnx.ai/onnx/operators). At a kink the derivative is 0, as in PyTorch.
"""

from __future__ import annotations

import math

import numpy as np

from wootz.passes.ir.model import Constant, is_fixed
from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import Backward, Gradients, Rule, binary, sum_to_shape, unary


def relu(b: Backward) -> Gradients:
    """dy where y > 0, else 0."""
    return b.gradient().call("ReluGrad", b.result())


def leaky_relu(b: Backward) -> Gradients:
    """dy where x > 0, else alpha · dy."""
    dy = b.gradient()
    return [dy.where(b.operand(0).greater(0.0), dy * b.attribute("alpha", 0.01))]


def prelu(b: Backward) -> Gradients:
    """y = max(x, 0) + slope · min(x, 0)."""
    dy, x, slope = b.gradient(), b.operand(0), b.operand(1)
    dx = dy.where(x.greater(0.0), dy * slope) if b.wants(0) else None
    dslope = sum_to_shape(dy * x.op("Min", 0.0), x, slope) if b.wants(1) else None
    return [dx, dslope]


def thresholded_relu(b: Backward) -> Gradients:
    """y = x where x > alpha, else 0."""
    return [b.gradient().where(b.operand(0).greater(b.attribute("alpha", 1.0)))]


def elu(b: Backward) -> Gradients:
    """y = alpha (eˣ - 1) where x < 0, so that there y' = y + alpha."""
    dy = b.gradient()
    return [dy.where(b.operand(0).greater(0.0), dy * (b.result() + b.attribute("alpha", 1.0)))]


def celu(b: Backward) -> Gradients:
    """y = alpha (e^(x/alpha) - 1) where x < 0, so that there y' = y/alpha + 1."""
    dy = b.gradient()
    return [dy.where(b.operand(0).greater(0.0), dy * (b.result() / b.attribute("alpha", 1.0) + 1.0))]


def selu(b: Backward) -> Gradients:
    """y = gamma x, or gamma alpha (eˣ - 1) where x < 0, so that there y' = y + gamma alpha."""
    dy = b.gradient()
    alpha, gamma = b.attribute("alpha", 1.6732632423543772), b.attribute("gamma", 1.0507009873554805)
    return [dy * (dy.constant(gamma).where(b.operand(0).greater(0.0), b.result() + alpha * gamma))]


def clip(b: Backward) -> Gradients:
    """dy strictly between the bounds, else 0. Where x is between two numbers, y is; a function has them in float32."""
    dx, x = b.gradient(), b.operand(0)
    low, high = (b.x[i] if i < len(b.x) else None for i in (1, 2))
    bounds = [t.tensor for t in (low, high) if t is not None]
    numbers = [float(t.values.item()) for t in bounds if isinstance(t, Constant) and is_fixed(t, b.builder.graph)]
    if len(numbers) == 2 and x.dtype != np.float64:
        return dx.call("ClipGrad", b.result(), low=numbers[0], high=numbers[1])
    if low is not None:
        dx = dx.where(x.greater(low))
    if high is not None:
        dx = dx.where(x.less(high))
    return [dx]


def hard_sigmoid(b: Backward) -> Gradients:
    """y = alpha x + beta between 0 and 1."""
    dy, y = b.gradient() * b.attribute("alpha", 0.2), b.result()
    return [dy.where(y.greater(0.0)).where(y.less(1.0))]


def hard_swish(b: Backward) -> Gradients:
    """y = x h with h = clip(x/6 + 1/2, 0, 1): y' = h + x/6 where |x| < 3, else h."""
    dy, x = b.gradient(), b.operand(0)
    slope = (x / 6.0).where(x.op("Abs").less(3.0))
    return [dy * (x.op("HardSigmoid", alpha=1.0 / 6.0, beta=0.5) + slope)]


def mish(b: Backward) -> Gradients:
    """y = x t with t = tanh(softplus(x)): y' = t + x (1 - t²) sigmoid(x)."""
    dy, x = b.gradient(), b.operand(0)
    t = x.op("Softplus").op("Tanh")
    return [dy * (t + x * (1.0 - t * t) * x.op("Sigmoid"))]


def softsign(b: Backward) -> Gradients:
    """y = x / (1 + |x|): y' = (1 - |y|)²."""
    rest = 1.0 - b.result().op("Abs")
    return [b.gradient() * rest * rest]


def power(b: Backward) -> Gradients:
    """d(aᵇ)/da = b aᵇ⁻¹, 0 where b is 0; d(aᵇ)/db = aᵇ log a, 0 where aᵇ is 0."""
    dy, y, base = b.gradient(), b.result(), b.operand(0)
    exponent = b.operand(1).cast(base)
    dbase = dexponent = None
    if b.wants(0):
        slope = exponent * base ** (exponent - 1.0)
        dbase = sum_to_shape(dy * (slope if _has_no_zeros(exponent) else _unless_zero(slope, exponent)), y, base)
    if b.wants(1):
        slope = _unless_zero(y * base.op("Log"), y)
        dexponent = sum_to_shape(dy * slope, y, b.operand(1)).cast(b.operand(1))
    return [dbase, dexponent]


def _has_no_zeros(operand: Expression) -> bool:
    return isinstance(operand.tensor, Constant) and bool(np.all(operand.tensor.values))


def _unless_zero(values: Expression, operand: Expression) -> Expression:
    """`values`, but 0 where `operand` is."""
    return values.constant(0.0).where(operand.equal(0.0), values)


def where(b: Backward) -> Gradients:
    """Each branch gets dy where it was chosen."""
    dy, y, condition = b.gradient(), b.result(), b.operand(0)
    left = sum_to_shape(dy.where(condition), y, b.operand(1)) if b.wants(1) else None
    right = sum_to_shape(dy.constant(0.0).where(condition, dy), y, b.operand(2)) if b.wants(2) else None
    return [None, left, right]


def extremum(b: Backward) -> Gradients:
    """Max and Min: dy goes to the operand that equals y; several that do share it."""
    dy, y = b.gradient(), b.result()
    chosen = [b.operand(i).equal(y).cast(dy) for i in range(len(b.x))]
    share = dy
    if len(chosen) > 1:
        share = dy / chosen[0].op("Sum", *chosen[1:])
    return [sum_to_shape(share * c, y, b.operand(i)) if b.wants(i) else None for i, c in enumerate(chosen)]


def variadic_sum(b: Backward) -> Gradients:
    return [sum_to_shape(b.gradient(), b.result(), b.operand(i)) if b.wants(i) else None for i in range(len(b.x))]


def variadic_mean(b: Backward) -> Gradients:
    share = b.gradient() / float(len(b.x))
    return [sum_to_shape(share, b.result(), b.operand(i)) if b.wants(i) else None for i in range(len(b.x))]


def dropout(b: Backward) -> Gradients:
    """y = x · mask / (1 - ratio) in training, else y = x."""
    training = b.x[2] if len(b.x) > 2 else None
    if training is None or (isinstance(training.tensor, Constant) and not training.tensor.values):
        return [b.gradient(), 0]
    ratio = b.x[1] if b.x[1] is not None else b.gradient().constant(0.5)
    mask = b.extra_result(1, bool).cast(b.gradient())
    return [b.gradient() * mask / (1.0 - ratio.cast(b.gradient()))]


def cast(b: Backward) -> Gradients:
    """dy in the operand's type; CastLike uses but the type of its second operand."""
    return [b.gradient().cast(b.operand(0)), 0]


def _same(dy: Expression, *_: Expression) -> Expression:
    return dy


ELEMENTWISE: dict[str, Rule] = {
    "Abs": unary(lambda dy, x, y: dy * x.op("Sign")),
    "Add": binary(_same, _same),
    "Cast": cast,
    "CastLike": cast,
    "Celu": celu,
    "Clip": clip,
    "Cos": unary(lambda dy, x, y: -dy * x.op("Sin")),
    "Div": binary(lambda dy, a, b, y: dy / b, lambda dy, a, b, y: -dy * y / b),
    "Dropout": dropout,
    "Elu": elu,
    "Erf": unary(lambda dy, x, y: dy * (-x * x).op("Exp") * (2.0 / math.sqrt(math.pi))),
    "Exp": unary(lambda dy, x, y: dy * y),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": unary(_same),
    "LeakyRelu": leaky_relu,
    "Log": unary(lambda dy, x, y: dy / x),
    "Max": extremum,
    "Mean": variadic_mean,
    "Min": extremum,
    "Mish": mish,
    "Mul": binary(lambda dy, a, b, y: dy * b, lambda dy, a, b, y: dy * a),
    "Neg": unary(lambda dy, x, y: -dy),
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": unary(lambda dy, x, y: -dy * y * y),
    "Relu": relu,
    "Selu": selu,
    "Sigmoid": unary(lambda dy, x, y: dy * y * (1.0 - y)),
    "Sin": unary(lambda dy, x, y: dy * x.op("Cos")),
    "Softplus": unary(lambda dy, x, y: dy * x.op("Sigmoid")),
    "Softsign": softsign,
    "Sqrt": unary(lambda dy, x, y: dy / (y * 2.0)),
    "Sub": binary(_same, lambda dy, a, b, y: -dy),
    "Sum": variadic_sum,
    "Tanh": unary(lambda dy, x, y: dy * (1.0 - y * y)),
    "ThresholdedRelu": thresholded_relu,
    "Where": where,
}
