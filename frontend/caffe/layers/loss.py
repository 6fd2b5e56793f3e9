"""Losses, for the TRAIN phase: scalar outputs in standard operators, which the training passes differentiate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.shape import Shape, count, text
from wootz.passes.ir.model import Tensor, Variable, producer


class Normalization(Enum):
    FULL = 0
    VALID = 1
    BATCH_SIZE = 2
    NONE = 3


@dataclass(frozen=True)
class LossParameter:
    """LossParameter of caffe.proto, with the `axis` of softmax_param, which stands in the same layer."""

    ignore_label: int | None = None
    normalization: Normalization | None = None
    normalize: bool | None = None
    axis: int = 1


SCALAR: Shape = ()


def softmax_with_loss(site: Site, p: LossParameter) -> list[Value]:
    """SoftmaxCrossEntropyLoss of logits and labels; a second top is the Softmax."""
    site.expect_inputs(2)
    logits, labels = site.inputs
    if site.axis(p.axis, len(logits.shape)) != 1:
        raise site.error(f"a loss along axis {p.axis} has no ONNX operator: only along axis 1")
    positions = (logits.shape[0], *logits.shape[2:])
    if count(labels.shape) != count(positions):
        raise site.error(f"labels of shape {text(labels.shape)} for logits of shape {text(logits.shape)}")
    target = _integers(site, labels, positions)
    normalization = p.normalization or _legacy(p.normalize, Normalization.VALID)
    loss: Tensor
    attributes = {} if p.ignore_label is None else {"ignore_index": p.ignore_label}
    if normalization is Normalization.VALID:
        loss = site.op("SoftmaxCrossEntropyLoss", logits.tensor, target, reduction="mean", **attributes)
    else:
        each = site.op("SoftmaxCrossEntropyLoss", logits.tensor, target, reduction="none", **attributes)
        loss = _normalized(site, each, positions, normalization)
    tops = [_weighted(site, loss)]
    if len(site.layer.tops) > 1:
        tops.append(Value(site.op("Softmax", logits.tensor, axis=1), logits.shape))
    return tops


def sigmoid_cross_entropy_loss(site: Site, p: LossParameter) -> Value:
    """The sum of log(1 + exp(x)) - x · target, over the batch size unless told otherwise."""
    site.expect_inputs(2)
    x, target = site.inputs
    if p.ignore_label is not None:
        raise site.error("ignore_label has no form in ONNX's operators for this loss")
    wanted = site.op("Mul", x.tensor, site.reshape(target.tensor, target.shape, x.shape))
    each = site.op("Sub", site.op("Softplus", x.tensor), wanted)
    normalization = p.normalization or _legacy(p.normalize, Normalization.BATCH_SIZE)
    if normalization is Normalization.VALID:
        normalization = Normalization.FULL
    return _weighted(site, _normalized(site, each, x.shape, normalization))


def euclidean_loss(site: Site, p: LossParameter) -> Value:
    """Σ(a - b)² / 2N."""
    site.expect_inputs(2)
    a, b = site.inputs
    if count(a.shape) != count(b.shape):
        raise site.error(f"bottoms of shapes {text(a.shape)} and {text(b.shape)}")
    difference = site.op("Sub", a.tensor, site.reshape(b.tensor, b.shape, a.shape))
    squares = site.op("Mul", difference, difference)
    summed = _normalized(site, squares, a.shape, Normalization.BATCH_SIZE)
    return _weighted(site, site.op("Mul", summed, site.constant(0.5, "half")))


def _normalized(site: Site, each: Tensor, shape: Shape, normalization: Normalization) -> Tensor:
    """The sum of `each`, divided by nothing, the batch size or the number of elements."""
    if normalization is Normalization.NONE:
        return site.op("ReduceSum", each, keepdims=0)
    if normalization is Normalization.BATCH_SIZE and len(shape) > 1:
        axes = site.constant(list(range(1, len(shape))), "axes")
        each = site.op("ReduceSum", each, axes, keepdims=0)
    return site.op("ReduceMean", each, keepdims=0)


def _weighted(site: Site, loss: Tensor) -> Value:
    weight = site.layer.loss_weights[0] if site.layer.loss_weights else 1.0
    if weight != 1:
        loss = site.op("Mul", loss, site.constant(weight, "loss_weight"))
    return Value(loss, SCALAR)


def _legacy(normalize: bool | None, default: Normalization) -> Normalization:
    if normalize is None:
        return default
    return Normalization.VALID if normalize else Normalization.BATCH_SIZE


def _integers(site: Site, labels: Value, shape: Shape) -> Tensor:
    """Labels as int64. An input that only this layer reads is one from the start."""
    tensor = labels.tensor
    if producer(tensor) is None and isinstance(tensor, Variable) and site.only_reader[1]:
        tensor.dtype = np.dtype(np.int64)
        if labels.shape != shape and tensor.shape is not None:
            return site.reshape(tensor, labels.shape, shape)
        return tensor
    return site.op("Cast", site.reshape(tensor, labels.shape, shape), to=np.int64)
