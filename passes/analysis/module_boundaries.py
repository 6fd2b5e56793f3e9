"""Whether convolution modules can be cut out: what goes in and out is theirs alone, and one follows the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from wootz.passes.analysis.module_names import layer_name
from wootz.passes.analysis.segments import CONVOLUTIONS, data_tensors
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
    producer,
    subgraph_nodes,
)


def check_modules(model: Model, modules: Sequence[Module]) -> None:
    """Raises WootzError for no modules, and for the first, or pair of neighbours, that is not a piece of its own.

    Each module has to read nothing but its entries, and to be read through its exits alone. No node that computes data
    may belong to two modules, and none may read what a later one makes.
    """
    if not modules:
        raise WootzError(
            "the network has no modules: no convolution was found to make one of, and none is marked (in a prototxt by "
            'module: "NAME" in the layers, in an ONNX model by the pass annotate-modules)'
        )
    tensors = model.graph.tensors()
    for module in modules:
        fault = _module_fault(model.graph, tensors, module)
        if fault:
            raise WootzError(f"module {module.name!r}: {fault}")
    owner: dict[int, Module] = {}
    data = data_tensors(model.graph)
    for module in modules:
        for node in _computed_from_entries(model.graph, tensors, module):
            is_data = any(t.name in data for t in node.outputs)
            other = owner.setdefault(id(node), module) if is_data else module
            if other is not module:
                raise WootzError(
                    f"modules {other.name!r} and {module.name!r} overlap: {_described(node)} belongs to both; "
                    f"let one end where the other begins"
                )
    _check_order(model.graph, modules, owner)


def _check_order(graph: Graph, modules: Sequence[Module], owner: Mapping[int, Module]) -> None:
    """Raises WootzError for the first module that depends on a later one."""
    place = {id(module): i for i, module in enumerate(modules)}
    latest: dict[str, int] = {}
    for node in graph.nodes:
        before = max((latest[t.name] for t in (*node.inputs, *captured_tensors(node)) if t.name in latest), default=-1)
        own = place[id(owner[id(node)])] if id(node) in owner else before
        if before > own:
            raise WootzError(
                f"modules {modules[own].name!r} and {modules[before].name!r} don't follow each other: the first reads "
                f"what the second one makes; change their order, or make one module of them"
            )
        if own >= 0:
            latest.update({t.name: own for t in node.outputs})


def block_of(model: Model, modules: Sequence[Module]) -> Module:
    """Consecutive modules as one, with what lies between them, such as a pooling layer.

    The modules have to be pieces of their own that follow each other (`check_modules`).
    """
    first, last = modules[0], modules[-1]
    if len(modules) == 1:
        return first
    inside = {id(node) for module in modules for node in module_nodes(model, module)}
    inside |= _between(model.graph, modules)
    name = "-".join(dict.fromkeys((first.name, last.name)))
    return module_of(name, model.graph, inside, first.entry, last.exit)


def _between(graph: Graph, modules: Sequence[Module]) -> set[int]:
    """The `id`s of the nodes that depend on one of the modules, and that another one depends on."""
    tensors = graph.tensors()
    needed = subgraph_nodes([tensors[name] for module in modules for name in module.entries])
    begun = {name for module in modules for name in module.exits}
    found = set()
    for node in graph.nodes:
        if any(t.name in begun for t in (*node.inputs, *captured_tensors(node))):
            begun.update(t.name for t in node.outputs)
            found.add(id(node))
    return found & needed


def module_of(name: str, graph: Graph, inside: Collection[int], entry: str, exit_: str) -> Module:
    """The module of the nodes whose `id`s are `inside`: they, and what computes constants and shapes for them alone.

    Its entries are the data that these read from outside, its exits what they compute that others need. `entry` and
    `exit_` come first, if they are among these.
    """
    data = data_tensors(graph)
    needed = subgraph_nodes(graph.outputs)
    outputs = {t.name for t in graph.outputs}
    nodes = [node for node in graph.nodes if id(node) in inside]
    helpers = _helpers(nodes, inside, data)
    made = {t.name for node in nodes for t in node.outputs if t.name}
    read = {t.name for node in (*nodes, *helpers) for t in (*node.inputs, *captured_tensors(node)) if t.name in data}
    elsewhere = {
        t.name
        for node in graph.nodes
        if id(node) in needed and id(node) not in inside
        for t in (*node.inputs, *captured_tensors(node))
    }
    order = [*(t.name for t in graph.inputs), *(t.name for node in graph.nodes for t in node.outputs)]
    entries = sorted((n for n in order if n in read - made), key=lambda n: n != entry)
    exits = sorted((n for n in order if n in made and n in elsewhere | outputs), key=lambda n: n != exit_)
    return Module(name, entries[0], exits[0], tuple(entries[1:]), tuple(exits[1:]))


def _helpers(nodes: Sequence[Node], inside: Collection[int], data: Collection[str]) -> list[Node]:
    """The nodes outside that compute constants, and shapes of data, for `nodes`."""
    found: dict[int, Node] = {}
    pending = [t for node in nodes for t in (*node.inputs, *captured_tensors(node))]
    while pending:
        tensor = pending.pop()
        node = producer(tensor)
        if node is not None and tensor.name not in data and id(node) not in inside and id(node) not in found:
            found[id(node)] = node
            pending += [*node.inputs, *captured_tensors(node)]
    return list(found.values())


def gap_notes(model: Model, modules: Sequence[Module]) -> tuple[str, ...]:
    """For neighbours with convolutions between them, which belong to no module: what becomes of these.

    The modules have to be pieces of their own that follow each other (`check_modules`).
    """
    notes = []
    for one, next_one in pairwise(modules):
        inside = {id(node) for module in (one, next_one) for node in module_nodes(model, module)}
        region = _between(model.graph, (one, next_one))
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


def module_fault(model: Model, module: Module) -> str | None:
    """Why what lies between the entries and the exits of `module` is no piece of its own; None when it is."""
    return _module_fault(model.graph, model.graph.tensors(), module)


def _module_fault(graph: Graph, tensors: Mapping[str, Tensor], module: Module) -> str | None:
    for name in module.ends:
        if name not in tensors:
            return f"there is no tensor {name!r} in the graph; a node that was fused from several computes it inside"
    entries, exits = ([tensors[name] for name in names] for names in (module.entries, module.exits))
    inside = subgraph_nodes(exits, stop=entries)
    nodes = [node for node in graph.nodes if id(node) in inside]
    computed = tuple(_computed_from_entries(graph, tensors, module))
    made = {t.name for node in computed for t in node.outputs}
    for exit_ in exits:
        if exit_.name not in made:
            return f"{exit_.name!r} isn't computed from {_quoted(module.entries)}"
    return _further_input(graph, nodes, entries) or _further_output(graph, inside, computed, exits)


def _computed_from_entries(graph: Graph, tensors: Mapping[str, Tensor], module: Module) -> Iterator[Node]:
    """The nodes inside, in order, without those that compute constants, which modules may share."""
    entries = [tensors[name] for name in module.entries]
    inside = subgraph_nodes([tensors[name] for name in module.exits], stop=entries)
    computed = set(map(id, entries))
    for node in graph.nodes:
        if id(node) in inside and any(id(t) in computed for t in (*node.inputs, *captured_tensors(node))):
            computed.update(id(t) for t in node.outputs)
            yield node


def _further_input(graph: Graph, nodes: Sequence[Node], entries: Sequence[Tensor]) -> str | None:
    """`nodes` lie before the exits; those that don't depend on an entry are outside, if they depend on an input."""
    from_entries = set(map(id, entries))
    from_elsewhere = {id(t) for t in graph.inputs if not is_constant(t)} - from_entries
    for node in nodes:
        for source in (from_entries, from_elsewhere):
            if any(id(t) in source for t in node.inputs):
                source.update(id(t) for t in node.outputs)
    for node in nodes:
        for tensor in node.inputs:
            is_outside = id(tensor) in from_elsewhere and id(tensor) not in from_entries
            if is_outside and any(id(t) in from_entries for t in node.outputs):
                return f"{_described(node)} reads {tensor.name!r} beside {_quoted(t.name for t in entries)}"
    return None


def _further_output(graph: Graph, inside: set[int], computed: Sequence[Node], exits: Sequence[Tensor]) -> str | None:
    """Constants that are computed may be read anywhere, and nodes that no output of the network needs read nothing."""
    ends = set(map(id, exits))
    which = f"{'a second' if len(exits) == 1 else 'another'} output beside {_quoted(t.name for t in exits)}"
    needed: set[int] | None = None
    for tensor in (t for node in computed for t in node.outputs if id(t) not in ends):
        if any(t is tensor for t in graph.outputs):
            return f"it has {which}: {tensor.name!r}, for an output of the network"
        for reader in (node for node in tensor.outputs if id(node) not in inside):
            needed = subgraph_nodes(graph.outputs) if needed is None else needed
            if id(reader) in needed:
                return f"it has {which}: {tensor.name!r}, for {_described(reader)}"
    return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _described(node: Node) -> str:
    return f"{node.op} {(node.name or node.outputs[0].name)!r}"
