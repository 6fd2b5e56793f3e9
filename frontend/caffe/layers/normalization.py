"""BatchNorm and its forks, Scale, Bias, LRN, MVN and Normalize."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.network import ParameterSpec, Phase
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Dim, Shape, static, static_shape, text
from wootz.passes.fillers import ONE, ZERO, Filler
from wootz.passes.ir.model import Constant, Node, Tensor, producer

FROZEN = ParameterSpec(lr_mult=0.0, decay_mult=0.0)


@dataclass(frozen=True)
class BatchNormParameter:
    """BatchNormParameter of caffe.proto; NVIDIA's `scale_bias` and `scale_filler` are Intel's `use_weight_bias` and
    `filler`."""

    use_global_stats: bool | None = None
    moving_average_fraction: float | None = None
    eps: float = 1e-5
    scale_bias: bool = False
    scale_filler: Filler | None = None
    bias_filler: Filler | None = None
    use_weight_bias: bool | None = None
    filler: Filler | None = None
    stats_batch_size: NoEffect | None = None
    engine: NoEffect | None = None


@dataclass(frozen=True)
class ScaleParameter:
    axis: int = 1
    num_axes: int = 1
    filler: Filler = ONE
    bias_term: bool = False
    bias_filler: Filler = ZERO


@dataclass(frozen=True)
class BiasParameter:
    axis: int = 1
    num_axes: int = 1
    filler: Filler = ZERO


class BNMode(Enum):
    LEARN = 0
    INFERENCE = 1


@dataclass(frozen=True)
class BNParameter:
    """BNParameter of SegNet (`scale_filler`, `shift_filler`, `bn_mode`) and of PSPNet (the others)."""

    slope_filler: Filler | None = None
    bias_filler: Filler | None = None
    scale_filler: Filler | None = None
    shift_filler: Filler | None = None
    bn_mode: BNMode | None = None
    moving_average: NoEffect | None = None
    decay: NoEffect | None = None
    momentum: float | None = None
    eps: float = 1e-5
    frozen: NoEffect | None = None
    engine: NoEffect | None = None


class NormRegion(Enum):
    ACROSS_CHANNELS = 0
    WITHIN_CHANNEL = 1


@dataclass(frozen=True)
class LRNParameter:
    local_size: Unsigned = 5
    alpha: float = 1.0
    beta: float = 0.75
    norm_region: NormRegion = NormRegion.ACROSS_CHANNELS
    k: float = 1.0
    engine: NoEffect | None = None


@dataclass(frozen=True)
class MVNParameter:
    normalize_variance: bool = True
    across_channels: bool = False
    eps: float = 1e-9


@dataclass(frozen=True)
class NormalizeParameter:
    """NormalizeParameter of the SSD fork."""

    across_spatial: bool = True
    scale_filler: Filler = ONE
    channel_shared: bool = True
    eps: float = 1e-10


@dataclass(frozen=True)
class _BlobOrder:
    """At which index a fork stores what; `factor` divides the statistics."""

    mean: int
    variance: int
    factor: int | None = None
    scale: int | None = None
    bias: int | None = None
    count: int = 0


_BVLC = _BlobOrder(mean=0, variance=1, factor=2, count=3)
_WITHOUT_FACTOR = _BlobOrder(mean=0, variance=1, count=2)
_NVIDIA = _BlobOrder(mean=0, variance=1, factor=2, scale=3, bias=4, count=5)
_XILINX = _BlobOrder(scale=0, bias=1, mean=2, variance=3, count=5)
_FOUR = _BlobOrder(scale=0, bias=1, mean=2, variance=3, count=4)


def batch_norm(site: Site, p: BatchNormParameter) -> Value:
    """BatchNormalization with scale 1 and shift 0, to which a Scale layer right behind adds its own.

    The stored mean and variance are divided by the scale factor (blob 2). Files of NVIDIA's and Xilinx's Caffe have
    five blobs, with a scale and a shift among them. `use_global_stats: false` at test time normalises by the
    statistics of the batch, as Caffe does; Xilinx's Caffe takes the stored ones nevertheless.
    """
    site.expect_inputs(1)
    channels = static(site.input.shape[1]) if len(site.input.shape) > 1 else 1
    y, parameters = _stored_normalization(site, p, _blob_order(site, p), channels)
    if parameters is None:
        site.lowered.plain_batch_norms[id(y.tensor)] = _node(y.tensor)
    return y


def _blob_order(site: Site, p: BatchNormParameter) -> _BlobOrder:
    sizes = site.lowered.weights.stored_sizes(site.layer)
    if not sizes:
        if p.use_weight_bias is False:
            return _BVLC
        if p.filler or p.use_weight_bias:
            return _NVIDIA
        return _XILINX if p.scale_filler or p.bias_filler or p.scale_bias else _BVLC
    if len(sizes) == 5:
        return _NVIDIA if sizes[2] == 1 and sizes[4] > 1 else _XILINX
    return {2: _WITHOUT_FACTOR, 4: _FOUR}.get(len(sizes), _BVLC)


def _stored_normalization(
    site: Site, p: BatchNormParameter, order: _BlobOrder, channels: int
) -> tuple[Value, list[Constant] | None]:
    """The normalised value, and its scale and shift where the layer has its own."""
    named = {"mean": ZERO, "variance": ONE, "scale": p.scale_filler or p.filler or ONE, "bias": p.bias_filler or ZERO}
    expected = [filled(order.count - 1, "counter", (1,), ONE)] if order is _XILINX else []
    for name, filler in named.items():
        index = getattr(order, name)
        if index is not None:
            expected.append(filled(index, name, (channels,), filler))
    if order.factor is not None:
        expected.append(filled(order.factor, "factor", (1,), ONE))
    stored = dict(zip((e.name for e in expected), site.lowered.weights.values(site.layer, expected), strict=True))
    inverse = _inverse(stored.get("factor"))
    values = {
        "scale": stored.get("scale", np.ones(channels, np.float32)),
        "bias": stored.get("bias", np.zeros(channels, np.float32)),
        "mean": stored["mean"] if inverse == 1 else stored["mean"] * inverse,
        "variance": stored["variance"] if inverse == 1 else stored["variance"] * inverse,
    }
    parameters = _normalization_constants(site, **values)
    for constant, name in zip(parameters[:2], ("scale", "bias"), strict=True):
        index = getattr(order, name)
        site.set_parameter(constant, constant.values, FROZEN if index is None else site.layer.spec(index))
    if order is _XILINX:
        p = replace(p, use_global_stats=None)
    return _normalize(site, p, parameters), parameters[:2] if order.scale is not None else None


def _inverse(factor: np.ndarray | None) -> np.float32:
    """What the stored statistics are multiplied with: nothing has been counted where the factor is 0."""
    if factor is None:
        return np.float32(1)
    return np.float32(0 if factor[0] == 0 else 1 / factor[0])


def _node(tensor: Tensor) -> Node:
    node = producer(tensor)
    assert node is not None
    return node


def bn(site: Site, p: BNParameter) -> Value:
    """The BN layers of SegNet (scale and shift alone, its statistics merged) and of PSPNet (BatchNormalization).

    SegNet's stores two blobs, or is known by `bn_mode` or `shift_filler`; PSPNet's stores slope, bias, mean, variance.
    """
    site.expect_inputs(1)
    channels = static(site.input.shape[1])
    stored = site.lowered.weights.stored_sizes(site.layer)
    if len(stored) == 2 or (not stored and (p.bn_mode is not None or p.shift_filler is not None)):
        if p.bn_mode is BNMode.LEARN and site.phase is Phase.TEST:
            site.note("bn_mode is LEARN: it normalises by the statistics of each batch, at test time too")
        return _segnet_normalization(site, p, channels)
    fields = BatchNormParameter(
        eps=p.eps, moving_average_fraction=p.momentum, scale_filler=p.slope_filler, bias_filler=p.bias_filler
    )
    return _stored_normalization(site, fields, _FOUR, channels)[0]


def _segnet_normalization(site: Site, p: BNParameter, channels: int) -> Value:
    x = site.input
    scale_constant, shift = site.parameters(
        filled(0, "scale", (channels,), p.scale_filler or ONE), filled(1, "bias", (channels,), p.shift_filler or ZERO)
    )
    if p.bn_mode is BNMode.INFERENCE:
        scaled = site.op("Mul", x.tensor, _trailing(site, scale_constant, 1, 1))
        return Value(site.op("Add", scaled, _trailing(site, shift, 1, 1)), x.shape)
    mean = site.constant(np.zeros(channels, np.float32), "mean")
    variance = site.constant(np.ones(channels, np.float32), "variance")
    y, *_ = site.ops(
        "BatchNormalization", x.tensor, scale_constant, shift, mean, variance, count=3, training_mode=1, epsilon=1e-9
    )
    return Value(y, x.shape)


def _normalization_constants(site: Site, **values: np.ndarray) -> list[Constant]:
    return [
        site.lowered.builder.constant(values[name], f"{site.layer.name}.{name}")
        for name in ("scale", "bias", "mean", "variance")
    ]


def _normalize(site: Site, p: BatchNormParameter, parameters: list[Constant]) -> Value:
    attributes = {"epsilon": p.eps, "momentum": p.moving_average_fraction}
    x = site.input
    if p.use_global_stats is False and site.phase is Phase.TEST:
        site.note("use_global_stats is false: it normalises by the statistics of each batch, at test time too")
        y, *_ = site.ops("BatchNormalization", x.tensor, *parameters, count=3, training_mode=1, **attributes)
        return Value(y, x.shape)
    return Value(site.op("BatchNormalization", x.tensor, *parameters, **attributes), x.shape)


def scale(site: Site, p: ScaleParameter) -> Value:
    """Joined with a BatchNormalization that only it reads; otherwise Mul, and Add where it has a bias."""
    site.expect_inputs(1, 2)
    x = site.input
    if len(site.inputs) == 2:
        y = Value(site.op("Mul", x.tensor, _broadcast_input(site, p.axis)), x.shape)
        if not p.bias_term:
            return y
        (bias,) = site.parameters(filled(0, "bias", site.inputs[1].shape, p.bias_filler))
        return Value(site.op("Add", y.tensor, _trailing(site, bias, p.axis, len(site.inputs[1].shape))), x.shape)
    shape = _parameter_shape(site, p.axis, p.num_axes)
    expected = [filled(0, "scale", shape, p.filler)]
    if p.bias_term:
        expected.append(filled(1, "bias", shape, p.bias_filler))
    node = site.lowered.plain_batch_norms.pop(id(x.tensor), None)
    if node is not None and site.only_reader[0] and shape == (x.shape[1],) and not _is_shared(site):
        values = site.lowered.weights.values(site.layer, expected)
        for index, array in enumerate(values):
            site.set_parameter(node.inputs[1 + index], array, site.layer.spec(index))
        return Value(x.tensor, x.shape, takes_name=True)
    parameters = site.parameters(*expected)
    tensor: Tensor = x.tensor
    for operator, parameter in zip(("Mul", "Add"), parameters, strict=False):
        tensor = site.op(operator, tensor, _trailing(site, parameter, p.axis, len(shape)))
    return Value(tensor, x.shape)


def bias(site: Site, p: BiasParameter) -> Value:
    """Add."""
    site.expect_inputs(1, 2)
    x = site.input
    if len(site.inputs) == 2:
        return Value(site.op("Add", x.tensor, _broadcast_input(site, p.axis)), x.shape)
    shape = _parameter_shape(site, p.axis, p.num_axes)
    (parameter,) = site.parameters(filled(0, "bias", shape, p.filler))
    return Value(site.op("Add", x.tensor, _trailing(site, parameter, p.axis, len(shape))), x.shape)


def lrn(site: Site, p: LRNParameter) -> Value:
    """LRN across channels; within channels x · (1 + alpha · mean of x² over the window)^-beta."""
    site.expect_inputs(1)
    x = site.input
    if p.local_size % 2 == 0:
        raise site.error(f"local_size has to be odd, not {p.local_size}", "lrn_param")
    if p.norm_region is NormRegion.ACROSS_CHANNELS:
        y = site.op("LRN", x.tensor, size=int(p.local_size), alpha=p.alpha, beta=p.beta, bias=p.k)
        return Value(y, x.shape)
    pad = (p.local_size - 1) // 2
    mean = site.op(
        "AveragePool",
        site.op("Mul", x.tensor, x.tensor),
        kernel_shape=[int(p.local_size)] * 2,
        strides=[1, 1],
        pads=[pad] * 4,
        count_include_pad=1 if pad else None,
    )
    scaled = site.op("Add", site.op("Mul", mean, site.constant(p.alpha, "alpha")), site.constant(1.0, "one"))
    factor = site.op("Pow", scaled, site.constant(-p.beta, "minus_beta"))
    return Value(site.op("Mul", x.tensor, factor), x.shape)


def mvn(site: Site, p: MVNParameter) -> Value:
    """(x - mean) / (standard deviation + eps), over a channel's positions, or over all of an image."""
    site.expect_inputs(1)
    x = site.input
    axes = site.constant(list(range(1 if p.across_channels else 2, len(x.shape))), "axes")
    centred = site.op("Sub", x.tensor, site.op("ReduceMean", x.tensor, axes))
    if not p.normalize_variance:
        return Value(centred, x.shape)
    variance = site.op("ReduceMean", site.op("Mul", centred, centred), axes)
    deviation = site.op("Add", site.op("Sqrt", variance), site.constant(p.eps, "eps"))
    return Value(site.op("Div", centred, deviation), x.shape)


