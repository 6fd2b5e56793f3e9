"""What a network costs: parameters, multiply-accumulates, and both for each layer.

Parameters are the learnt values: weights, biases, scales, slopes. Running statistics (mean and variance of a
BatchNormalization) are not among them. MACs are the multiply-accumulates of convolutions and fully connected layers
for one image; everything else is not counted. FLOPs are twice the MACs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channels import node_names
from wootz.passes.analysis.static_shapes import StaticShapes, static_shapes
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, constant_behind, producer

PARAMETER_OPERANDS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
ELEMENTWISE = {"Add", "Sub", "Mul", "Div"}
"""A constant operand of these is a parameter unless it is a single number."""


@dataclass(frozen=True)
class LayerCost:
    """A node with parameters or MACs. A shared parameter counts where it is met first."""

    name: str
    operator: str
    output: tuple[int, ...]
    parameters: int
    macs: int


def parameters(model: Model) -> int:
    """ModelSize: the number of parameters, running statistics not counted."""
    seen: set[str] = set()
    return sum(_parameters(node, seen) for node in model.graph.nodes)


def macs(model: Model) -> int:
    """Multiply-accumulates for one image. A symbolic image size counts as 224."""
    return sum(cost.macs for cost in layer_costs(model))


def flops(model: Model) -> int:
    """Two operations a multiply-accumulate."""
    return 2 * macs(model)


def layer_costs(model: Model) -> tuple[LayerCost, ...]:
    """The nodes that have parameters or MACs, in the graph's order."""
    static, names, images = static_shapes(model), node_names(model.graph), _batch(model.graph)
    seen: set[str] = set()
    costs = []
    for i, node in enumerate(model.graph.nodes):
        count, work = _parameters(node, seen), _macs(node, static) // images
        if count or work:
            output = static.shapes[node.outputs[0].name] or ()
            costs.append(LayerCost(names[i], node.op, output, count, work))
    return tuple(costs)


def _batch(graph: Graph) -> int:
    shape = graph.inputs[0].shape if graph.inputs else None
    return shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else 1


def _parameters(node: Node, seen: set[str]) -> int:
    operands = PARAMETER_OPERANDS.get(node.op, (0, 1) if node.op in ELEMENTWISE else ())
    count = 0
    for tensor in (node.inputs[i] for i in operands if i < len(node.inputs)):
        before = producer(tensor)
        is_turned = before is not None and before.op == "Transpose"  # exporters leave it in the graph
        constant = constant_behind(before.inputs[0] if before is not None and is_turned else tensor)
        if constant is None or tensor.name in seen or np.dtype(constant.dtype).kind != "f":
            continue
        size = int(np.prod(constant.shape))
        if size > 1 or node.op not in ELEMENTWISE:
            seen.add(tensor.name)
            count += size
    return count


def _macs(node: Node, static: StaticShapes) -> int:
    def size(tensor: Tensor) -> int:
        return int(np.prod(_shape(tensor, static)))

    if node.op == "Conv":
        return size(node.outputs[0]) * int(np.prod(_shape(node.inputs[1], static)[1:]))
    if node.op == "ConvTranspose":
        return size(node.inputs[0]) * int(np.prod(_shape(node.inputs[1], static)[1:]))
    if node.op == "Gemm":
        return size(node.outputs[0]) * _shape(node.inputs[0], static)[0 if node.attrs.get("transA", 0) else 1]
    if node.op == "MatMul":
        return size(node.outputs[0]) * _shape(node.inputs[0], static)[-1]
    return 0


def _shape(tensor: Tensor, static: StaticShapes) -> tuple[int, ...]:
    return tuple(tensor.shape) if isinstance(tensor, Constant) else static.shapes.get(tensor.name) or (0, 0)
