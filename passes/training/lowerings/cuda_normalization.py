"""BatchNormalization in training mode for the CUDA provider, which refuses it.

Statistics are float32 whatever the activations are. ONNX Runtime's reductions over batch and space (the outer axes
around the channels) go through cuDNN's general reduction, five to twelve times slower than reductions over the first or
the last axes (its pull requests 8976 and 9471); of float16 they also give float16. LayerNormalization gives mean and
1/σ of each row in float32 by one kernel. So each plane is one row, and the planes of a channel are put together by
reductions of small tensors. BatchNormalization in inference mode is one pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Node, Tensor
from wootz.passes.training.casts import behind_widening
from wootz.passes.training.expression import Expression

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
PLANE_EPSILON = 1e-12
"""What the kernel adds to the variance of a plane: small beside any epsilon of BatchNormalization."""


def batch_normalization(node: Node, builder: Builder) -> list[Tensor] | None:
    """The statistics of the batch, then BatchNormalization in inference mode with them.

    An operand that was cast from float16 is read, and the result written, as float16.
    """
    if not node.attrs.get("training_mode", 0):
        return None
    wide, scale, bias = (Expression.of(t, builder) for t in node.inputs[:3])
    x = Expression.of(behind_widening(wide.tensor), builder)
    mean, variance = _statistics(x, wide)
    inverse = (variance + node.attrs.get("epsilon", 1e-5)).op("Sqrt").op("Reciprocal")
    y = _affine(x, scale * inverse, mean, bias, scale.shape)
    return [y.cast(wide).tensor, mean.tensor, variance.tensor]


def batch_normalization_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """dx = scale/σ · (dy - mean(dy) - h · mean(dy · h)) with h = (x - mean)/σ (Ioffe & Szegedy 2015, section 3).

    Where dy and x were cast from float16, all that is as large as they are stays float16.
    """
    wide_dy, wide_x, scale, mean, variance = (Expression.of(t, builder) for t in call.inputs)
    area = _area(wide_x)
    if area is None:
        return None
    dy, x = (Expression.of(behind_widening(e.tensor), builder) for e in (wide_dy, wide_x))
    if dy.dtype != x.dtype:
        dy, x = wide_dy, wide_x
    inverse = (variance + call.attrs["epsilon"]).op("Sqrt").op("Reciprocal")
    nothing = mean.constant(np.zeros(scale.shape))
    h = _affine(x, inverse, mean, nothing, scale.shape)
    gain = scale * inverse
    means_dy, _ = _planes(dy, area)
    means_dy_h, _ = _planes(dy * h, area)
    factor = (gain * _over_batch(means_dy_h, "ReduceMean")).cast(h).reshape(call.attrs["vector_shape"])
    shift = gain * _over_batch(-means_dy, "ReduceMean")
    dx = _affine(dy, gain, nothing, shift, scale.shape) - h * factor
    dx.tensor.dtype = dx.dtype
    dscale, dbias = (_over_batch(m, "ReduceSum") * float(area) for m in (means_dy_h, means_dy))
    return [dx.cast(wide_x).tensor, dscale.tensor, dbias.tensor]


def _statistics(x: Expression, wide: Expression) -> tuple[Expression, Expression]:
    """Mean and population variance of each channel of x, vectors of the element type of `wide`."""
    area = _area(wide)
    if area is None:
        others = [0, *range(2, wide.rank)]
        center = wide.mean(others)
        centred = wide - center
        return center.reshape([-1]), (centred * centred).mean(others, keepdims=False)
    means, variances = _planes(x, area)
    mean = means.mean([0])
    off = means - mean
    return mean.reshape([-1]), _over_batch(variances + off * off, "ReduceMean")


def _area(x: Expression) -> int | None:
    """The elements of a plane; None where the kernel for planes can't be used: it wants more than one element."""
    space = x.shape[2:]
    if x.dtype not in (HALF, SINGLE) or not all(isinstance(n, int) for n in space):
        return None
    area = math.prod(int(n) for n in space)
    return area if area > 1 else None


def _planes(x: Expression, area: int) -> tuple[Expression, Expression]:
    """Mean and population variance of each plane, float32[N, C, 1]."""
    ones = x.constant(np.ones(area))
    rows = x.reshape([0, 0, -1])
    _, mean, inverse = x.builder.ops(
        "LayerNormalization", rows.tensor, ones.tensor, count=3, hint="planes", axis=-1, epsilon=PLANE_EPSILON
    )
    deviation = Expression(inverse, x.builder, SINGLE).op("Reciprocal")
    return Expression(mean, x.builder, SINGLE), deviation * deviation


def _over_batch(planes: Expression, reduction: str) -> Expression:
    """Mean or sum over the images of what [N, C, 1] holds: a vector."""
    return planes.op(reduction, planes.integers([0]), keepdims=0).reshape([-1])


def _affine(
    x: Expression, factor: Expression, center: Expression, shift: Expression, channels: Sequence[int | str]
) -> Expression:
    """(x - center) · factor + shift with vectors of one number a channel, in one pass over x.

    The kernel wants the vectors in x's type. What a float16 `center` lacks is put into the shift: no digits are lost
    where the center is far from zero.
    """
    rounded = center.cast(x)
    if x.dtype != center.dtype and not isinstance(center.tensor, Constant):
        shift = shift - (center - rounded.cast(center)) * factor
    one = x.constant(np.ones(channels))
    y = x.op("BatchNormalization", factor.cast(x), shift.cast(x), rounded, one, epsilon=0.0)
    y.tensor.dtype = y.dtype
    return y
