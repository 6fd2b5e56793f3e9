"""Formulations for the CUDA provider of ONNX Runtime, in standard operators that it has.

It refuses BatchNormalization in training mode, which is decomposed; inference mode stays, as one pass over memory.
"""

from __future__ import annotations

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering
from wootz.passes.training.lowerings.convolution import conv_weight_grad


def batch_normalization(node: Node, builder: Builder) -> list[Tensor] | None:
    """The statistics of the batch by reductions, then BatchNormalization in inference mode with them."""
    if not node.attrs.get("training_mode", 0):
        return None
    x, scale, bias = (Expression.of(t, builder) for t in node.inputs[:3])
    others = [0, *range(2, x.rank)]
    center = x.mean(others)
    centred = x - center
    variance = (centred * centred).mean(others, keepdims=False)
    mean = center.reshape([-1])
    y = x.op("BatchNormalization", scale, bias, mean, variance, epsilon=node.attrs.get("epsilon", 1e-5))
    return [y.tensor, mean.tensor, variance.tensor]


def relu_grad(call: Node, builder: Builder) -> list[Tensor]:
    """dy · (y > 0): a comparison and a product, which fuse well, in any precision."""
    dy, y = (Expression.of(t, builder) for t in call.inputs)
    return [(dy * y.greater(0.0).cast(dy)).tensor]


CUDA: dict[str, Lowering] = {
    "BatchNormalization": batch_normalization,
    "ConvWeightGrad": conv_weight_grad,
    "ReluGrad": relu_grad,
}
