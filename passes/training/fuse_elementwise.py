"""fuse-elementwise: chains of elementwise operators as one operator of domain `wootz.native`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import (
    TRAINING_KEY,
    Constant,
    Graph,
    Model,
    Node,
    Tensor,
    Variable,
    captured_tensors,
    is_fixed,
    producer,
)
from wootz.passes.ir.rewrite import disconnect, erase_dead_nodes, replace_node, rewriting
from wootz.passes.ir.shapes import annotate_shapes, same_extents
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.lowerings.native import DOMAIN, is_native

OPERATIONS = {
    name: code
    for code, name in enumerate(
        [
            *("Add", "Sub", "Mul", "Div", "Max", "Min", "Neg", "Sqrt", "Reciprocal", "Relu"),
            *("Greater", "Less", "Where", "LessOrEqual", "GreaterOrEqual"),
        ]
    )
}
"""The numbers of runtime/kernels/vector_kernels.h. Comparisons give 1 and 0 there."""

OPERANDS = dict.fromkeys(OPERATIONS, 2) | dict.fromkeys(("Neg", "Sqrt", "Reciprocal", "Relu"), 1) | {"Where": 3}

COMPARISONS = ("Greater", "Less", "LessOrEqual", "GreaterOrEqual")

MOST_VALUES = 48
"""Operands, constants and results that one program has, by vector_kernels.h."""


@dataclass(frozen=True)
class FuseElementwise(Pass):
    """Joins elementwise operators in float32 that read each other's results: an optimizer's step, a running average.

    1. Nodes join if their results have one shape and their operands that shape or one element, and if all that read
       their results from outside come behind the last of them.
    2. What is read from outside, and only that, is a result of the node that takes their place. Comparisons join if
       none is.
    3. Clip between constants is Max and Min, and ReluGrad of what an elementwise operator gives LessOrEqual and Where.
    4. Of a training graph these are nodes that depend on its state. What doesn't, as a teacher, is left to ONNX
       Runtime, which adds up in its convolutions what is added to them: it mustn't depend on who reads it.

    Each operation is rounded as before. Outputs are the same, where zeros' signs in Max and Min are.
    """

    name: ClassVar[str] = "fuse-elementwise"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        annotate_shapes(graph)
        trained = _trained_tensors(result)
        written_out = _write_clips_out(graph, trained) + _write_relu_gradients_out(graph, trained)
        groups = {id(group.nodes[-1]): group for group in _groups(graph, trained)}
        if not groups and not written_out:
            return PassResult(model, False, {"nodes": 0, "programs": 0})
        builder = Builder(graph)
        for node in rewriting(graph):
            if group := groups.get(id(node)):
                builder.prefix = f"{node.name}/"
                _Program.of(group, graph).put_in_place(builder)
        erase_dead_nodes(graph)
        joined = sum(len(group.nodes) for group in groups.values())
        return PassResult(result, True, {"nodes": joined, "programs": len(groups)})


@dataclass
class _Group:
    """Nodes that become one, in the graph's order, with the values that are read from outside."""

    nodes: list[Node]
    results: list[Tensor]

    @property
    def is_whole(self) -> bool:
        """Whether no truth value comes in or goes out."""
        computed = {id(n.outputs[0]) for n in self.nodes}
        conditions = [n.inputs[0] for n in self.nodes if n.op == "Where"]
        return all(id(t) in computed for t in conditions) and all(t.dtype == np.float32 for t in self.results)


def _trained_tensors(model: Model) -> set[int]:
    """Identities of the tensors that depend on the state of a training; in other than training graphs on any input.

    What makes batches in the graph (`embed-batches`) stays: it must give the host's to the bit.
    """
    graph = model.graph
    inputs = {t.name: t for t in graph.inputs}
    if TRAINING_KEY in model.metadata:
        inputs = {s.input: inputs[s.input] for s in TrainingInterface.of(model).slots if s.kind != "schedule"}
    found = {id(t) for t in inputs.values()}
    for node in graph.nodes:
        if any(id(t) in found for t in (*node.inputs, *captured_tensors(node))):
            found |= {id(t) for t in node.outputs}
    return found


def _groups(graph: Graph, trained: set[int]) -> list[_Group]:
    place = {id(node): i for i, node in enumerate(graph.nodes)}  # nodes of subgraphs have none, and count as the first
    outputs = {id(t) for t in graph.outputs}
    group_of: dict[int, list[Node]] = {}
    for i, node in enumerate(graph.nodes):
        if id(node.outputs[0]) not in trained or not _is_elementwise(node):
            continue
        joined = [node]
        for operand in node.inputs:
            source = producer(operand)
            before = group_of.get(id(source)) if source is not None else None
            if before is None or any(n is before[0] for n in joined):
                continue
            members = {id(n) for n in (*before, *joined)}
            readers = [reader for n in before for reader in n.outputs[0].outputs if id(reader) not in members]
            is_read_earlier = any(place.get(id(reader), 0) < i for reader in readers)
            fits = _values([*before, *joined]) <= MOST_VALUES
            if same_extents(before[0].outputs[0], node.outputs[0]) and not is_read_earlier and fits:
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
        group = _Group(nodes, results)
        if group.is_whole:
            found.append(group)
    return found


