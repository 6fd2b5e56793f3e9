"""Reduces a model on which something fails to a small one on which it still fails (delta debugging on graphs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from wootz.passes.analysis.channels import analyse_channels
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Graph, Model, Variable, copy_graph, is_constant
from wootz.passes.ir.rewrite import erase_dead_nodes, remaining_modules, replace_all_uses
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.verifier import verify
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Planner

ALMOST_ALL = 0.9999
"""A pruning rate at which one filter is left."""

Edit = Callable[[Graph], None]


def reduce_model(model: Model, still_fails: Callable[[Model], bool]) -> Model:
    """The smallest model found for which `still_fails` holds; it has to hold for `model`.

    In rounds, until none helps: outputs are dropped, the graph is cut behind and before its tensors, nodes are
    bypassed, layers are pruned to one filter, images are halved. Only valid models are tried.
    """
    improved = True
    while improved:
        improved = False
        for reduce_once in (_drop_outputs, _cut_behind, _cut_before, _bypass, _prune, _halve_images):
            while (smaller := _first_failing(reduce_once(model), model, still_fails)) is not None:
                model, improved = smaller, True
    return model


def size(model: Model) -> tuple[int, int]:
    """What reduction makes smaller: the number of nodes, then the elements of weights and inputs."""
    elements = sum(_elements(t.shape) for t in model.graph.tensors().values() if is_constant(t))
    return len(model.graph.nodes), elements + sum(_elements(t.shape) for t in model.graph.inputs)


def _elements(shape: Sequence[int | str] | None) -> int:
    count = 1
    for extent in shape or ():
        count *= extent if isinstance(extent, int) else 1
    return count


def _first_failing(candidates: Iterator[Model], model: Model, still_fails: Callable[[Model], bool]) -> Model | None:
    for candidate in candidates:
        if size(candidate) < size(model) and _is_valid(candidate) and still_fails(candidate):
            return candidate
    return None


def _is_valid(model: Model) -> bool:
    try:
        verify(model)
    except WootzError:
        return False
    return bool(model.graph.nodes)


def _edited(model: Model, edit: Edit) -> Model:
    """A copy, changed, without what is dead then, and with the modules that are still there."""
    graph = copy_graph(model.graph)
    edit(graph)
    erase_dead_nodes(graph)
    read = {t.name for node in graph.nodes for t in node.inputs} | {t.name for t in graph.outputs}
    graph.inputs = [t for t in graph.inputs if t.name in read]
    return replace(model, graph=graph, modules=remaining_modules(model.modules, graph))


def _drop_outputs(model: Model) -> Iterator[Model]:
    outputs = model.graph.outputs
    for kept in [[t.name] for t in outputs] + [[t.name for t in outputs if t is not gone] for gone in outputs]:
        if 0 < len(kept) < len(outputs):
            yield _edited(model, partial(_keep_outputs, names=kept))


def _keep_outputs(graph: Graph, names: Sequence[str]) -> None:
    graph.outputs = [t for t in graph.outputs if t.name in names]


def _cut_behind(model: Model) -> Iterator[Model]:
    """Makes an inner tensor the only output, early ones first."""
    for name in _inner_tensors(model):
        yield _edited(_annotated(model), partial(_set_output, name=name))


def _set_output(graph: Graph, name: str) -> None:
    graph.outputs = [graph.tensors()[name]]


def _cut_before(model: Model) -> Iterator[Model]:
    """Makes an inner tensor an input, late ones first."""
    for name in reversed(_inner_tensors(model)):
        yield _edited(_annotated(model), partial(_make_input, name=name))


def _make_input(graph: Graph, name: str) -> None:
    tensor = graph.tensors()[name]
    given = Variable(name, tensor.dtype, tensor.shape)
    replace_all_uses(graph, tensor, given)
    tensor.name = f"{name}_before"
    graph.inputs = [*graph.inputs, given]


def _bypass(model: Model) -> Iterator[Model]:
    """Lets the readers of a node's result read an operand of the same shape instead."""
    annotated = _annotated(model)
    for i, node in enumerate(annotated.graph.nodes):
        for operand, tensor in enumerate(node.inputs):
            output = node.outputs[0]
            is_alike = not is_constant(tensor) and tensor.shape == output.shape and tensor.dtype == output.dtype
            if is_alike and not any(output is t for t in annotated.graph.outputs):
                yield _edited(model, partial(_bypass_node, position=i, operand=operand))


def _bypass_node(graph: Graph, position: int, operand: int) -> None:
    node = graph.nodes[position]
    replace_all_uses(graph, node.outputs[0], node.inputs[operand])


def _prune(model: Model) -> Iterator[Model]:
    """Prunes every layer to one filter, or one layer; those of the network's outputs too."""
    try:
        planner = Planner.of(model, analysis=analyse_channels(model, lock_outputs=False))
        materializer = Materializer.of(model, planner.analysis)
        cells = range(len(planner.cells))
        for chosen in [list(cells), *([c] for c in cells)]:
            yield materializer.materialize(planner.plan(dict.fromkeys(chosen, ALMOST_ALL)))
    except WootzError:
        return


def _halve_images(model: Model) -> Iterator[Model]:
    """Halves all extents of the inputs but the first two; what was annotated of inner tensors is inferred anew."""

    def halve(graph: Graph) -> None:
        for tensor in graph.tensors().values():
            if not is_constant(tensor) and not any(tensor is t for t in graph.inputs):
                tensor.shape = None
        for tensor in graph.inputs:
            if tensor.shape is not None:
                extents = [(d + 1) // 2 if isinstance(d, int) else d for d in tensor.shape[2:]]
                tensor.shape = [*tensor.shape[:2], *extents]

    yield _edited(model, halve)


def _inner_tensors(model: Model) -> list[str]:
    outputs = {t.name for t in model.graph.outputs}
    return [t.name for node in model.graph.nodes for t in node.outputs if t.name and t.name not in outputs]


def _annotated(model: Model) -> Model:
    try:
        return infer_shapes(model)
    except WootzError:  # a broken model is reduced by what needs no shapes
        return model
