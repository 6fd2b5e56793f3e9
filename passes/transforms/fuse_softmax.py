"""fuse-softmax: writes a softmax that an exporter took apart as one operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, producer
from wootz.passes.ir.rewrite import ModuleEnds, erase_dead_nodes, replace_node, rewriting
from wootz.passes.ir.shapes import annotate_shapes


@dataclass(frozen=True)
class FuseSoftmax(Pass):
    """Writes a softmax that an exporter took apart as one Softmax.

    Div(e, ReduceSum(e)) with e = Exp(x) becomes Softmax(x), if the sum is taken over one axis and keeps it. Where x is
    Sub(z, ReduceMax(z)) over that axis, which changes nothing but how large numbers get, it becomes Softmax(z).
    Mul(e, Reciprocal(ReduceSum(e))) is the same.

    The outputs of the network are the same within rounding, and don't overflow where they did.
    """

    name = "fuse-softmax"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        ends = ModuleEnds(result)
        fused = fuse_softmax(result.graph)
        return PassResult(replace(result, modules=ends.table(result.graph)), fused > 0, {"fused": fused})


def fuse_softmax(graph: Graph) -> int:
    """Does so in place; gives the number of those that it found."""
    if not any(node.op == "Exp" for node in graph.nodes):
        return 0
    annotate_shapes(graph)
    builder = Builder(graph)
    fused = 0
    for node in rewriting(graph):
        found = _softmax(node)
        if found is not None:
            operand, axis = found
            replace_node(node, [builder.op("Softmax", operand, axis=axis, hint="softmax")])
            fused += 1
    erase_dead_nodes(graph)
    return fused


def _softmax(node: Node) -> tuple[Tensor, int] | None:
    """The operand and the axis of the softmax whose last node this is."""
    for exponential, divisor in _quotients(node):
        power, total = producer(exponential), producer(divisor)
        if power is None or power.op != "Exp" or total is None or total.inputs[0] is not exponential:
            continue
        axis = _only_axis(total, "ReduceSum")
        if axis is not None:
            return _without_largest(power.inputs[0], axis), axis
    return None


def _quotients(node: Node) -> list[tuple[Tensor, Tensor]]:
    """Dividend and divisor, of a product with a reciprocal in either order."""
    if node.op == "Div":
        return [(node.inputs[0], node.inputs[1])]
    if node.op != "Mul":
        return []
    pairs = [(node.inputs[i], producer(node.inputs[1 - i])) for i in (0, 1)]
    return [(value, other.inputs[0]) for value, other in pairs if other is not None and other.op == "Reciprocal"]


def _without_largest(operand: Tensor, axis: int) -> Tensor:
    """z, where the operand is z - max(z) along that axis."""
    difference = producer(operand)
    if difference is None or difference.op != "Sub":
        return operand
    largest = producer(difference.inputs[1])
    if largest is None or largest.inputs[0] is not difference.inputs[0] or _only_axis(largest, "ReduceMax") != axis:
        return operand
    return difference.inputs[0]


def _only_axis(node: Node, op: str) -> int | None:
    """The one axis, from 0, over which a reduction goes that keeps it."""
    rank = None if node.inputs[0].shape is None else len(node.inputs[0].shape)
    if node.op != op or node.domain or not node.attrs.get("keepdims", 1) or rank is None:
        return None
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        given = node.inputs[1].values
    axes = np.asarray([] if given is None else given).reshape(-1)
    return int(axes[0]) % rank if len(axes) == 1 else None
