"""Parameters that an exporter has merged, since they are equal before training, become parameters of their own again.

PyTorch's older exporter leaves one of them, and gives the others as its Identity. The newer one, which names its nodes
`node_…`, lets all layers read the one that is left, so that it looks like a parameter that layers share. Only constants
of equal elements (scales of ones, biases of zeros) are equal by accident; and a module that is called several times has
its other weights in common, too. Other Identities are of such a module: into whose convolutions the older exporter has
folded a BatchNormalization, once for each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.ir.model import Constant, Graph, Node, producer
from wootz.passes.ir.rewrite import erase_nodes, replace_all_uses
from wootz.passes.training.gradient_rules import ALSO_NUMBERS, PASSING_OPERATORS, WEIGHT_OPERANDS

NEWER_EXPORTER = "node_"
"""What the names of the newer exporter's nodes begin with."""
STATISTICS = {"BatchNormalization": (3, 4)}
"""What training changes beside parameters."""


@dataclass(frozen=True)
class _Reading:
    """How a layer reads a constant: as which operand of which operator, and the nearest weights before, by node."""

    op: str
    index: int
    before: Mapping[int, int]
    constant: Constant

    def is_of_module(self, other: _Reading) -> bool:
        """Whether one module, called at two places, reads the constant here and there."""
        is_alike = (self.op, self.index) == (other.op, other.index) and bool(self.before)
        same_weights = set(self.before.values()) == set(other.before.values())
        return is_alike and same_weights and self.before.keys().isdisjoint(other.before.keys())


def separate_merged_parameters(graph: Graph) -> int:
    """Separates merged parameters and running statistics; gives the number of new constants.

    What was an Identity of equal elements keeps its name; another is the constant itself, which layers share. Of a
    constant of equal elements that several layers of the newer exporter read, the first keeps it, and the others have
    `<node>/<name>`, unless the weights before them are the same.
    """
    separated = _separate_identities(graph)
    names = set(graph.tensors())
    readings: dict[int, list[_Reading]] = {}
    twins = 0
    for node in graph.nodes:
        for index in _parameter_places(node) if node.name.startswith(NEWER_EXPORTER) else ():
            reader, place = _reading(node, index)
            constant = reader.inputs[place]
            if not isinstance(constant, Constant) or not _is_uniform(constant):
                continue
            if node.op in ALSO_NUMBERS and constant.values.size == 1 and "." not in constant.name:
                continue
            known = readings.setdefault(id(constant), [])
            mine = _Reading(node.op, index, _weights_before(node), constant)
            shared = next((r.constant for r in known if r.is_of_module(mine)), None)
            if shared is None and known:
                shared = Constant(_fresh_name(node, index, constant, names), constant.values)
                twins += 1
            mine = replace(mine, constant=constant if shared is None else shared)
            known.append(mine)
            if mine.constant is not constant:
                reader.inputs[place] = mine.constant
                readings[id(mine.constant)] = [mine]
    return separated + twins


def _separate_identities(graph: Graph) -> int:
    """Replaces every Identity of a constant by that constant, under the Identity's name where the elements are equal;
    gives their number."""
    merged = [n for n in graph.nodes if n.op == "Identity" and isinstance(n.inputs[0], Constant)]
    for node in merged:
        constant, result = node.inputs[0], node.outputs[0]
        is_shared = not _is_uniform(constant) and not any(result is t for t in graph.outputs)
        replace_all_uses(graph, result, constant if is_shared else Constant(result.name, constant.values))
    erase_nodes(graph, merged)
    return len(merged)


def _fresh_name(node: Node, index: int, constant: Constant, names: set[str]) -> str:
    name = f"{node.name}/{constant.name}"
    name = f"{node.name}/{index}/{constant.name}" if name in names else name
    names.add(name)
    return name


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


def _weights_before(node: Node) -> dict[int, int]:
    """A weight of unequal elements of `node`, or of each of the nearest nodes before that have one, by `id` of both."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    pending: list[Node | None] = [node]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        operands = [_reading(current, i) for i in _parameter_places(current)]
        constants = [n.inputs[i] for n, i in operands if isinstance(n.inputs[i], Constant)]
        weight = next((c for c in constants if c.values.dtype.kind == "f" and not _is_uniform(c)), None)
        if weight is None:
            pending.extend(producer(t) for t in current.inputs)
        else:
            found[id(current)] = id(weight)
    return found


def _is_uniform(constant: Constant) -> bool:
    values = np.asarray(constant.values)
    return values.dtype.kind == "f" and values.size > 0 and bool((values == values.flat[0]).all())
