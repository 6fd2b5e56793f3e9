"""to-float16: weights and computations in float16, for half the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.half_precision import HALF, SINGLE, Casts, fits_in_half, is_square, state_clip_bounds
from wootz.passes.ir.model import OPSET, TRAINING_KEY, Constant, Graph, Model, Node, Tensor, Variable
from wootz.passes.ir.shapes import annotate_shapes

HALF_TYPE, SINGLE_TYPE = "tensor(float16)", "tensor(float)"
AMPLIFYING = frozenset(
    {"CumSum", "Exp", "LRN", "LpNormalization", "MeanVarianceNormalization", "Pow", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)
"""Operators whose results, or sums on the way to them, leave float16's range (65,504) with ordinary operands."""


@dataclass(frozen=True)
class ToFloat16(Pass):
    """Brings weights and computations from float32 into float16; inputs and outputs keep their type.

    1. A node is in float16 in all operands and results whose type its operator lets be float16. Operands that have to
       be float32 (the scales of a Resize) stay so, and operators without float16 (QuantizeLinear) stay as a whole.
    2. Inputs and outputs of float32 keep their type and are cast; with `half-io` they become float16.
    3. In float32 stay: operators that leave float16's range with ordinary numbers (powers, exponentials, sums and norms
       over axes, a square by Mul), what is computed from shapes alone, nodes of other domains, those that `keep` names,
       and nodes with a constant beyond float16's range, or a single one that would become zero (an epsilon). A note
       names the last ones. Bounds of a Clip beyond the range bound nothing, and become infinite.

    Refuses control flow and training graphs. Activations beyond 65,504 become infinite: run the network on data
    afterwards. To run it on a CPU takes longer, since ONNX Runtime computes in float32 between casts there.
    """

    name = "to-float16"
    half_io: bool = option(False, "float32 inputs and outputs become float16, too")
    keep: tuple[str, ...] = option((), "nodes that stay in float32: their names, or operators")

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        for node in graph.nodes:
            if any(isinstance(value, Graph) for value in node.attrs.values()):
                raise self.refuse(f"{node.op} holds a graph of its own, which is not supported", node.name)
        if TRAINING_KEY in model.metadata:
            raise self.refuse("a training graph is written in float16 by mixed-precision")
        known = {name for node in graph.nodes for name in (node.name, node.op)}
        if unknown := sorted(set(self.keep) - known):
            raise self.refuse(f"keep names {unknown[0]!r}, and there is no such node or operator")
        stated = [t.shape for t in graph.outputs]
        annotate_shapes(graph)
        rewrite = _Rewrite(graph, frozenset(self.keep), self.half_io)
        for output, shape in zip(graph.outputs, stated, strict=True):
            if isinstance(output, Variable):
                output.shape = shape
        beyond = ", ".join(rewrite.beyond)
        notes = (f"a constant is beyond float16, so these stay in float32: {beyond}",) if beyond else ()
        counts = {"float16 nodes": rewrite.in_half, "float32 nodes": rewrite.in_single, "casts": rewrite.casts.count}
        return PassResult(result, bool(rewrite.in_half), counts, notes=notes)


