"""What a network costs: parameters, multiply-accumulates, and both for each layer.

Parameters are the learnt values: weights, biases, scales, slopes. Running statistics (mean and variance of a
BatchNormalization) are not among them. MACs are the multiply-accumulates of convolutions and fully connected layers
for one image; everything else is not counted. FLOPs are twice the MACs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channels import node_names
from wootz.passes.analysis.static_shapes import StaticShapes, static_shapes
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, constant_behind, producer

PARAMETER_OPERANDS = {
    "Conv": (1, 2),
    "FusedConv": (1, 2),
    "ConvInteger": (1,),
    "QLinearConv": (3, 8),
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
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "DeformConv": 1}
"""Which operand of them has the weights, output channels first."""
STORED_OTHERWISE = {"Transpose", "DequantizeLinear", "Cast"}
"""Behind these a constant is the same parameters in another form, as exporters leave them in the graph."""
ELEMENTWISE = {"Add", "Sub", "Mul", "Div"}
"""A constant operand of these is a parameter unless it is a single number."""


@dataclass(frozen=True)
class LayerCost:
    """A node with parameters or MACs. A shared parameter counts where it is met first.

    Where `is_known` is False, shapes that the MACs depend on can't be inferred, and `macs` is 0.
    """

    name: str
    operator: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    is_known: bool = True


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


def macs_of(nodes: Iterable[Node], static: StaticShapes) -> int:
    """Multiply-accumulates of some nodes of a graph for as many images as its shapes have; what isn't known is 0."""
    return sum(_macs(node, static) or 0 for node in nodes)


def layer_costs(model: Model) -> tuple[LayerCost, ...]:
    """The nodes that have parameters or MACs, in the graph's order."""
    static, names, images = static_shapes(model), node_names(model.graph), _batch(model.graph)
    seen: set[str] = set()
    costs = []
    for i, node in enumerate(model.graph.nodes):
        count, work = _parameters(node, seen), _macs(node, static)
        if count or work is None or work:
            output = static.shapes.get(node.outputs[0].name) or ()
            costs.append(LayerCost(names[i], node.op, output, count, (work or 0) // images, work is not None))
    return tuple(costs)


def _batch(graph: Graph) -> int:
    shape = graph.inputs[0].shape if graph.inputs else None
    return shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else 1


def _parameters(node: Node, seen: set[str]) -> int:
    operands = PARAMETER_OPERANDS.get(node.op, (0, 1) if node.op in ELEMENTWISE else ())
    count = 0
    for tensor in (node.inputs[i] for i in operands if i < len(node.inputs)):
        before = producer(tensor)
        is_stored_otherwise = before is not None and before.op in STORED_OTHERWISE
        constant = constant_behind(before.inputs[0] if before is not None and is_stored_otherwise else tensor)
        is_number = constant is not None and (node.op not in ELEMENTWISE or np.dtype(constant.dtype).kind == "f")
        if constant is None or tensor.name in seen or not is_number:
            continue
        size = int(np.prod(constant.shape))
        if size > 1 or node.op not in ELEMENTWISE:
            seen.add(tensor.name)
            count += size
    return count


def _macs(node: Node, static: StaticShapes) -> int | None:
    """The multiply-accumulates of a node for all images; None where a shape that they depend on is not known."""
    is_transposed = node.op == "ConvTranspose"
    if node.op in CONVOLUTIONS or is_transposed:
        positions = _shape(node.inputs[0] if is_transposed else node.outputs[0], static)
        weight = _shape(node.inputs[1 if is_transposed else CONVOLUTIONS[node.op]], static)
        if positions and weight and positions[1] != weight[0]:
            return None  # the shape of what another domain's operator gives was guessed
        return _product(positions, weight and weight[1:])
    if node.op in ("Gemm", "MatMul"):
        left = _shape(node.inputs[0], static)
        summed = 0 if node.op == "Gemm" and node.attrs.get("transA", 0) else -1
        return _product(_shape(node.outputs[0], static), left and left[summed:][:1])
    return 0


def _product(*shapes: tuple[int, ...] | None) -> int | None:
    return None if None in shapes else int(np.prod([n for shape in shapes for n in shape or ()], dtype=np.int64))


def _shape(tensor: Tensor, static: StaticShapes) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if isinstance(tensor, Constant) else static.shapes.get(tensor.name)
