"""Gradients of normalisations, softmax and the cross-entropy."""

from __future__ import annotations

from wootz.passes.training.expression import Expression
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, like, static, sum_to_shape


def batch_normalization(b: Backward) -> Gradients:
    """Training: Ioffe & Szegedy 2015, section 3. Inference: the affine map y = (x - mean) · scale / σ + bias."""
    if b.attribute("training_mode", 0):
        return _batch_normalization_training(b)
    dy, x, scale, mean, variance = b.gradient(), *(b.operand(i) for i in (0, 1, 3, 4))
    others = [0, *range(2, x.rank)]
    inverse = _channelwise((variance + b.attribute("epsilon", 1e-5)).op("Sqrt").op("Reciprocal"), x)
    dx = dy * (inverse * _channelwise(scale, x)) if b.wants(0) else None
    dscale = (dy * (x - _channelwise(mean, x)) * inverse).sum(others, keepdims=False) if b.wants(1) else None
    dbias = dy.sum(others, keepdims=False) if b.wants(2) else None
    return [dx, dscale, dbias]


def _batch_normalization_training(b: Backward) -> Gradients:
    if b.attribute("momentum", 0.9) != 0.0 or len(b.y) < 3:
        raise NoRule(
            "training_mode=1 needs momentum 0 and its outputs 2 and 3: apply strip-training, then training-mode"
        )
    statistics = (b.result(1), b.result(2))
    rank = b.operand(0).rank
    attributes = {
        "epsilon": b.attribute("epsilon", 1e-5),
        "axes": [0, *range(2, rank)],
        "vector_shape": [1, -1, *[1] * (rank - 2)],
    }
    operands = (b.operand(0), b.operand(1), *statistics)
    return [*b.gradient().call("BatchNormalizationGrad", *operands, count=3, **attributes), 0, 0]


def instance_normalization(b: Backward) -> Gradients:
    """y = h · scale + bias with h normalised over the space of each image and channel."""
    dy, x, scale = b.gradient(), b.operand(0), b.operand(1)
    space, others = list(range(2, x.rank)), [0, *range(2, x.rank)]
    h, inverse = _normalized(x, space, b.attribute("epsilon", 1e-5))
    dx = _through_normalization(dy * _channelwise(scale, x), h, inverse, space) if b.wants(0) else None
    dscale = (dy * h).sum(others, keepdims=False) if b.wants(1) else None
    dbias = dy.sum(others, keepdims=False) if b.wants(2) else None
    return [dx, dscale, dbias]


def layer_normalization(b: Backward) -> Gradients:
    """y = h · scale + bias with h normalised over `axis` and all axes behind it (Ba et al. 2016)."""
    dy, x, scale = b.gradient(), b.operand(0), b.operand(1)
    axes = list(range(b.attribute("axis", -1) % x.rank, x.rank))
    h, inverse = _normalized(x, axes, b.attribute("epsilon", 1e-5))
    dx = _through_normalization(dy * scale, h, inverse, axes) if b.wants(0) else None
    dscale = sum_to_shape(dy * h, x, scale) if b.wants(1) else None
    dbias = sum_to_shape(dy, x, b.operand(2)) if b.wants(2) else None
    return [dx, dscale, dbias]


def group_normalization(b: Backward) -> Gradients:
    """y = h · scale + bias with h normalised over each group of channels; opset 18 has one scale a group."""
    groups = b.attribute("num_groups")
    x, scale = b.operand(0), b.operand(1)
    grouped = [0, groups, -1]
    dy = b.gradient().reshape(grouped)
    h, inverse = _normalized(x.reshape(grouped), [2], b.attribute("epsilon", 1e-5))
    dx = _through_normalization(dy * scale.reshape([1, groups, 1]), h, inverse, [2]) if b.wants(0) else None
    dscale = (dy * h).sum([0, 2], keepdims=False) if b.wants(1) else None
    dbias = dy.sum([0, 2], keepdims=False) if b.wants(2) else None
    return [None if dx is None else dx.reshape(like(x)), dscale, dbias]