class _Rewrite:
    """Visits the nodes in order. A tensor that is now float16 keeps its name; its casts are made once, when needed."""

    def __init__(self, graph: Graph, keep: frozenset[str], half_io: bool):
        self.builder = Builder(graph)
        self.casts = Casts(self.builder)
        self.in_half = self.in_single = 0
        self.beyond: list[str] = []
        self._keep = keep
        self._sizes = set(_computed_from_shapes(graph))
        self._narrowed: set[int] = set()
        if half_io:
            for source in filter(_is_single, graph.inputs):
                self._narrow(source)
        nodes, graph.nodes = list(graph.nodes), []
        for node in nodes:
            self._visit(node)
        given = set(map(id, graph.outputs))
        for index, output in enumerate(graph.outputs):
            graph.outputs[index] = self._output(output, half_io)
        for old, new in self.casts.narrowed:
            if not old.outputs and id(old) not in given:
                old.name, new.name = new.name, old.name

    def _visit(self, node: Node) -> None:
        if node.op == "Cast" and not self._stays(node):
            self._visit_cast(node)
            return
        operands = self._half_operands(node)
        if operands and node.op == "Clip":
            state_clip_bounds(node, self.builder)
            operands = [0, 1, 2]
        self.in_half += bool(operands)
        self.in_single += not operands and any(map(_is_single, node.outputs))
        node.inputs = [self._to_half(t) if i in operands else self._to_single(t) for i, t in enumerate(node.inputs)]
        self.builder.graph.nodes.append(node)
        if not operands:
            return
        formals = _formals(node)
        bound = {formals[i] for i in operands}
        for tensor, formal in zip(node.outputs, _formals(node, of_outputs=True), strict=True):
            if formal in bound and _is_single(tensor):
                self._narrow(tensor)

    def _visit_cast(self, cast: Node) -> None:
        """A Cast to float32 gives float16; any takes what there is."""
        if cast.attrs["to"] in (onnx.TensorProto.FLOAT, np.float32):
            cast.attrs["to"] = int(onnx.TensorProto.FLOAT16)
            self._narrow(cast.outputs[0])
            self.in_half += 1
        self.builder.graph.nodes.append(cast)

    def _half_operands(self, node: Node) -> list[int]:
        """The positions of the operands that become float16, or are; none where the node stays in float32."""
        if self._stays(node) or node.op in AMPLIFYING or is_square(node):
            return []
        admitted = [i for i, formal in enumerate(_formals(node)) if _admits_half(node, formal)]
        operands = [i for i in admitted if _is_single(node.inputs[i]) or id(node.inputs[i]) in self._narrowed]
        data = [node.inputs[i] for i in operands]
        is_known = all(node.inputs[i].dtype is not None or node.inputs[i].is_empty() for i in admitted)
        if not is_known or all(isinstance(t, Constant) for t in data):
            return []
        weights = [t for t in data[: 1 if node.op == "Clip" else None] if isinstance(t, Constant)]
        if not all(fits_in_half(t.values) for t in weights):
            self.beyond.append(node.name)
            return []
        return operands

    def _stays(self, node: Node) -> bool:
        return bool(node.domain) or id(node) in self._sizes or not self._keep.isdisjoint((node.name, node.op))

    def _narrow(self, tensor: Tensor) -> None:
        tensor.dtype = HALF
        self._narrowed.add(id(tensor))

    def _to_half(self, tensor: Tensor) -> Tensor:
        return self.casts.to_half(tensor) if _is_single(tensor) else tensor

    def _to_single(self, tensor: Tensor) -> Tensor:
        return self.casts.to_single(tensor) if id(tensor) in self._narrowed else tensor

    def _output(self, output: Tensor, half_io: bool) -> Tensor:
        """What stands for an output, in the type that it is to have, under its name."""
        if half_io:
            return self.casts.to_half_under_its_name(output) if _is_single(output) else output
        return self.casts.to_single_under_its_name(output) if id(output) in self._narrowed else output


def _computed_from_shapes(graph: Graph) -> Iterator[int]:
    """The `id`s of nodes that compute with shapes alone: extents beyond 2048 are no float16 numbers."""
    known: set[int] = set()
    for node in graph.nodes:
        computed = [t for t in node.inputs if not isinstance(t, Constant) and not t.is_empty()]
        if node.op in ("Shape", "Size") or (computed and all(id(t) in known for t in computed)):
            known.update(map(id, node.outputs))
            yield id(node)


def _is_single(tensor: Tensor) -> bool:
    return not tensor.is_empty() and tensor.dtype is not None and np.dtype(tensor.dtype) == SINGLE


def _formals(node: Node, of_outputs: bool = False) -> list[str]:
    """The names of types, or of type variables, of a node's operands or results."""
    schema = onnx.defs.get_schema(node.op, OPSET)
    formals, actual = (schema.outputs, node.outputs) if of_outputs else (schema.inputs, node.inputs)
    return [formals[min(i, len(formals) - 1)].type_str for i in range(len(actual))]


def _admits_half(node: Node, formal: str) -> bool:
    """Whether operands and results of that type may be float16 or float32."""
    constraints = onnx.defs.get_schema(node.op, OPSET).type_constraints
    allowed = next((c.allowed_type_strs for c in constraints if c.type_param_str == formal), [])
    return HALF_TYPE in allowed and SINGLE_TYPE in allowed
