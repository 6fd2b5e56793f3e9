"""trainable-part: the network without what follows its last layers and no gradient passes through."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from wootz.passes.analysis.class_scores import LAYOUT_OPERATORS
from wootz.passes.analysis.segments import READS_SHAPE, data_tensors, is_layer
from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.model import Graph, Model, Node, Tensor, captured_tensors, is_constant, producer, subgraph_nodes
from wootz.passes.ir.rewrite import erase_dead_nodes, remaining_modules
from wootz.passes.training.gradient_rules import UNTRAINED_WEIGHTS

RUNTIME_DOMAIN = "com.microsoft"
DECISIONS = {
    *("NonMaxSuppression", "ArgMax", "ArgMin", "NonZero", "Unique", "Compress", "Hardmax", "OneHot"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf"),
    *("Sign", "Round", "Floor", "Ceil", "Mod", "BitShift", "QuantizeLinear"),
    *("If", "Loop", "Scan", "SequenceConstruct", "SequenceEmpty", "SplitToSequence", "Optional"),
}


@dataclass(frozen=True)
class TrainablePart(Pass):
    """Leaves out the postprocessing: NonMaxSuppression, TopK, ArgMax, NonZero, Loop, and what is computed from these.

    1. Postprocessing is what lies behind the last layers and decides: comparisons, indices, selections, whole numbers,
       loops and branches, operators of other domains than ONNX Runtime's; and all that reads what these give. What lies
       before a layer stays, whatever it is, and so does a function of real numbers that `build-gradients` has no rule
       for. TopK decides where its indices are used; where only its values are, it is such a function, and has a rule.
    2. What it reads of what layers have computed become outputs, in order of data flow, and so do the outputs of the
       network that are no postprocessing. Of tensors with the same numbers in other layouts one does. Names stay.
    3. A network without postprocessing stays as it is.

    Refuses a network of which no output depends on a layer by real numbers.
    """

    name: ClassVar[str] = "trainable-part"

    def apply(self, model: Model) -> PassResult:
        left_out = postprocessing(model.graph)
        if not left_out:
            return PassResult(model, modified=False, statistics={"nodes left out": 0})
        result = model.copy()
        graph = result.graph
        tensors = {t.name: t for t in graph.inputs} | graph.tensors()
        graph.outputs = [tensors[name] for name in _outputs_without(model.graph, left_out)]
        if not graph.outputs:
            raise self.refuse("there is nothing to train: no layer stands before the postprocessing")
        before = len(graph.nodes)
        erase_dead_nodes(graph)
        annotate_symbolic_shapes(graph)
        for output in graph.outputs:
            output.dtype = output.dtype or np.dtype(np.float32)
        statistics = {"nodes left out": before - len(graph.nodes), "outputs": len(graph.outputs)}
        modules = remaining_modules(result.modules, graph)
        return PassResult(replace(result, modules=modules), modified=True, statistics=statistics)


def postprocessing(graph: Graph) -> tuple[Node, ...]:
    """The nodes behind the last layers that decide, and those that read what these compute."""
    data = data_tensors(graph)
    before_layers = subgraph_nodes(t for node in graph.nodes if _is_layer(node) for t in node.inputs)
    decided: set[str] = set()
    outputs = {t.name for t in graph.outputs}
    found = []
    for node in graph.nodes:
        operands = {t.name for t in (*node.inputs, *captured_tensors(node))}
        if operands.isdisjoint(data) or _is_layer(node) or id(node) in before_layers or node.op in READS_SHAPE:
            continue
        if not operands.isdisjoint(decided) or _decides(node, outputs):
            decided.update(t.name for t in node.outputs if t.name)
            found.append(node)
    return tuple(found)


def _outputs_without(graph: Graph, left_out: Iterable[Node]) -> list[str]:
    """What layers have computed, and nodes to be left out or the caller of the network read: once, in one layout."""
    gone = {id(node) for node in left_out}
    read = {t.name for node in graph.nodes if id(node) in gone for t in (*node.inputs, *captured_tensors(node))}
    read |= {t.name for t in graph.outputs}
    learnt: set[str] = set()
    found: list[Tensor] = []
    for node in (node for node in graph.nodes if id(node) not in gone and node.op not in READS_SHAPE):
        if _is_layer(node) or any(t.name in learnt for t in node.inputs):
            learnt.update(t.name for t in node.outputs if t.name)
            found += [t for t in node.outputs if t.name in read and _may_be_real(t)]
    outputs = {t.name for t in graph.outputs}
    by_content: dict[str, str] = {}
    for tensor in sorted(found, key=lambda t: t.name not in outputs):
        by_content.setdefault(_content(tensor).name, tensor.name)
    return [t.name for t in found if t.name in by_content.values()]


def _content(tensor: Tensor) -> Tensor:
    """The tensor that this one has the numbers of, in another layout."""
    node = producer(tensor)
    while node is not None and node.op in LAYOUT_OPERATORS:
        tensor = node.inputs[0]
        node = producer(tensor)
    return tensor


def _may_be_real(tensor: Tensor) -> bool:
    return tensor.dtype is None or "float" in np.dtype(tensor.dtype).name


def _is_layer(node: Node) -> bool:
    """Whether a node has weights that are learnt, or may have: an operator of another domain that reads a matrix."""
    if is_layer(node) or node.op in UNTRAINED_WEIGHTS:
        return True
    return bool(node.domain) and any(is_constant(t) and t.values.ndim > 1 for t in node.inputs)


def _decides(node: Node, outputs: Collection[str]) -> bool:
    """Whether small changes of what a node reads change nothing of what it gives, or in a way that can't be known.

    `outputs` are the names of the graph's. The largest values alone change with what they are taken from.
    """
    if node.domain:
        return node.domain != RUNTIME_DOMAIN
    if node.op == "TopK":
        return any(t.outputs or t.name in outputs for t in node.outputs[1:])
    if node.op == "Cast":
        return "float" not in np.dtype(tensor_dtype_to_np_dtype(node.attrs["to"])).name
    return node.op in DECISIONS
