"""Every shape of a graph as plain numbers, and the values of the small integer tensors that shapes are computed with.

Symbolic dimensions are bound: the first of an input to 1, all others to a size that the usual down- and upsampling
divides. What Shape, Gather, Concat and the like then compute is known, and is used to infer the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.evaluate import can_evaluate, evaluate_node
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, copy_graph, is_constant
from wootz.passes.ir.shapes import annotate_shapes

BOUND_BATCH, BOUND_EXTENT = 1, 224
LARGEST_VALUE = 64
"""Tensors with more elements are data, not shapes."""


@dataclass(frozen=True, eq=False)
class StaticShapes:
    """Shapes of all tensors (None: not inferable) and the values known of computed tensors, by tensor name."""

    shapes: Mapping[str, tuple[int, ...] | None]
    values: Mapping[str, np.ndarray]

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """The value of a constant or of a tensor that only shapes were computed into."""
        return tensor.values if isinstance(tensor, Constant) else self.values.get(tensor.name)


def static_shapes(model: Model) -> StaticShapes:
    """Binds the symbolic dimensions of `model` and infers. Raises VerificationError for shapes that contradict."""
    graph = copy_graph(model.graph)
    for tensor in graph.inputs:
        tensor.shape = _bound(tensor.shape)
    annotate_shapes(graph)
    values: dict[str, np.ndarray] = {}
    is_computed = any(node.op in ("Shape", "Size") for node in graph.nodes)
    while is_computed and (found := _known_values(graph, values)):
        values.update(found)
        if all(_static(t.shape) for t in graph.tensors().values()):
            break
        annotate_shapes(_with_values(graph, values))
    shapes = {name: _static(t.shape) for name, t in graph.tensors().items()}
    return StaticShapes(shapes, values)


def _bound(shape: list[int | str] | None) -> list[int | str] | None:
    if shape is None:
        return None
    bounds = [BOUND_BATCH] + [BOUND_EXTENT] * (len(shape) - 1)
    return [d if isinstance(d, int) and d > 0 else bound for d, bound in zip(shape, bounds, strict=True)]


def _static(shape: list[int | str] | tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(int(d) for d in shape)


def _known_values(graph: Graph, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values that follow from the shapes inferred so far and are not yet in `known`."""
    everything = dict(known)
    for node in graph.nodes:
        if node.outputs[0].name not in everything and (value := _value(node, everything)) is not None:
            everything[node.outputs[0].name] = value
    return {name: value for name, value in everything.items() if name not in known}


def _value(node: Node, known: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if node.op == "Shape" and (shape := _static(node.inputs[0].shape)) is not None:
        return np.asarray(shape[node.attrs.get("start", 0) : node.attrs.get("end")], dtype=np.int64)
    if not can_evaluate(node):
        return None
    operands = [None if t.is_empty() else t.values if is_constant(t) else known.get(t.name) for t in node.inputs]
    missing = any(o is None and not t.is_empty() for o, t in zip(operands, node.inputs, strict=True))
    if missing or any(o is not None and o.size > LARGEST_VALUE for o in operands):
        return None
    (value,) = evaluate_node(node, operands)
    return value if value.size <= LARGEST_VALUE else None


def _with_values(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    """Puts known values into `graph` as constants, for inference to see; the nodes that computed them go."""
    for node in list(graph.nodes):
        if node.outputs[0].name in values:
            result = node.outputs[0]
            node.outputs.clear()
            result.to_constant(values[result.name])
    graph.nodes = [n for n in graph.nodes if n.outputs]
    return graph
