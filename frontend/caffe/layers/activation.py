"""Layers that treat each element by itself: activations, powers, exponentials, Dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.network import Phase
from wootz.frontend.caffe.schema import NoEffect
from wootz.passes.fillers import QUARTER, Filler
from wootz.passes.ir.model import Tensor


@dataclass(frozen=True)
class EngineOnly:
    """Layers whose only parameter chooses an implementation."""

    engine: NoEffect | None = None


@dataclass(frozen=True)
class ReLUParameter:
    """ReLUParameter of caffe.proto; `relu6`, `maximum` and `minimum` (0: none) are Synopsys's."""

    negative_slope: float = 0.0
    relu6: bool = False
    maximum: float = 0.0
    minimum: float = 0.0
    engine: NoEffect | None = None


@dataclass(frozen=True)
class PReLUParameter:
    filler: Filler = QUARTER
    channel_shared: bool = False


@dataclass(frozen=True)
class ELUParameter:
    alpha: float = 1.0


@dataclass(frozen=True)
class SeLUParameter:
    """SeLUParameter of the forks that have it (Klambauer et al. 2017)."""

    lambda_: float = 1.050700987
    alpha: float = 1.67326324


@dataclass(frozen=True)
class SeLUDropoutParameter:
    """Alpha dropout (Klambauer et al. 2017), which concerns training alone."""

    dropout_ratio: NoEffect | None = None
    alpha: NoEffect | None = None


@dataclass(frozen=True)
class PowerParameter:
    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class ExponentParameter:
    """ExpParameter and LogParameter; a base of -1 is e."""

    base: float = -1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class ThresholdParameter:
    threshold: float = 0.0


@dataclass(frozen=True)
class ClipParameter:
    min: float
    max: float


@dataclass(frozen=True)
class SwishParameter:
    beta: float = 1.0


@dataclass(frozen=True)
class DropoutParameter:
    dropout_ratio: float = 0.5
    scale_train: bool = True


def relu(site: Site, p: ReLUParameter) -> Value:
    """Relu, or LeakyRelu with a negative slope; between `minimum` and `maximum` where these are given."""
    site.expect_inputs(1)
    x, shape = site.input.tensor, site.input.shape
    highest = min([6.0] * p.relu6 + [p.maximum] * (p.maximum > 0), default=None)
    if highest is not None and not p.negative_slope and not p.minimum:
        return Value(_clip(site, 0.0, highest), shape)
    y = site.op("LeakyRelu", x, alpha=p.negative_slope) if p.negative_slope else site.op("Relu", x)
    if highest is not None:
        y = site.op("Min", y, site.constant(highest, "maximum"))
    if p.minimum:
        y = site.op("Max", y, site.constant(p.minimum, "minimum"))
    return Value(y, shape)


def prelu(site: Site, p: PReLUParameter) -> Value:
    """PRelu with a slope a channel, or one for all."""
    site.expect_inputs(1)
    x = site.input
    (slope,) = site.parameters(filled(0, "slope", () if p.channel_shared else (x.shape[1],), p.filler))
    if not p.channel_shared:
        slope.values = slope.values.reshape(-1, *(1,) * (len(x.shape) - 2))
    return Value(site.op("PRelu", x.tensor, slope), x.shape)


def elu(site: Site, p: ELUParameter) -> Value:
    return _elementwise(site, "Elu", alpha=p.alpha)


def selu(site: Site, p: SeLUParameter) -> Value:
    """λ·x where x is positive, else λ·α·(exp(x) - 1)."""
    return _elementwise(site, "Selu", alpha=p.alpha, gamma=p.lambda_)


def sigmoid(site: Site, p: EngineOnly) -> Value:
    return _elementwise(site, "Sigmoid")


def tanh(site: Site, p: EngineOnly) -> Value:
    return _elementwise(site, "Tanh")


def absolute(site: Site, p: None) -> Value:
    return _elementwise(site, "Abs")


def bnll(site: Site, p: None) -> Value:
    """log(1 + exp(x)): Softplus."""
    return _elementwise(site, "Softplus")


def mish(site: Site, p: None) -> Value:
    return _elementwise(site, "Mish")


