"""Constants that a graph computes: standardised, quantised, transposed or reshaped weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wootz.passes.ir.evaluate import RANDOM, UNRELIABLE, evaluate_node, of_type_alone
from wootz.passes.ir.model import Constant, Graph, Node, Tensor, constant_behind, constants, is_constant, producer


class ComputedConstants:
    """The tensors of a graph that depend on constants alone; they are computed when they are asked for."""

    def __init__(self, graph: Graph):
        inputs = {t.name for t in graph.inputs}
        self._constant: set[str] = set()
        self._computed: dict[str, Constant | None] = {}
        for node in graph.nodes:
            if _is_computable(node) and all(
                t.is_empty()
                or ((is_constant(t) or t.name in self._constant) and t.name not in inputs)
                or of_type_alone(node, i) is not None
                for i, t in enumerate(node.inputs)
            ):
                self._constant.update(t.name for t in node.outputs if not t.is_empty())

    def constant(self, tensor: Tensor) -> Constant | None:
        """The constant that a tensor is, that Identity nodes pass on, or that is computed; None for any other."""
        if (behind := constant_behind(tensor)) is not None:
            return behind
        if tensor.name not in self._constant:
            return None
        if tensor.name not in self._computed:
            self._compute(tensor)
        return self._computed[tensor.name]

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The names of the tensors that were computed: what was asked for and is no constant of the graph."""
        return tuple(name for name, constant in self._computed.items() if constant is not None)

    def _compute(self, tensor: Tensor) -> None:
        node = producer(tensor)
        assert node is not None, "what is computed has a node"
        operands = [self._operand(node, i) for i in range(len(node.inputs))]
        results: list[np.ndarray] = []
        if not any(o is None and not t.is_empty() for o, t in zip(operands, node.inputs, strict=True)):
            try:
                results = evaluate_node(node, operands)
            except (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError):
                results = []  # the reference implementation can't do it
        for i, output in enumerate(node.outputs):
            if not output.is_empty():
                self._computed[output.name] = Constant(output.name, results[i]) if i < len(results) else None

    def _operand(self, node: Node, index: int) -> np.ndarray | None:
        """Its value; None where it is omitted, or can't be computed."""
        tensor = node.inputs[index]
        if tensor.is_empty():
            return None
        known = self.constant(tensor)
        return of_type_alone(node, index) if known is None else known.values


def parameter_values(graph: Graph, computed: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The values of all constants, and of the tensors named in `computed`, which depend on constants alone."""
    values = constants(graph)
    if names := tuple(computed):
        computation, tensors = ComputedConstants(graph), graph.tensors()
        found = {name: computation.constant(tensors[name]) for name in names}
        values |= {name: constant.values for name, constant in found.items() if constant is not None}
    return values


def _is_computable(node: Node) -> bool:
    """Whether a node gives the same at all times, by a standard operator without subgraphs."""
    return (
        node.domain in (None, "", "ai.onnx")
        and bool(node.inputs)
        and node.op not in UNRELIABLE | RANDOM
        and not any(isinstance(a, Graph) for a in node.attrs.values())
    )
