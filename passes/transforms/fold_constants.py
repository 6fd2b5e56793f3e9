"""fold-constants: computes now what depends on constants and known shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.evaluate import can_evaluate, evaluate_node
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor
from wootz.passes.ir.shapes import inferred_types
from wootz.passes.transforms.eliminate_dead import remove_dead_nodes

KEPT = {"DequantizeLinear", "QuantizeLinear"}
"""Folding these would undo a quantization."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes now what depends on constants and known shapes alone.

    1. A node whose operands are all constants becomes a constant of the same name, by ONNX's reference implementation.
    2. `Shape` and `Size` of a tensor without symbolic dimensions become constants.
    3. Results of more than `largest` elements, random and quantization operators, subgraphs, and operators that the
       reference implementation lacks stay as they are, and so does what depends on the state of a training graph.

    The outputs of the network are the same.
    """

    name = "fold-constants"
    preserves_outputs = True
    largest: int = option(1 << 24, "largest result, in elements")

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        outputs = {t.name for t in graph.outputs}
        before, folded = -1, 0
        while folded > before:
            before = folded
            shapes = _static_shapes(graph) if any(n.op in ("Shape", "Size") for n in graph.nodes) else {}
            given = {t.name for t in graph.inputs}
            for node in list(graph.nodes):
                value = self._value(node, shapes, given)
                if value is not None and node.outputs[0].name not in outputs:
                    _replace_by_constant(graph, node, value)
                    folded += 1
        remove_dead_nodes(graph)
        return PassResult(result, folded > 0, {"folded": folded})

    def _value(self, node: Node, shapes: dict[str, tuple[int, ...]], given: set[str]) -> np.ndarray | None:
        if node.op in ("Shape", "Size") and node.inputs[0].name in shapes:
            shape = np.asarray(shapes[node.inputs[0].name], np.int64)
            if node.op == "Size":
                return np.asarray(shape.prod())
            return shape[node.attrs.get("start", 0) : node.attrs.get("end")]
        operands = [None if t.name in given else _operand(t) for t in node.inputs]
        if node.op in KEPT or not can_evaluate(node) or any(o is None for o in operands):
            return None
        try:
            (value,) = evaluate_node(
                node, [None if t.is_empty() else o for t, o in zip(node.inputs, operands, strict=True)]
            )
        except (RuntimeError, NotImplementedError, TypeError):  # what the reference implementation can't do
            return None
        return value if value.size <= self.largest else None


def _operand(tensor: Tensor) -> np.ndarray | None:
    """The value of a constant operand, an empty array for an omitted one, None for a computed one."""
    if tensor.is_empty():
        return np.zeros(0)
    return tensor.values if isinstance(tensor, Constant) else None


def _static_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(d) for d in shape)
        for name, (_, shape) in inferred_types(graph).items()
        if shape is not None and all(isinstance(d, int) for d in shape)
    }


def _replace_by_constant(graph: Graph, node: Node, value: np.ndarray) -> None:
    output = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes = [n for n in graph.nodes if n is not node]
    output.to_constant(value)