def mean_variance_normalization(b: Backward) -> Gradients:
    """y is x normalised over `axes`; ONNX fixes the epsilon at 1e-9, added to the standard deviation."""
    x, axes = b.operand(0), b.attribute("axes", [0, 2, 3])
    centred = x - x.mean(axes)
    inverse = ((centred * centred).mean(axes).op("Sqrt") + 1e-9).op("Reciprocal")
    return [_through_normalization(b.gradient(), b.result(), inverse, axes)]


def _normalized(x: Expression, axes: list[int], epsilon: float) -> tuple[Expression, Expression]:
    """h = (x - mean) / σ over `axes`, and 1/σ."""
    centred = x - x.mean(axes)
    inverse = ((centred * centred).mean(axes) + epsilon).op("Sqrt").op("Reciprocal")
    return centred * inverse, inverse


def _through_normalization(dh: Expression, h: Expression, inverse: Expression, axes: list[int]) -> Expression:
    """dx = (dh - mean(dh) - h · mean(dh · h)) / σ (Ioffe & Szegedy 2015, section 3)."""
    return (dh - dh.mean(axes) - h * (dh * h).mean(axes)) * inverse


def lrn(b: Backward) -> Gradients:
    """y = x s^-β with s = k + α/n Σ x² over n channels: dx = dy s^-β - 2αβ/n · x · Σ dy y / s (Caffe's lrn_layer)."""
    dy, x, y = b.gradient(), b.operand(0), b.result()
    size, alpha, beta = b.attribute("size"), b.attribute("alpha", 1e-4), b.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size // 2
    scale = _mean_over_channels(x * x, x, before, after) * alpha + b.attribute("bias", 1.0)
    spread = _mean_over_channels(dy * y / scale, x, after, before)
    return [dy * scale**-beta - x * spread * (2.0 * alpha * beta)]


def _mean_over_channels(values: Expression, x: Expression, before: int, after: int) -> Expression:
    """The sum over `before` channels below to `after` above each, divided by their number; zeros outside."""
    channels, *_ = static(x.shape[1:2], "the channels")
    planes = values.reshape([-1, 1, channels, *_flat_space(x)])
    window = {"kernel_shape": [before + 1 + after, 1], "pads": [before, 0, after, 0], "count_include_pad": 1}
    return planes.op("AveragePool", **window).reshape(like(x))


def _flat_space(x: Expression) -> list[int]:
    area = 1
    for d in static(x.shape[2:], "height and width"):
        area *= d
    return [area]


def _channelwise(vector: Expression, x: Expression) -> Expression:
    return vector.reshape([1, -1, *[1] * (x.rank - 2)])


def softmax(b: Backward) -> Gradients:
    """y = softmax(x): dx = y (dy - Σ dy y)."""
    dy, y, axis = b.gradient(), b.result(), [b.attribute("axis", -1)]
    return [y * (dy - (dy * y).sum(axis))]


def log_softmax(b: Backward) -> Gradients:
    """y = log softmax(x): dx = dy - exp(y) Σ dy."""
    dy, y, axis = b.gradient(), b.result(), [b.attribute("axis", -1)]
    return [dy - y.op("Exp") * dy.sum(axis)]


def softmax_cross_entropy(b: Backward) -> Gradients:
    """dlogits = (softmax - onehot) · dloss · w[label] / Σ w[label]."""
    if b.attribute("reduction", "mean") != "mean" or "ignore_index" in b.node.attrs:
        raise NoRule("only reduction='mean' without ignore_index is supported")
    log_probability = b.extra_result(1, b.operand(0).dtype)
    weights = (b.operand(2),) if len(b.x) > 2 else ()
    name = "WeightedSoftmaxCrossEntropyGrad" if weights else "SoftmaxCrossEntropyGrad"
    return b.gradient().call(name, log_probability, b.operand(1), *weights)


NORMALIZATION: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LayerNormalization": layer_normalization,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "MeanVarianceNormalization": mean_variance_normalization,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
}