def hard_swish(site: Site, p: None) -> Value:
    return _elementwise(site, "HardSwish")


def relu6(site: Site, p: ReLUParameter) -> Value:
    if p.negative_slope or p.maximum or p.minimum:
        raise site.error("a ReLU6 with a negative slope or other bounds is not defined")
    return Value(_clip(site, 0.0, 6.0), site.input.shape)


def clip(site: Site, p: ClipParameter) -> Value:
    return Value(_clip(site, p.min, p.max), site.input.shape)


def swish(site: Site, p: SwishParameter) -> Value:
    """x · sigmoid(beta · x)."""
    x = site.input.tensor
    scaled = x if p.beta == 1 else site.op("Mul", x, site.constant(p.beta, "beta"))
    return Value(site.op("Mul", x, site.op("Sigmoid", scaled)), site.input.shape)


def power(site: Site, p: PowerParameter) -> Value:
    """(shift + scale · x)^power."""
    y = _affine(site, p.scale, p.shift)
    if p.power == 2:
        y = site.op("Mul", y, y)
    elif p.power != 1:
        y = site.op("Pow", y, site.constant(p.power, "power"))
    return Value(y, site.input.shape)


def exponential(site: Site, p: ExponentParameter) -> Value:
    """base^(shift + scale · x)."""
    logarithm = _log_of_base(site, p.base)
    return Value(site.op("Exp", _affine(site, p.scale * logarithm, p.shift * logarithm)), site.input.shape)


def logarithm(site: Site, p: ExponentParameter) -> Value:
    """log_base(shift + scale · x)."""
    y: Tensor = site.op("Log", _affine(site, p.scale, p.shift))
    factor = 1 / _log_of_base(site, p.base)
    if factor != 1:
        y = site.op("Mul", y, site.constant(factor, "inverse_log_base"))
    return Value(y, site.input.shape)


def threshold(site: Site, p: ThresholdParameter) -> Value:
    """1 where x is greater than the threshold, else 0."""
    above = site.op("Greater", site.input.tensor, site.constant(p.threshold, "threshold"))
    return Value(site.op("Cast", above, to=np.float32), site.input.shape)


def dropout(site: Site, p: DropoutParameter) -> Value:
    """Nothing at test time; in the TRAIN phase Dropout, which training-mode switches on.

    Without `scale_train` Caffe scales at test time instead.
    """
    x = site.input
    if site.phase is Phase.TRAIN:
        return Value(site.op("Dropout", x.tensor, site.constant(p.dropout_ratio, "ratio")), x.shape)
    if p.scale_train:
        return x
    return Value(site.op("Mul", x.tensor, site.constant(1 - p.dropout_ratio, "kept")), x.shape)


def spatial_dropout(site: Site, p: DropoutParameter) -> Value:
    """Nothing at test time."""
    if site.phase is Phase.TRAIN:
        raise site.error("it drops whole channels while training, for which ONNX has no operator: use Dropout")
    return dropout(site, p)


def selu_dropout(site: Site, p: SeLUDropoutParameter) -> Value:
    """Nothing at test time."""
    site.expect_inputs(1)
    if site.phase is Phase.TRAIN:
        raise site.error("alpha dropout has no ONNX operator: leave it out, or use Dropout")
    return site.input


def _elementwise(site: Site, operator: str, **attributes: float) -> Value:
    site.expect_inputs(1)
    return Value(site.op(operator, site.input.tensor, **attributes), site.input.shape)


def _clip(site: Site, low: float, high: float) -> Tensor:
    return site.op("Clip", site.input.tensor, site.constant(low, "min"), site.constant(high, "max"))


def _affine(site: Site, factor: float, shift: float) -> Tensor:
    """shift + factor · x, without the parts that do nothing."""
    y = site.input.tensor
    if factor != 1:
        y = site.op("Mul", y, site.constant(factor, "scale"))
    if shift != 0:
        y = site.op("Add", y, site.constant(shift, "shift"))
    return y


def _log_of_base(site: Site, base: float) -> float:
    if base == -1:
        return 1.0
    if base <= 0 or base == 1:
        raise site.error(f"a base of {base:g}: it has to be positive and not 1, or -1 for e")
    return math.log(base)