def normalize(site: Site, p: NormalizeParameter) -> Value:
    """x · scale / sqrt(Σx² + eps), the sum over channels, or over the whole image."""
    site.expect_inputs(1)
    x = site.input
    channels = static(x.shape[1])
    axes = site.constant(list(range(1, len(x.shape))) if p.across_spatial else [1], "axes")
    squares = site.op("Add", site.op("ReduceSumSquare", x.tensor, axes), site.constant(p.eps, "eps"))
    normalized = site.op("Div", x.tensor, site.op("Sqrt", squares))
    (factor,) = site.parameters(filled(0, "scale", (1,) if p.channel_shared else (channels,), p.scale_filler))
    y = site.op("Mul", normalized, factor if p.channel_shared else _trailing(site, factor, 1, 1))
    return Value(y, x.shape)


def _is_shared(site: Site) -> bool:
    return any(spec.name for spec in site.layer.specs)


def _parameter_shape(site: Site, axis: int, num_axes: int) -> Shape:
    shape = site.input.shape
    start = site.axis(axis, len(shape))
    end = len(shape) if num_axes == -1 else start + num_axes
    if num_axes < -1 or end > len(shape):
        raise site.error(f"num_axes {num_axes} from axis {axis} of a blob of shape {text(shape)}")
    return shape[start:end]


def _trailing(site: Site, parameter: Constant, axis: int, axes: int) -> Constant:
    """`parameter` with ones behind its dimensions, so that it broadcasts from `axis` on."""
    rank = len(site.input.shape)
    dimensions: tuple[Dim, ...] = parameter.values.shape[:axes]
    after = rank - site.axis(axis, rank) - axes
    parameter.values = parameter.values.reshape((*static_shape(dimensions), *(1,) * after))
    return parameter


def _broadcast_input(site: Site, axis: int) -> Tensor:
    """The second bottom with ones behind its dimensions."""
    x, factor = site.inputs
    start = 0 if not factor.shape else site.axis(axis, len(x.shape))
    if x.shape[start : start + len(factor.shape)] != factor.shape:
        raise site.error(f"a bottom of shape {text(factor.shape)} doesn't fit {text(x.shape)} from axis {start} on")
    after = len(x.shape) - start - len(factor.shape)
    return site.reshape(factor.tensor, factor.shape, (*factor.shape, *(1,) * after))
