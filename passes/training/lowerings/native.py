"""Formulations in the operators of domain `wootz.native`, which `wootz.runtime.kernels` has for CPUs.

They take float32. What they don't take stays as for the target `onnx`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Node, Tensor, Variable, is_fixed, producer
from wootz.passes.ir.shapes import same_extents
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings import Lowering, clipping, convolution, cpu
from wootz.passes.training.lowerings.convolution_shape import Convolution

DOMAIN = "wootz.native"


def is_native(node: Node, *operators: str) -> bool:
    """Whether it is one of these operators of ours."""
    return node.domain == DOMAIN and node.op in operators


def uses_native(graph: Graph) -> bool:
    """Whether it needs the library of these operators."""
    return any(node.domain == DOMAIN for node in graph.nodes)


def batch_normalization(node: Node, builder: Builder) -> list[Tensor] | None:
    x = node.inputs[0]
    if not node.attrs.get("training_mode", 0) or not _all_float32(node.inputs[:3]) or x.shape is None:
        return cpu.batch_normalization(node, builder)
    results = builder.ops(
        "BatchNormalization",
        *node.inputs[:3],
        count=3,
        domain=DOMAIN,
        epsilon=node.attrs.get("epsilon", 1e-5),
        relu=0,
        ceiling=0.0,
    )
    return _described(results, [x.shape, [x.shape[1]], [x.shape[1]]])


def add(node: Node, builder: Builder) -> list[Tensor] | None:
    """Together with the batch normalization that gives one of the two, if the other one is there before it."""
    sources = [producer(t) for t in node.inputs]
    last = next((n for n in reversed(builder.graph.nodes) if any(n is s for s in sources)), None)
    if last is None or not is_native(last, "BatchNormalization") or last.attrs["relu"]:
        return None
    x, y = node.inputs if sources[0] is last else reversed(node.inputs)
    if x is y or not _is_read_once(x, last, builder) or not same_extents(x, y) or not _all_float32([y]):
        return None
    last.op, last.inputs = "BatchNormalizationAdd", [*last.inputs, y]
    return [x]


def relu(node: Node, builder: Builder, ceiling: float = 0.0) -> list[Tensor] | None:
    """Together with a batch normalization that nothing else reads."""
    x = node.inputs[0]
    before = producer(x)
    if before is None or not is_native(before, "BatchNormalization", "BatchNormalizationAdd"):
        return None
    if before.attrs["relu"] or not _is_read_once(x, before, builder):
        return None
    before.attrs = {**before.attrs, "relu": 1, "ceiling": ceiling}
    return [x]


def clip(node: Node, builder: Builder) -> list[Tensor] | None:
    """From 0 to a number, as ReLU6, together with a batch normalization that nothing else reads."""
    bounds = [float(t.values.item()) for t in node.inputs[1:] if isinstance(t, Constant) and is_fixed(t, builder.graph)]
    if len(bounds) < 2 or bounds[0] != 0 or bounds[1] <= 0:
        return None
    return relu(node, builder, ceiling=bounds[1])


def batch_normalization_grad(call: Node, builder: Builder) -> list[Tensor]:
    dy, x, scale, mean, variance = call.inputs
    if not _all_float32(call.inputs) or x.shape is None:
        return cpu.batch_normalization_grad(call, builder)
    operands, masked = [dy, x, scale, mean, variance], producer(dy)
    name, attributes = "BatchNormalizationGrad", {"epsilon": call.attrs["epsilon"]}
    if masked is not None and is_native(masked, "ReluGrad") and len(dy.outputs) == 1:
        name, operands = "BatchNormalizationReluGrad", [masked.inputs[0], *operands[1:], masked.inputs[1]]
        attributes |= masked.attrs
    results = builder.ops(name, *operands, count=3, domain=DOMAIN, **attributes)
    return _described(results, [x.shape, scale.shape, scale.shape])


def relu_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    return _relu_grad(call, builder, ceiling=0.0) if _all_float32(call.inputs) else cpu.relu_grad(call, builder)


def clip_grad(call: Node, builder: Builder) -> list[Tensor]:
    if call.attrs["low"] != 0 or call.attrs["high"] <= 0 or not _all_float32(call.inputs):
        return clipping.clip_grad(call, builder)
    return _relu_grad(call, builder, ceiling=call.attrs["high"])


def _relu_grad(call: Node, builder: Builder, ceiling: float) -> list[Tensor]:
    """A ceiling of 0 is none."""
    masked = builder.op("ReluGrad", *call.inputs, domain=DOMAIN, ceiling=ceiling)
    return _described([masked], [call.inputs[1].shape])


def max_pool_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    dy, x, y = call.inputs[:3]
    kernel = tuple(call.attrs.get("kernel_shape", (0,)))
    windows = Convolution.planar(call, Expression.of(x, builder), Expression.of(dy, builder), kernel)
    if windows is None or min(windows.pads) < 0 or not _all_float32([dy, x, y]):
        return cpu.max_pool_grad(call, builder)
    dx = builder.op(
        "MaxPoolGrad",
        dy,
        x,
        y,
        domain=DOMAIN,
        kernel_shape=list(kernel),
        strides=list(windows.strides),
        dilations=list(windows.dilations),
        pads_begin=list(windows.pads_begin),
    )
    return _described([dx], [x.shape])


def conv_weight_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    x, dy, w = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.planar(call, x, dy, w.shape[2:])
    if conv is None or not _all_float32(call.inputs) or min(conv.pads) < 0:
        return convolution.conv_weight_grad(call, builder)
    dw = builder.op(
        "ConvWeightGrad",
        x.tensor,
        dy.tensor,
        domain=DOMAIN,
        kernel_shape=list(conv.kernel),
        strides=list(conv.strides),
        dilations=list(conv.dilations),
        pads=list(conv.pads),
        group=conv.group,
    )
    return _described([dw], [w.shape])


def conv_input_grad(call: Node, builder: Builder) -> list[Tensor] | None:
    """The convolution of dy with the weights turned, where that has no strides."""
    dy, w, x = (Expression.of(t, builder) for t in call.inputs)
    conv = Convolution.planar(call, x, dy, w.shape[2:])
    if conv is None or not _all_float32(call.inputs):
        return convolution.conv_input_grad(call, builder)
    if conv.strides != (1, 1):
        is_ours = conv.is_depthwise and min(conv.pads) >= 0
        return [_depthwise_input_grad(dy, w, x, conv)] if is_ours else convolution.conv_input_grad(call, builder)
    extent = [(k - 1) * d for k, d in zip(conv.kernel, conv.dilations, strict=True)]
    pads = [e - p for e, p in zip(extent * 2, conv.pads, strict=True)]
    if min(pads) < 0:
        return convolution.conv_input_grad(call, builder)
    turned = builder.op("TurnWeights", w.tensor, domain=DOMAIN, group=conv.group)
    _described([turned], [[conv.channels, conv.filters // conv.group, *conv.kernel]])
    dx = builder.op("Conv", dy.tensor, turned, pads=pads, dilations=list(conv.dilations), group=conv.group)
    return _described([dx], [x.shape])


def _depthwise_input_grad(dy: Expression, w: Expression, x: Expression, conv: Convolution) -> Tensor:
    dx = dy.builder.op(
        "DepthwiseInputGrad",
        dy.tensor,
        w.tensor,
        domain=DOMAIN,
        size=list(conv.size),
        strides=list(conv.strides),
        dilations=list(conv.dilations),
        pads_begin=list(conv.pads_begin),
    )
    return _described([dx], [x.shape])[0]


def _is_read_once(x: Tensor, node: Node, builder: Builder) -> bool:
    """Whether it is the first result of `node`, and one other node alone reads it."""
    return x is node.outputs[0] and len(x.outputs) == 1 and not any(x is t for t in builder.graph.outputs)


def _all_float32(tensors: Sequence[Tensor]) -> bool:
    return all(t.dtype == np.float32 for t in tensors)


def _described(tensors: Sequence[Variable], shapes: Sequence[Sequence[int | str] | None]) -> list[Tensor]:
    """With element type and shape: those of other domains can't be inferred."""
    for tensor, shape in zip(tensors, shapes, strict=True):
        tensor.dtype, tensor.shape = np.dtype(np.float32), None if shape is None else list(shape)
    return list(tensors)


NATIVE: dict[str, Lowering] = {
    **{name: lowering for name, lowering in cpu.CPU.items() if name != "Conv"},
    "Add": add,
    "BatchNormalization": batch_normalization,
    "BatchNormalizationGrad": batch_normalization_grad,
    "Clip": clip,
    "ClipGrad": clip_grad,
    "ConvInputGrad": conv_input_grad,
    "ConvWeightGrad": conv_weight_grad,
    "MaxPoolGrad": max_pool_grad,
    "Relu": relu,
    "ReluGrad": relu_grad,
}
