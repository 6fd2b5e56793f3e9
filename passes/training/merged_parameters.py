"""Parameters that an exporter has merged, since they are equal before training, become parameters of their own again.

PyTorch's older exporter leaves one of them, and gives the others as its Identity. The newer one lets all layers read
the one that is left, which then looks like a parameter that layers share. Only constants of equal elements (scales of
ones, biases of zeros) are equal by accident; and layers that share a module share its other weights, too.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from wootz.passes.ir.model import Constant, Graph, Node, producer, separate_merged_constants
from wootz.passes.training.gradient_rules import ALSO_NUMBERS, PASSING_OPERATORS, WEIGHT_OPERANDS

STATISTICS = {"BatchNormalization": (3, 4)}
"""What training changes beside parameters."""


def separate_merged_parameters(graph: Graph) -> int:
    """Separates merged parameters and running statistics; gives the number of new constants.

    What was an Identity keeps its name. Of a constant of equal elements that several layers read, the first keeps it,
    and the others have `<node>/<name>`, unless the convolutions or products before them have their weight in common.
    """
    separated = separate_merged_constants(graph)
    names = set(graph.tensors())
    kept: dict[int, Hashable] = {}
    twins: dict[tuple[int, Hashable], Constant] = {}
    for node in graph.nodes:
        for index in _parameter_places(node):
            reader, place = _reading(node, index)
            constant = reader.inputs[place]
            if not isinstance(constant, Constant) or not _is_uniform(constant):
                continue
            if node.op in ALSO_NUMBERS and constant.values.size == 1 and "." not in constant.name:
                continue
            layer = (_weight_before(node), node.op, index)
            if kept.setdefault(id(constant), layer) == layer:
                continue
            twin = twins.get((id(constant), layer))
            if twin is None:
                prefix = node.name or node.outputs[0].name
                name = f"{prefix}/{constant.name}"
                name = f"{prefix}/{index}/{constant.name}" if name in names else name
                names.add(name)
                twin = twins[id(constant), layer] = Constant(name, constant.values)
            reader.inputs[place] = twin
    return separated + len(twins)


def _parameter_places(node: Node) -> list[int]:
    if node.domain:
        return []
    places = WEIGHT_OPERANDS.get(node.op, ())
    return [i for i in range(len(node.inputs)) if i in places or i in STATISTICS.get(node.op, ())]


def _reading(node: Node, index: int) -> tuple[Node, int]:
    """The node that reads the constant behind an operand, perhaps another node that changes its layout, and where."""
    before = producer(node.inputs[index])
    while before is not None and before.op in PASSING_OPERATORS and len(before.outputs[0].outputs) == 1:
        node, index = before, 0
        before = producer(node.inputs[index])
    return node, index


def _weight_before(node: Node) -> Hashable:
    """The nearest weight of unequal elements, of `node` or of what it reads; the node itself where there is none."""
    current: Node | None = node
    while current is not None:
        for index in _parameter_places(current):
            operand = current.inputs[index]
            if isinstance(operand, Constant) and not _is_uniform(operand):
                return id(operand)
        current = next((p for p in map(producer, current.inputs) if p is not None), None)
    return id(node)


def _is_uniform(constant: Constant) -> bool:
    values = np.asarray(constant.values)
    return values.dtype.kind == "f" and values.size > 0 and bool((values == values.flat[0]).all())
