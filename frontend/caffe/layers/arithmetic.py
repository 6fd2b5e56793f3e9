"""Layers that combine blobs or reduce them: Eltwise, Axpy, Reduction, Softmax, ArgMax."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Shape, count, static, text
from wootz.passes.ir.model import Tensor


class EltwiseOperation(Enum):
    PROD = 0
    SUM = 1
    MAX = 2


@dataclass(frozen=True)
class EltwiseParameter:
    operation: EltwiseOperation = EltwiseOperation.SUM
    coeff: tuple[float, ...] = ()
    stable_prod_grad: NoEffect | None = None
    engine: NoEffect | None = None


class ReductionOperation(Enum):
    SUM = 1
    ASUM = 2
    SUMSQ = 3
    MEAN = 4


@dataclass(frozen=True)
class ReductionParameter:
    operation: ReductionOperation = ReductionOperation.SUM
    axis: int = 0
    coeff: float = 1.0


@dataclass(frozen=True)
class SoftmaxParameter:
    axis: int = 1
    engine: NoEffect | None = None


@dataclass(frozen=True)
class ArgMaxParameter:
    out_max_val: bool = False
    top_k: Unsigned = 1
    axis: int | None = None


def eltwise(site: Site, p: EltwiseParameter) -> Value:
    """Add, Sub, Sum, Mul or Max; coefficients other than 1 and -1 as Mul."""
    site.expect_inputs(1, 1000)
    x = site.input
    for other in site.inputs[1:]:
        if other.shape != x.shape:
            raise site.error(f"its bottoms have shapes {text(x.shape)} and {text(other.shape)}: they have to be equal")
    if p.coeff and (len(p.coeff) != len(site.inputs) or p.operation is not EltwiseOperation.SUM):
        raise site.error(f"{len(p.coeff)} coefficients for {p.operation.name} of {len(site.inputs)} bottoms")
    tensors = [v.tensor for v in site.inputs]
    if p.operation is EltwiseOperation.SUM:
        return Value(_weighted_sum(site, tensors, list(p.coeff or (1.0,) * len(tensors))), x.shape)
    if len(tensors) == 1:
        return x
    if p.operation is EltwiseOperation.MAX:
        return Value(site.op("Max", *tensors), x.shape)
    product = tensors[0]
    for factor in tensors[1:]:
        product = site.op("Mul", product, factor)
    return Value(product, x.shape)


def _weighted_sum(site: Site, tensors: list[Tensor], coefficients: list[float]) -> Tensor:
    if len(tensors) == 2 and coefficients == [1.0, -1.0]:
        return site.op("Sub", *tensors)
    terms = [
        t if c == 1 else site.op("Mul", t, site.constant(c, "coefficient"))
        for t, c in zip(tensors, coefficients, strict=True)
    ]
    if len(terms) == 1:
        return terms[0]
    return site.op("Add" if len(terms) == 2 else "Sum", *terms)


def axpy(site: Site, p: None) -> Value:
    """scale · x + y of the bottoms scale (one a channel), x and y (SENet)."""
    site.expect_inputs(3)
    factor, x, y = site.inputs
    if x.shape != y.shape or factor.shape[:2] != x.shape[:2]:
        raise site.error(f"bottoms of shapes {text(factor.shape)}, {text(x.shape)} and {text(y.shape)} don't fit")
    spread = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    scaled = site.op("Mul", x.tensor, site.reshape(factor.tensor, factor.shape, spread))
    return Value(site.op("Add", scaled, y.tensor), x.shape)


def reduction(site: Site, p: ReductionParameter) -> Value:
    """Reduces all axes from `axis` on, times `coeff`."""
    site.expect_inputs(1)
    x = site.input
    axis = site.axis(p.axis, len(x.shape))
    operators = {
        ReductionOperation.SUM: "ReduceSum",
        ReductionOperation.ASUM: "ReduceL1",
        ReductionOperation.SUMSQ: "ReduceSumSquare",
        ReductionOperation.MEAN: "ReduceMean",
    }
    axes = site.constant(list(range(axis, len(x.shape))), "axes")
    y: Tensor = site.op(operators[p.operation], x.tensor, axes, keepdims=0)
    if p.coeff != 1:
        y = site.op("Mul", y, site.constant(p.coeff, "coefficient"))
    return Value(y, x.shape[:axis])


def softmax(site: Site, p: SoftmaxParameter) -> Value:
    site.expect_inputs(1)
    x = site.input
    return Value(site.op("Softmax", x.tensor, axis=site.axis(p.axis, len(x.shape))), x.shape)


def arg_max(site: Site, p: ArgMaxParameter) -> Value:
    """TopK; without `axis` over all of an image, with indices and, where asked for, values in one blob."""
    site.expect_inputs(1)
    x = site.input
    shape: Shape
    if p.axis is not None:
        axis = site.axis(p.axis, len(x.shape))
        shape = (*x.shape[:axis], int(p.top_k), *x.shape[axis + 1 :])
        values, indices = _top(site, x.tensor, axis, p.top_k, static(x.shape[axis]))
        return Value(values if p.out_max_val else indices, shape)
    flat: Shape = (x.shape[0], 1, count(x.shape[1:]))
    tensor = site.reshape(x.tensor, x.shape, flat)
    values, indices = _top(site, tensor, 2, p.top_k, static(flat[2]))
    if not p.out_max_val:
        return Value(indices, (x.shape[0], 1, int(p.top_k)))
    return Value(site.op("Concat", indices, values, axis=1), (x.shape[0], 2, int(p.top_k)))


def _top(site: Site, x: Tensor, axis: int, k: int, size: int) -> tuple[Tensor, Tensor]:
    """The k largest along `axis` and, as float32, where they are; of equal ones Caffe takes the last."""
    if not 1 <= k <= size:
        raise site.error(f"top_k {k} of {size} values")
    if k == 1:
        indices = site.op("ArgMax", x, axis=axis, select_last_index=1)
        axes = site.constant([axis], "axes")
        return site.op("ReduceMax", x, axes), site.op("Cast", indices, to=np.float32)
    values, positions = site.ops("TopK", x, site.constant([k], "k"), count=2, axis=axis)
    return values, site.op("Cast", positions, to=np.float32)
