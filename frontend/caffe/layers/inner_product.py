"""InnerProduct and Embed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import count, static
from wootz.passes.fillers import ZERO, Filler


@dataclass(frozen=True)
class InnerProductParameter:
    num_output: Unsigned
    bias_term: bool = True
    weight_filler: Filler = ZERO
    bias_filler: Filler = ZERO
    axis: int = 1
    transpose: bool = False
    engine: NoEffect | None = None


@dataclass(frozen=True)
class EmbedParameter:
    num_output: Unsigned
    input_dim: Unsigned
    bias_term: bool = True
    weight_filler: Filler = ZERO
    bias_filler: Filler = ZERO


def inner_product(site: Site, p: InnerProductParameter) -> Value:
    """Flatten and Gemm; where `axis` is not 1, Gemm between two Reshapes."""
    site.expect_inputs(1)
    x = site.input
    axis = site.axis(p.axis, len(x.shape))
    features = static(count(x.shape[axis:]))
    weight_shape = (features, p.num_output) if p.transpose else (p.num_output, features)
    expected = [filled(0, "weight", weight_shape, p.weight_filler)]
    if p.bias_term:
        expected.append(filled(1, "bias", (p.num_output,), p.bias_filler))
    parameters = site.parameters(*expected)
    rows = (count(x.shape[:axis]), features)
    matrix = x.tensor
    if rows != x.shape:
        matrix = site.op("Flatten", x.tensor, axis=axis)
    y = site.op("Gemm", matrix, *parameters, transB=None if p.transpose else 1)
    shape = (*x.shape[:axis], int(p.num_output))
    return Value(site.reshape(y, (rows[0], int(p.num_output)), shape), shape)


def embed(site: Site, p: EmbedParameter) -> Value:
    """Gather from the rows of the weight; the bottom holds their indices."""
    site.expect_inputs(1)
    expected = [filled(0, "weight", (p.input_dim, p.num_output), p.weight_filler)]
    if p.bias_term:
        expected.append(filled(1, "bias", (p.num_output,), p.bias_filler))
    weight, *bias = site.parameters(*expected)
    y = site.op("Gather", weight, site.op("Cast", site.input.tensor, to=np.int64), axis=0)
    if bias:
        y = site.op("Add", y, bias[0])
    return Value(y, (*site.input.shape, int(p.num_output)))
