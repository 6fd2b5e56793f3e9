"""fold-constants: computes now what depends on constants and known shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.evaluate import can_evaluate, evaluate_node
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable
from wootz.passes.ir.shapes import inferred_types
from wootz.passes.transforms.eliminate_dead import remove_dead_nodes

KEPT = {"DequantizeLinear", "QuantizeLinear"}
"""Folding these would undo a quantization."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes now what depends on constants and known shapes alone.

    1. A node whose operands are all constants becomes a constant of the same name, by ONNX's reference implementation.
    2. `Shape` and `Size` of a tensor without symbolic dimensions become constants.
    3. An If whose condition is known becomes the nodes of its branch.
    4. Results of more than `largest` elements, random and quantization operators, other subgraphs, and operators that
       the reference implementation lacks stay as they are, and so does what depends on the state of a training graph.

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
                if _is_decided(node, given):
                    _replace_by_branch(graph, node)
                    folded += 1
                    continue
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


def _is_decided(node: Node, given: set[str]) -> bool:
    """Whether `node` is an If with a known condition whose branches have no subgraphs of their own."""
    if node.op != "If" or not isinstance(node.inputs[0], Constant) or node.inputs[0].name in given:
        return False
    inner = [n for name in ("then_branch", "else_branch") for n in node.attrs[name].nodes]
    return not any(isinstance(a, Graph) for n in inner for a in n.attrs.values())


def _replace_by_branch(graph: Graph, node: Node) -> None:
    """Puts the nodes of the branch that is taken in the place of the If; their results get names of their own."""
    branch = node.attrs["then_branch" if node.inputs[0].values.item() else "else_branch"]
    around = {t.name: t for t in [*graph.tensors().values(), *graph.inputs]}
    builder = Builder(graph, prefix=f"{node.name}/")
    inner: dict[str, Tensor] = {}
    for tensor in (t for n in branch.nodes for t in n.outputs if not t.is_empty()):
        inner[tensor.name] = builder.variable(tensor.name, tensor.dtype, tensor.shape)

    def twin(tensor: Tensor) -> Tensor:
        if tensor.is_empty():
            return Variable.empty()
        if isinstance(tensor, Constant) and tensor.name not in around:
            inner[tensor.name] = builder.constant(tensor.values, tensor.name)
        return inner[tensor.name] if tensor.name in inner else around[tensor.name]

    results = list(zip(branch.outputs, list(node.outputs), strict=True))
    place = next(i for i, n in enumerate(graph.nodes) if n is node)
    nodes = [
        Node(
            n.op,
            builder.fresh(n.name),
            dict(n.attrs),
            [twin(t) for t in n.inputs],
            [twin(t) for t in n.outputs],
            n.domain,
        )
        for n in branch.nodes
    ]
    node.inputs.clear()
    node.outputs.clear()
    nodes += [Node("Identity", builder.fresh(y.name), {}, [twin(x)], [y]) for x, y in results]
    graph.nodes = [*graph.nodes[:place], *nodes, *graph.nodes[place + 1 :]]
