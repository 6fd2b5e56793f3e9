"""Simplifications of a legalised graph: equal computations are shared, scalars broadcast the fast way."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Node, Tensor
from wootz.passes.ir.rewrite import erase_nodes, redirect_readers, rewriting
from wootz.passes.training.state import GRADIENT_SUFFIX, NEW_SUFFIX, SEED_PREFIX

LARGEST_SHARED_CONSTANT = 64
"""Constants with more elements are weights, or not worth comparing."""

NOT_SHARED = frozenset(
    {"Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
)
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"})


def drop_unused_indices(graph: Graph) -> None:
    """MaxPool gives the indices of its maxima only where they are used: they cost far more than the maxima."""
    outputs = {id(t) for t in graph.outputs}
    for node in graph.nodes:
        if node.op == "MaxPool" and len(node.outputs) > 1:
            indices = node.outputs[1]
            if not indices.outputs and id(indices) not in outputs:
                node.outputs = [node.outputs[0]]


def share_equal_computations(graph: Graph) -> int:
    """Lets one node compute what several compute from the same operands; gives the number of nodes dropped.

    Nodes that draw random numbers, have subgraphs or compute a graph output stay. So does what changes in training.
    """
    outputs = {id(t) for t in graph.outputs}
    changing = _changing(graph)
    constants: dict[Hashable, Tensor] = {}
    known: dict[Hashable, Node] = {}
    equal: list[Node] = []
    for node in graph.nodes:
        operands = [_shared_constant(t, constants) if id(t) not in changing else t for t in node.inputs]
        if any(new is not old for new, old in zip(operands, node.inputs, strict=True)):
            node.inputs = operands
        key = _computation(node)
        first = known.setdefault(key, node) if key is not None else node
        if first is not node and not any(id(t) in outputs for t in node.outputs):
            equal.append(node)
            for old, new in zip(node.outputs, first.outputs, strict=True):
                redirect_readers(old, new)
    erase_nodes(graph, equal)
    return len(equal)


def _changing(graph: Graph) -> set[int]:
    """The `id`s of inputs, and of constants to become such: those with a gradient or a new value, and what gradients
    begin with."""
    gradients = [t.name for t in graph.outputs if t.name.endswith(GRADIENT_SUFFIX)]
    names = {name.removesuffix(GRADIENT_SUFFIX) for name in gradients}
    if gradients:
        names |= {t.name.removesuffix(NEW_SUFFIX) for t in graph.outputs}
        names |= {SEED_PREFIX + t.name for t in graph.outputs}
    return {id(t) for t in graph.inputs} | {id(t) for name, t in graph.tensors().items() if name in names}


def _shared_constant(tensor: Tensor, known: dict[Hashable, Tensor]) -> Tensor:
    if not isinstance(tensor, Constant) or int(np.prod(tensor.shape)) > LARGEST_SHARED_CONSTANT:
        return tensor
    values = tensor.values
    return known.setdefault((str(values.dtype), values.shape, values.tobytes()), tensor)


def _computation(node: Node) -> Hashable | None:
    """What makes two nodes compute the same; None for a node that must stay."""
    if node.op in NOT_SHARED or any(isinstance(v, Graph) for v in node.attrs.values()):
        return None
    attributes = tuple(sorted((k, _hashable(v)) for k, v in node.attrs.items()))
    present = tuple(not t.is_empty() for t in node.outputs)
    return node.op, node.domain, attributes, tuple(0 if t.is_empty() else id(t) for t in node.inputs), present


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Constant):
        return str(value.values.dtype), value.values.shape, value.values.tobytes()
    return tuple(value) if isinstance(value, list) else value


def widen_scalars(graph: Graph) -> int:
    """Gives scalars the rank of the tensor beside them, where this ends in an axis of size 1; gives their number.

    ONNX Runtime's CPU provider broadcasts a scalar over [M, C, 1, 1] element by element, sixty times slower than
    over [M, C, 3, 3]; a [1, 1, 1, 1] it broadcasts over all elements at once.
    """
    builder = Builder(graph, prefix="widened/")
    changing = _changing(graph)
    widened: dict[tuple[int, int], Tensor] = {}
    for node in rewriting(graph):
        rank = _rank_to_widen(node)
        if rank:
            node.inputs = [_widen(t, rank, builder, changing, widened) if _is_scalar(t) else t for t in node.inputs]
    return len(widened)


def _rank_to_widen(node: Node) -> int:
    if node.op not in ELEMENTWISE or node.domain or not any(_is_scalar(t) for t in node.inputs):
        return 0
    shapes = [tuple(t.shape) for t in node.inputs if t.shape]
    return max((len(s) for s in shapes if s[-1] == 1), default=0)


def _is_scalar(tensor: Tensor) -> bool:
    return tensor.shape is not None and len(tensor.shape) == 0


def _widen(
    scalar: Tensor, rank: int, builder: Builder, changing: set[int], widened: dict[tuple[int, int], Tensor]
) -> Tensor:
    key = (id(scalar), rank)
    if key not in widened:
        if isinstance(scalar, Constant) and id(scalar) not in changing:
            widened[key] = builder.constant(scalar.values.reshape([1] * rank), scalar.name)
        else:
            widened[key] = builder.op("Reshape", scalar, builder.constant([1] * rank))
            widened[key].dtype, widened[key].shape = scalar.dtype, [1] * rank
    return widened[key]
