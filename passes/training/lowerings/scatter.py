"""Gradients of float16 tensors that are added up at their places, in float32.

ONNX Runtime's CPU provider has no ScatterElements that adds float16 numbers; on GPUs it rounds after each addition.
"""

from __future__ import annotations

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def max_pool_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """dy goes to the places that the indices name; for other types than float16 the function says the same."""
    dy, x, _, indices = (Expression.of(t, builder) for t in call.inputs)
    if x.dtype != HALF:
        return None
    size = x.size().reshape([1])
    zeros = Expression(builder.op("ConstantOfShape", size.tensor), builder, SINGLE)
    scattered = zeros.op(
        "ScatterElements", indices.reshape([-1]), dy.as_type(SINGLE).reshape([-1]), axis=0, reduction="add"
    )
    dx = scattered.reshape(x.shape_tensor()).as_type(HALF)
    return [dx.tensor]
