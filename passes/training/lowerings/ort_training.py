"""The fused gradient kernels of onnxruntime-training 1.19 (domain com.microsoft).

MaxPoolGrad and AveragePoolGrad of that build take their result's shape from the graph, which must be fixed, so the
standard formulation stays.
"""

from __future__ import annotations

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Node, Tensor, Variable
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering
from wootz.passes.training.lowerings.clipping import clip_grad
from wootz.passes.training.lowerings.cpu import batch_normalization
from wootz.passes.training.lowerings.scatter import max_pool_grad

DOMAIN = "com.microsoft"


def conv_input_grad(call: Node, builder: Builder) -> list[Tensor]:
    dy, w, x = call.inputs
    return [_conv_grad(call, dy, x, w, builder, result=0)]


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor]:
    x, dy, w = call.inputs
    return [_conv_grad(call, dy, x, w, builder, result=1)]


def _conv_grad(call: Node, dy: Tensor, x: Tensor, w: Tensor, builder: Builder, result: int) -> Tensor:
    """Result 0 (dx) or 1 (dw) of the one ConvGrad node with these operands."""
    operands = [dy, x, w]
    for node in dy.outputs:
        if node.op == "ConvGrad" and all(a is b for a, b in zip(node.inputs, operands, strict=True)):
            node.outputs[result] = builder.variable(f"convgrad_{result}")
            return node.outputs[result]
    attributes = {k: call.attrs[k] for k in ("strides", "dilations", "pads", "group")}
    builder.ops("ConvGrad", *operands, count=2, domain=DOMAIN, kernel_shape=list(w.shape[2:]), **attributes)
    node = builder.graph.nodes[-1]
    node.outputs = [t if i == result else Variable.empty() for i, t in enumerate(list(node.outputs))]
    return node.outputs[result]


def batch_normalization_grad(call: Node, builder: Builder) -> list[Tensor]:
    """The kernel wants 1/σ instead of the variance."""
    dy, x, scale, mean, variance = call.inputs
    epsilon = call.attrs["epsilon"]
    inverse = (Expression.of(variance, builder) + epsilon).op("Sqrt").op("Reciprocal").tensor
    return list(
        builder.ops("BatchNormalizationGrad", dy, x, scale, mean, inverse, count=3, domain=DOMAIN, epsilon=epsilon)
    )


def relu_grad(call: Node, builder: Builder) -> list[Tensor]:
    return [builder.op("ReluGrad", *call.inputs, domain=DOMAIN)]


def softmax_cross_entropy_grad(call: Node, builder: Builder) -> list[Tensor]:
    return [builder.op("SoftmaxCrossEntropyLossGrad", *call.inputs, domain=DOMAIN, reduction="mean")]


ORT_TRAINING: dict[str, Lowering] = {
    "BatchNormalization": batch_normalization,
    "BatchNormalizationGrad": batch_normalization_grad,
    "ClipGrad": clip_grad,
    "ConvInputGrad": conv_input_grad,
    "ConvWeightGrad": conv_weight_grad,
    "MaxPoolGrad": max_pool_grad,
    "ReluGrad": relu_grad,
    "SoftmaxCrossEntropyGrad": softmax_cross_entropy_grad,
    "WeightedSoftmaxCrossEntropyGrad": softmax_cross_entropy_grad,
}
