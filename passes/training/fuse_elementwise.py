"""fuse-elementwise: chains of elementwise operators as one operator of domain `wootz.native`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, producer
from wootz.passes.ir.rewrite import disconnect, erase_dead_nodes, replace_node, rewriting
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.lowerings.native import DOMAIN

OPERATIONS = {
    name: code
    for code, name in enumerate(("Add", "Sub", "Mul", "Div", "Max", "Min", "Neg", "Sqrt", "Reciprocal", "Relu"))
}
"""The numbers of runtime/kernels/vector_kernels.h."""

OPERANDS = {name: 1 if name in ("Neg", "Sqrt", "Reciprocal", "Relu") else 2 for name in OPERATIONS}

MOST_VALUES = 48
"""Operands, constants and results that one program has, by vector_kernels.h."""


@dataclass(frozen=True)
class FuseElementwise(Pass):
    """Joins elementwise operators in float32 that read each other's results: an optimizer's step, a running average.

    1. Nodes join if their results have one shape and their operands that shape or one element, and if all that read
       their results from outside come behind the last of them.
    2. What is read from outside, and only that, is a result of the node that takes their place.

    Each operation is rounded as before. Outputs are the same, where zeros' signs and NaNs aside Max and Min are.
    """

    name: ClassVar[str] = "fuse-elementwise"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        annotate_shapes(graph)
        groups = {id(group.nodes[-1]): group for group in _groups(graph)}
        if not groups:
            return PassResult(model, False, {"nodes": 0, "programs": 0})
        builder = Builder(graph)
        for node in rewriting(graph):
            if group := groups.get(id(node)):
                builder.prefix = f"{node.name}/"
                _Program.of(group).put_in_place(builder)
        erase_dead_nodes(graph)
        joined = sum(len(group.nodes) for group in groups.values())
        return PassResult(result, True, {"nodes": joined, "programs": len(groups)})


@dataclass
class _Group:
    """Nodes that become one, in the graph's order, with the values that are read from outside."""

    nodes: list[Node]
    results: list[Tensor] = field(default_factory=list)


def _groups(graph: Graph) -> list[_Group]:
    place = {id(node): i for i, node in enumerate(graph.nodes)}
    outputs = {id(t) for t in graph.outputs}
    group_of: dict[int, list[Node]] = {}
    for i, node in enumerate(graph.nodes):
        if not _is_elementwise(node):
            continue
        joined = [node]
        for operand in node.inputs:
            source = producer(operand)
            before = group_of.get(id(source)) if source is not None else None
            if before is None or any(n is before[0] for n in joined):
                continue
            members = {id(n) for n in (*before, *joined)}
            is_read_earlier = any(
                id(reader) not in members and place[id(reader)] < i for n in before for reader in n.outputs[0].outputs
            )
            fits = _values([*before, *joined]) <= MOST_VALUES
            if _same_extents(before[0].outputs[0], node.outputs[0]) and not is_read_earlier and fits:
                joined = [*before, *joined]
        for n in joined:
            group_of[id(n)] = joined
    groups = {id(nodes): nodes for nodes in group_of.values() if len(nodes) > 1}
    found = []
    for nodes in groups.values():
        nodes.sort(key=lambda n: place[id(n)])
        members = {id(n) for n in nodes}
        results = [
            n.outputs[0]
            for n in nodes
            if id(n.outputs[0]) in outputs or any(id(reader) not in members for reader in n.outputs[0].outputs)
        ]
        found.append(_Group(nodes, results))
    return found


def _is_elementwise(node: Node) -> bool:
    if node.domain or OPERANDS.get(node.op) != len(node.inputs):
        return False
    y = node.outputs[0]
    if y.shape is None or any(t.dtype != np.float32 or t.shape is None for t in (*node.inputs, y)):
        return False
    return all(_same_extents(t, y) or _size(t) == 1 for t in node.inputs)


def _same_extents(a: Tensor, b: Tensor) -> bool:
    return list(a.shape) == list(b.shape)


def _size(t: Tensor) -> int | None:
    """How many elements it has, where that is known."""
    return math.prod(t.shape) if all(isinstance(n, int) for n in t.shape) else None


def _values(nodes: Iterable[Node]) -> int:
    """How many values the program of these nodes has at most."""
    return 1 + len({id(t) for n in nodes for t in (*n.inputs, *n.outputs)})


@dataclass(frozen=True)
class _Program:
    """What the operator Elementwise does; values are numbered: operands, constants, results of instructions."""

    group: _Group
    operands: tuple[Tensor, ...]
    constants: tuple[Constant, ...]

    @staticmethod
    def of(group: _Group) -> _Program:
        computed = {id(n.outputs[0]) for n in group.nodes}
        read = {id(t): t for n in group.nodes for t in n.inputs if id(t) not in computed}
        constants = tuple(t for t in read.values() if isinstance(t, Constant) and t.values.size == 1)
        operands = tuple(t for t in read.values() if not any(t is c for c in constants))
        return _Program(group, operands, constants)

    def put_in_place(self, builder: Builder) -> None:
        constants = [float(c.values.item()) for c in self.constants] or [0.0]  # an attribute isn't empty
        number = {id(t): i for i, t in enumerate((*self.operands, *self.constants))}
        first = len(self.operands) + len(constants)
        number |= {id(n.outputs[0]): first + i for i, n in enumerate(self.group.nodes)}
        outputs = builder.ops(
            "Elementwise",
            *self.operands,
            count=len(self.group.results),
            domain=DOMAIN,
            inputs=len(self.operands),
            constants=constants,
            program=[code for n in self.group.nodes for code in self._instruction(n, number)],
            results=[number[id(t)] for t in self.group.results],
        )
        computed = {id(old): new for old, new in zip(self.group.results, outputs, strict=True)}
        for n in self.group.nodes:
            new = computed.get(id(n.outputs[0]))
            if new is None:
                disconnect(n)
            else:
                replace_node(n, [new])

    @staticmethod
    def _instruction(node: Node, number: dict[int, int]) -> Iterator[int]:
        first, *second = (number[id(t)] for t in node.inputs)
        yield from (OPERATIONS[node.op], first, second[0] if second else first)
