"""fold-constants: computes now what depends on constants and known shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.symbolic_values import Entry, Extent, SymbolicValues, symbolic_values
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.evaluate import can_evaluate, evaluate_node, of_type_alone
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable
from wootz.passes.ir.rewrite import disconnect, erase_dead_nodes, erase_nodes, insert_nodes

KEPT = {"DequantizeLinear", "QuantizeLinear"}
"""Folding these would undo a quantization."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes now what depends on constants and known shapes alone.

    1. A node whose operands are all constants becomes a constant of the same name, by ONNX's reference implementation;
       of the second operand of CastLike the type is enough, where it is known.
    2. What is computed from shapes becomes a constant where none of the dimensions that it needs is symbolic: of a
       batch [N, 3, 8, 8] the number of channels is known, though N is not.
    3. The target of a Reshape or Expand, and the sizes of a Resize, become constants where all that isn't known are
       extents that stay as they are, or of a Reshape a single entry: [N, 12, -1] becomes [0, 12, 64].
    4. An If whose condition is known becomes the nodes of its branch.
    5. Results of more than `largest` elements, random and quantization operators, other subgraphs, and operators that
       the reference implementation lacks stay as they are, and so does what depends on the state of a training graph.

    With `weights=false`, rule 1 leaves real numbers as they are, unless they are the scales of a Resize: weights that
    are computed stay so. Passes for training run it like that. The outputs of the network are the same.
    """

    name = "fold-constants"
    preserves_outputs = True
    largest: int = option(1 << 24, "largest result, in elements")
    weights: bool = option(True, "compute real numbers, too, that depend on no shape")

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        before, folded = -1, 0
        while folded > before:
            before = folded
            folded += self._sweep(graph)
        erase_dead_nodes(graph)
        return PassResult(result, folded > 0, {"folded": folded})

    def _sweep(self, graph: Graph) -> int:
        """Folds in the graph's order; gives the number of nodes."""
        outputs, given = {t.name for t in graph.outputs}, {t.name for t in graph.inputs}
        known = symbolic_values(graph) if any(_computes_shapes(n, given) for n in graph.nodes) else None
        folded = 0
        for node in list(graph.nodes):
            if _is_decided(node, given):
                _replace_by_branch(graph, node)
                folded += 1
                continue
            value = known.known(node.outputs[0].name) if known is not None and node.outputs else None
            if value is None and (self.weights or _gives_scales(node)):
                value = self._value(node, given)
            if value is not None and value.size <= self.largest and node.outputs[0].name not in outputs:
                _replace_by_constant(graph, node, value)
                folded += 1
            elif known is not None and not node.domain and node.op in RESTATED:
                folded += RESTATED[node.op](graph, node, known)
        return folded

    def _value(self, node: Node, given: set[str]) -> np.ndarray | None:
        operands = [None if t.name in given else _operand(t) for t in node.inputs]
        operands = [of_type_alone(node, i) if o is None else o for i, o in enumerate(operands)]
        if node.op in KEPT or not can_evaluate(node) or any(o is None for o in operands):
            return None
        try:
            (value,) = evaluate_node(
                node, [None if t.is_empty() else o for t, o in zip(node.inputs, operands, strict=True)]
            )
        except ValueError:
            return None
        return value


def _computes_shapes(node: Node, given: set[str]) -> bool:
    """Whether `node` reads a shape, has branches, or computes with integers or truth values alone."""
    if node.op in ("Shape", "Size", "If"):
        return True
    return bool(node.inputs) and all(
        isinstance(t, Constant) and t.name not in given and np.dtype(t.dtype).kind in "ib" for t in node.inputs
    )


def _gives_scales(node: Node) -> bool:
    """Whether the result of `node`, perhaps among others, is nothing but the scales of a Resize."""
    readers = [(n, t) for t in node.outputs for n in t.outputs]
    return bool(readers) and all(
        (n.op == "Resize" and n.inputs[0] is not t) or (n.op in ("Cast", "Concat", "Unsqueeze") and _gives_scales(n))
        for n, t in readers
    )


def _restate_reshape(graph: Graph, node: Node, known: SymbolicValues) -> int:
    """The target with 0 where the operand's extent stays, and -1 for one entry that isn't known."""
    target, shape = node.inputs[1], known.shapes.get(node.outputs[0].name)
    if isinstance(target, Constant) or shape is None or node.attrs.get("allowzero", 0) or 0 in shape:
        return 0
    before = known.shapes.get(node.inputs[0].name) or ()
    stays = [isinstance(d, Extent) and i < len(before) and before[i] == d for i, d in enumerate(shape)]
    sizes = [0 if same else d if isinstance(d, int) else -1 for d, same in zip(shape, stays, strict=True)]
    return _restate(graph, node, 1, sizes) if sizes.count(-1) <= 1 else 0


def _restate_expand(graph: Graph, node: Node, known: SymbolicValues) -> int:
    """The target with 1 where the operand's extent stays."""
    target, shape = node.inputs[1], known.shapes.get(node.outputs[0].name)
    before = known.shapes.get(node.inputs[0].name)
    if isinstance(target, Constant) or shape is None or before is None:
        return 0
    aligned = [*[1] * (len(shape) - len(before)), *before]
    sizes = [1 if a is not None and a == d else d for a, d in zip(aligned, shape, strict=True)]
    return _restate(graph, node, 1, sizes)


def _restate_resize(graph: Graph, node: Node, known: SymbolicValues) -> int:
    """The sizes of those axes that have other ones than before."""
    shape, before = known.shapes.get(node.outputs[0].name), known.shapes.get(node.inputs[0].name)
    sizes = node.inputs[3] if len(node.inputs) > 3 else Variable.empty()
    if sizes.is_empty() or isinstance(sizes, Constant) or shape is None or before is None or "axes" in node.attrs:
        return 0
    axes = [i for i, (a, b) in enumerate(zip(before, shape, strict=True)) if a is None or a != b]
    has_region = not node.inputs[1].is_empty()
    if not axes or has_region or not _restate(graph, node, 3, [shape[i] for i in axes]):
        return 0
    node.attrs = {**node.attrs, "axes": axes}
    return 1


def _restate(graph: Graph, node: Node, index: int, sizes: Sequence[Entry]) -> int:
    """Gives `node` the constant operand `sizes`, if they are all numbers; how many nodes that changes."""
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) < len(sizes):
        return 0
    name = f"{node.name or node.outputs[0].name}/{node.inputs[index].name}"
    node.inputs[index] = Builder(graph).constant(numbers, name)
    return 1


RESTATED: dict[str, Callable[[Graph, Node, SymbolicValues], int]] = {
    "Expand": _restate_expand,
    "Reshape": _restate_reshape,
    "Resize": _restate_resize,
}
"""Operators that take a shape of which only a part has to be known."""


def _operand(tensor: Tensor) -> np.ndarray | None:
    """The value of a constant operand, an empty array for an omitted one, None for a computed one."""
    if tensor.is_empty():
        return np.zeros(0)
    return tensor.values if isinstance(tensor, Constant) else None


def _replace_by_constant(graph: Graph, node: Node, value: np.ndarray) -> None:
    output = node.outputs[0]
    erase_nodes(graph, [node])
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
    disconnect(node)
    nodes += [Node("Identity", builder.fresh(y.name), {}, [twin(x)], [y]) for x, y in results]
    insert_nodes(graph, nodes, before=node)
    erase_nodes(graph, [node])
