"""Leaves modules out of a network: for each stands an Identity from its entry to its exit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from wootz.passes.analysis.module_boundaries import module_fault
from wootz.passes.analysis.static_shapes import has_static_inputs, other_static_shapes
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Module, Node, captured_tensors, is_constant, module_nodes, producer
from wootz.passes.ir.rewrite import (
    ModuleEnds,
    compute_as,
    erase_dead_nodes,
    erase_nodes,
    insert_nodes,
    replace_all_uses,
)
from wootz.passes.ir.shapes import inferred_types
from wootz.passes.plan.pruning import SkippedModule

Shapes = Mapping[str, Sequence[int] | None]
"""Of tensors, by name; None where it isn't known."""


def find_unskippable(model: Model, modules: Iterable[Module], shapes: Shapes) -> dict[str, str]:
    """The reason for each of `modules` that can't be left out; `shapes` are the static ones of the model."""
    other = None if has_static_inputs(model) else other_static_shapes(model)
    bindings = (shapes,) if other is None else (shapes, other.shapes)
    types = inferred_types(model.graph, strict=False)
    found = {}
    for module in modules:
        if module.more_entries or module.more_exits:
            found[module.name] = "it has more than one entry and one exit"
            continue
        left_out = SkippedModule(module.name, module.entry, module.exit)
        faults = (skip_fault(model, left_out, shapes) for shapes in bindings)
        entry, exit_ = (str(types[t][0]) if t in types else "of unknown type" for t in (module.entry, module.exit))
        if fault := next(filter(None, faults), ""):
            found[module.name] = fault
        elif module.entry not in types or entry != exit_:
            found[module.name] = f"its entry {module.entry!r} is {entry}, its exit {module.exit!r} {exit_}"
        elif all(node.op == "Identity" for node in module_nodes(model, module)):
            found[module.name] = "nothing is left of it"
    return found


def skip_fault(model: Model, module: SkippedModule, shapes: Shapes) -> str:
    """Why what goes into a module can't stand for what comes out of it; empty where it can."""
    region = Module(module.name, module.entry, module.exit)
    if fault := module_fault(model, region):
        return fault
    entry, exit_ = shapes.get(module.entry), shapes.get(module.exit)
    if entry is None or exit_ is None:
        return f"the shape of {(module.entry if entry is None else module.exit)!r} is not known"
    if tuple(entry) != tuple(exit_):
        return f"its entry {module.entry!r} is {_times(entry)}, its exit {module.exit!r} {_times(exit_)}"
    return ""


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def leave_out(graph: Graph, modules: Iterable[SkippedModule]) -> None:
    """Puts an Identity in the place of each module, in place. They have to be without `skip_fault`."""
    modules = tuple(modules)
    tensors, builder = graph.tensors(), Builder(graph)
    for module in modules:
        last = producer(tensors[module.exit])
        assert last is not None, "the exit of a module is computed"
        identity = Node("Identity", builder.fresh(f"{module.exit}/skip"), {}, [tensors[module.entry]])
        insert_nodes(graph, [identity], before=last)
        erase_nodes(graph, [last])
        identity.outputs = [tensors[module.exit]]
    if modules:
        erase_dead_nodes(graph)


def without_skipped(model: Model) -> Model:
    """The network without modules that are an Identity and nothing else, and its table without them.

    What read the exit reads the entry; where the exit is an output of the network, what computed the entry computes it.
    An Identity stays between an input and an output of the network, and where a subgraph reads what it gives.
    """
    result = model.copy()
    graph, ends = result.graph, ModuleEnds(result)
    names = {(module.entry, module.exit) for module in model.modules if len(module.ends) == 2}
    skipped = [n for n in graph.nodes if n.op == "Identity" and (n.inputs[0].name, n.outputs[0].name) in names]
    captured = {t.name for node in graph.nodes for t in captured_tensors(node)}
    for node in skipped:
        (entry,), (exit_,) = node.inputs, node.outputs
        is_output = any(t is exit_ for t in graph.outputs)
        entry_stays = is_constant(entry) or any(t is entry for t in (*graph.inputs, *graph.outputs))
        if exit_.name in captured or (is_output and (entry_stays or entry.name in captured)):
            continue
        erase_nodes(graph, [node])
        if is_output:
            compute_as(entry, exit_)
            ends.move(entry, exit_)
        else:
            replace_all_uses(graph, exit_, entry)
            ends.move(exit_, entry)
    return replace(result, modules=ends.table(graph))