def _write_clips_out(graph: Graph, trained: set[int]) -> int:
    """Those of trained tensors as Max and Min, where the bounds are constants; how many."""
    builder = Builder(graph)
    written = 0
    for node in rewriting(graph):
        bounds = [(t, op) for t, op in zip(node.inputs[1:], ("Max", "Min"), strict=False) if not t.is_empty()]
        if (
            node.op != "Clip"
            or id(node.outputs[0]) not in trained
            or node.inputs[0].dtype != np.float32
            or node.inputs[0].shape is None
            or not bounds
        ):
            continue
        if not all(is_fixed(t, graph) and t.values.size == 1 for t, _ in bounds):
            continue
        builder.prefix = f"{node.name}/"
        y: Tensor = node.inputs[0]
        for bound, op in bounds:
            y = builder.op(op, y, bound)
            y.dtype, y.shape = np.dtype(np.float32), node.outputs[0].shape
            trained.add(id(y))
        replace_node(node, [y])
        written += 1
    return written


def _write_relu_gradients_out(graph: Graph, trained: set[int]) -> int:
    """Those of elementwise operators' results as LessOrEqual and Where; how many."""
    builder = Builder(graph)
    written = 0
    for node in rewriting(graph):
        if not is_native(node, "ReluGrad"):
            continue
        dy, y = node.inputs
        source = producer(dy)
        if source is None or id(dy) not in trained or not _is_elementwise(source):
            continue
        builder.prefix = f"{node.name}/"
        zero, ceiling = builder.constant(np.float32(0)), node.attrs["ceiling"]
        dx = _unless(builder, builder.op("LessOrEqual", y, zero), dy, zero, trained)
        if ceiling:
            bound = builder.constant(np.float32(ceiling))
            dx = _unless(builder, builder.op("GreaterOrEqual", y, bound), dx, zero, trained)
        replace_node(node, [dx])
        written += 1
    return written


def _unless(builder: Builder, stopped: Variable, dy: Tensor, zero: Tensor, trained: set[int]) -> Variable:
    """`dy`, and `zero` where it is stopped."""
    stopped.dtype, stopped.shape = np.dtype(bool), dy.shape
    result = builder.op("Where", stopped, zero, dy)
    result.dtype, result.shape = dy.dtype, dy.shape
    trained |= {id(stopped), id(result)}
    return result


def _is_elementwise(node: Node) -> bool:
    if node.domain or OPERANDS.get(node.op) != len(node.inputs):
        return False
    y, operands = node.outputs[0], list(node.inputs[1:] if node.op == "Where" else node.inputs)
    floats = operands if node.op in COMPARISONS else [*operands, y]
    if y.shape is None or any(t.dtype != np.float32 or t.shape is None for t in floats):
        return False
    return all(same_extents(t, y) or _size(t) == 1 for t in operands)


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
    def of(group: _Group, graph: Graph) -> _Program:
        computed = {id(n.outputs[0]) for n in group.nodes}
        read = {id(t): t for n in group.nodes for t in n.inputs if id(t) not in computed}
        constants = tuple(t for t in read.values() if is_fixed(t, graph) and t.values.size == 1)
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
        for old, new in zip(self.group.results, outputs, strict=True):
            new.dtype, new.shape = old.dtype, old.shape
        computed: dict[int, Variable] = {id(old): new for old, new in zip(self.group.results, outputs, strict=True)}
        for n in self.group.nodes:
            if id(n.outputs[0]) in computed:
                replace_node(n, [computed[id(n.outputs[0])]])
            else:
                disconnect(n)

    @staticmethod
    def _instruction(node: Node, number: dict[int, int]) -> Iterator[int]:
        read = [number[id(t)] for t in node.inputs]
        yield from (OPERATIONS[node.op], *read, *read[:1] * (3 - len(read)))


def gives_zeros_for_zeros(program: Node) -> bool:
    """Whether all results of an operator Elementwise are 0 where the operands of its results' shape are."""
    like = program.outputs[0]
    values: list[float | None] = [0.0 if same_extents(t, like) else None for t in program.inputs]
    values += program.attrs["constants"]
    codes = program.attrs["program"]
    names = list(OPERATIONS)
    for code, *places in zip(*(codes[i::4] for i in range(4)), strict=True):
        values.append(_value(names[code], [values[p] for p in places]))
    return all(values[place] == 0 for place in program.attrs["results"])


def _value(operator: str, given: Sequence[float | None]) -> float | None:
    """What an operator gives for operands of which some aren't known, as far as it can be said."""
    a, b, c = given
    if operator == "Mul" and 0.0 in (a, b):
        return 0.0
    if operator == "Where":
        return c if a == 0 else b if a is not None or b == c else None
    if a is None or b is None:
        return None
    compute = {
        "Add": lambda: a + b,
        "Sub": lambda: a - b,
        "Mul": lambda: a * b,
        "Max": lambda: max(a, b),
        "Min": lambda: min(a, b),
        "Neg": lambda: -a,
        "Relu": lambda: max(a, 0.0),
        "Greater": lambda: float(a > b),
        "Less": lambda: float(a < b),
        "LessOrEqual": lambda: float(a <= b),
        "GreaterOrEqual": lambda: float(a >= b),
    }
    return compute[operator]() if operator in compute else None
