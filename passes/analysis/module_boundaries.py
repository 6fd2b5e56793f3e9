"""Whether convolution modules can be cut out: one tensor goes in, one comes out, and one follows the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from wootz.passes.analysis.module_names import layer_name
from wootz.passes.analysis.segments import CONVOLUTIONS
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import (
    Graph,
    Model,
    Module,
    Node,
    Tensor,
    captured_tensors,
    is_constant,
    module_nodes,
    subgraph_nodes,
)


def check_modules(model: Model, modules: Sequence[Module]) -> None:
    """Raises WootzError for no modules, and for the first, or pair of neighbours, that is not a piece of its own.

    Each module has to read nothing but its entry, and to be read through its exit alone; so have two neighbours
    together. No node may belong to two modules.
    """
    if not modules:
        raise WootzError(
            "the network has no modules: no convolution was found to make one of, and none is marked (in a prototxt by "
            'module: "NAME" in the layers, in an ONNX model by the pass annotate-modules)'
        )
    tensors = model.graph.tensors()
    for module in modules:
        fault = _region_fault(model.graph, tensors, module, module)
        if fault:
            raise WootzError(f"module {module.name!r}: {fault}")
    owner: dict[int, Module] = {}
    for module in modules:
        for node in _computed_from_entry(model.graph, tensors[module.entry], tensors[module.exit]):
            other = owner.setdefault(id(node), module)
            if other is not module:
                raise WootzError(
                    f"modules {other.name!r} and {module.name!r} overlap: {_described(node)} belongs to both; "
                    f"let one end where the other begins"
                )
    for one, next_one in pairwise(modules):
        fault = _region_fault(model.graph, tensors, one, next_one)
        if fault:
            raise WootzError(
                f"modules {one.name!r} and {next_one.name!r} don't follow each other: {fault}; "
                f"make one module of them, or choose others"
            )


def _computed_from_entry(graph: Graph, entry: Tensor, exit_: Tensor) -> Iterator[Node]:
    """The nodes between the two, in order, without those that compute constants, which modules may share."""
    inside = subgraph_nodes([exit_], stop=[entry])
    computed = {id(entry)}
    for node in graph.nodes:
        if id(node) in inside and any(id(t) in computed for t in (*node.inputs, *captured_tensors(node))):
            computed.update(id(t) for t in node.outputs)
            yield node


def gap_notes(model: Model, modules: Sequence[Module]) -> tuple[str, ...]:
    """For neighbours with convolutions between them, which belong to no module: what becomes of these.

    The modules have to be pieces of their own that follow each other (`check_modules`).
    """
    notes = []
    for one, next_one in pairwise(modules):
        inside = {id(node) for module in (one, next_one) for node in module_nodes(model, module)}
        region = subgraph_nodes([_tensor(model, next_one.exit)], stop=[_tensor(model, one.entry)])
        between = [
            layer_name(node)
            for node in model.graph.nodes
            if node.op in CONVOLUTIONS and id(node) in region and id(node) not in inside
        ]
        if between:
            more = f" and {len(between) - 1} more" if len(between) > 1 else ""
            notes.append(
                f"convolution {between[0]!r}{more}, between modules {one.name!r} and {next_one.name!r}, is in no "
                f"module: it stays whole, and is pre-trained only in blocks of both"
            )
    return tuple(notes)


def _tensor(model: Model, name: str) -> Tensor:
    return model.graph.tensors()[name]


def region_fault(model: Model, first: Module, last: Module) -> str | None:
    """Why what lies between the entry of `first` and the exit of `last` is no piece of its own; None when it is.

    What lies between modules belongs to the region too, such as a pooling layer.
    """
    return _region_fault(model.graph, model.graph.tensors(), first, last)


def _region_fault(graph: Graph, tensors: Mapping[str, Tensor], first: Module, last: Module) -> str | None:
    for name in (first.entry, last.exit):
        if name not in tensors:
            return f"there is no tensor {name!r} in the graph; a node that was fused from several computes it inside"
    entry, exit_ = tensors[first.entry], tensors[last.exit]
    inside = subgraph_nodes([exit_], stop=[entry])
    nodes = [node for node in graph.nodes if id(node) in inside]
    if not any(t is entry for node in nodes for t in node.inputs):
        return f"{last.exit!r} isn't computed from {first.entry!r}"
    computed = tuple(_computed_from_entry(graph, entry, exit_))
    return _second_input(graph, nodes, entry) or _second_output(graph, inside, computed, exit_)


def _second_input(graph: Graph, nodes: Sequence[Node], entry: Tensor) -> str | None:
    """`nodes` lie before the exit; those that don't depend on the entry are outside, if they depend on an input."""
    given = {id(t) for t in graph.inputs if not is_constant(t)}
    from_entry, from_elsewhere = {id(entry)}, given - {id(entry)}
    for node in nodes:
        for source in (from_entry, from_elsewhere):
            if any(id(t) in source for t in node.inputs):
                source.update(id(t) for t in node.outputs)
    for node in nodes:
        for tensor in node.inputs:
            is_outside = id(tensor) in from_elsewhere and id(tensor) not in from_entry
            if is_outside and any(id(t) in from_entry for t in node.outputs):
                return f"{_described(node)} reads {tensor.name!r} beside {entry.name!r}"
    return None


def _second_output(graph: Graph, inside: set[int], computed: Sequence[Node], exit_: Tensor) -> str | None:
    """Constants that are computed may be read anywhere, and nodes that no output of the network needs read nothing."""
    needed: set[int] | None = None
    for tensor in (t for node in computed for t in node.outputs if t is not exit_):
        if any(t is tensor for t in graph.outputs):
            return f"it has a second output beside {exit_.name!r}: {tensor.name!r}, for an output of the network"
        for reader in (node for node in tensor.outputs if id(node) not in inside):
            needed = subgraph_nodes(graph.outputs) if needed is None else needed
            if id(reader) in needed:
                return f"it has a second output beside {exit_.name!r}: {tensor.name!r}, for {_described(reader)}"
    return None


def _described(node: Node) -> str:
    return f"{node.op} {(node.name or node.outputs[0].name)!r}"
