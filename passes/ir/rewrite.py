"""Rewires a graph, in place: the vocabulary of all passes that replace, erase and insert nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from wootz.passes.ir.model import (
    Graph,
    Model,
    Module,
    Node,
    Tensor,
    Variable,
    copy_graph,
    producer,
    subgraph_nodes,
)


def replace_all_uses(graph: Graph, old: Tensor, new: Tensor) -> None:
    """Every node that reads `old` reads `new` instead, and so does the graph where `old` is an output."""
    redirect_readers(old, new)
    graph.outputs = [new if t is old else t for t in graph.outputs]


def redirect_readers(old: Tensor, new: Tensor) -> None:
    """Every node that reads `old` reads `new` instead."""
    for node in list(old.outputs):
        node.inputs = [new if t is old else t for t in node.inputs]


def compute_as(result: Tensor, name: Tensor) -> None:
    """The node that computes `result` computes `name`, which nothing computes yet, for all that read either."""
    node = producer(result)
    assert node is not None, "a result is computed"
    redirect_readers(result, name)
    node.outputs = [name if t is result else t for t in node.outputs]


def replace_node(node: Node, results: Sequence[Tensor]) -> None:
    """Disconnects `node`; `results`, of other nodes, are computed as its outputs, those that are omitted aside."""
    outputs = list(node.outputs)
    disconnect(node)
    for output, result in zip(outputs, list(results), strict=False):
        if not output.is_empty():
            compute_as(result, output)


def disconnect(node: Node) -> None:
    """Takes a node from the tensors that it reads and computes; it is still among the graph's nodes."""
    node.inputs.clear()
    node.outputs.clear()


def erase_nodes(graph: Graph, nodes: Iterable[Node]) -> None:
    """Takes nodes out of the graph; nothing computes their outputs any more."""
    erased = {id(node): node for node in nodes}
    for node in erased.values():
        disconnect(node)
    graph.nodes = [node for node in graph.nodes if id(node) not in erased]


def erase_dead_nodes(graph: Graph) -> None:
    """Takes out the nodes that no output of the graph depends on."""
    live = subgraph_nodes(graph.outputs)
    erase_nodes(graph, [node for node in graph.nodes if id(node) not in live])


def erase_unread(graph: Graph, *tensors: Tensor) -> None:
    """Takes out the nodes that compute `tensors` and whose results nothing reads, and those that computed for them."""
    for node in [producer(t) for t in tensors]:
        if node is not None and not any(t.outputs or any(t is o for o in graph.outputs) for t in node.outputs):
            operands = list(node.inputs)
            erase_nodes(graph, [node])
            erase_unread(graph, *operands)


def insert_nodes(graph: Graph, nodes: Sequence[Node], before: Node | None) -> None:
    """Puts nodes just before another one, or at the end."""
    place = next((i for i, node in enumerate(graph.nodes) if node is before), len(graph.nodes))
    graph.nodes[place:place] = nodes


def rewriting(graph: Graph) -> Iterator[Node]:
    """The nodes in order, for a loop that rewrites: what is appended to the graph meanwhile stands before the node.

    A node that is disconnected then is left out. Until the end the graph holds the nodes up to the current one alone:
    a Builder is made before.
    """
    nodes, graph.nodes = list(graph.nodes), []
    for node in nodes:
        yield node
        if node.outputs:
            graph.nodes.append(node)


def cut_out(model: Model, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Model:
    """What lies between tensors, as a model of its own: all that `outputs` depend on, not looking behind `inputs`.

    Of the tensors given for inputs, by name, a variable becomes an input, and a constant the value. The types of
    outputs are those of the tensors given for them, float32 where that is not known.
    """
    graph = copy_graph(model.graph)
    tensors = {t.name: t for t in graph.inputs} | graph.tensors()
    for name, source in inputs.items():
        redirect_readers(tensors[name], source)
    for name, like in outputs.items():
        tensors[name].dtype, tensors[name].shape = like.dtype or np.dtype(np.float32), like.shape
    graph.inputs = [source for source in inputs.values() if isinstance(source, Variable)]
    graph.outputs = [tensors[name] for name in outputs]
    erase_dead_nodes(graph)
    return replace(model, graph=graph, modules=(), metadata={})


class ModuleEnds:
    """The tensors that a model's modules begin and end with, while its graph is rewritten, whatever their names become.

    A pass that renames tensors or takes some out makes one before, and has the table of modules from it afterwards.
    """

    def __init__(self, model: Model):
        tensors = model.graph.tensors()
        self._modules = model.modules
        self._ends = {name: tensors[name] for m in model.modules for name in m.ends if name in tensors}

    def move(self, old: Tensor, new: Tensor) -> None:
        """Modules that begin or end with `old` do so with `new`, which holds the same."""
        self._ends = {name: new if tensor is old else tensor for name, tensor in self._ends.items()}

    def table(self, graph: Graph) -> tuple[Module, ...]:
        """The modules by the names that their ends have now, without those of which an end, or all between, is gone.

        An end that was no tensor before either stays as it is, for the verifier to tell.
        """
        tensors = graph.tensors()
        names = {name: tensor.name for name, tensor in self._ends.items()}
        now = [m.renamed(names) for m in self._modules]
        lost = {name for name in names.values() if name not in tensors}
        return tuple(m for m in now if set(m.entries).isdisjoint(m.exits) and lost.isdisjoint(m.ends))


def remaining_modules(modules: Iterable[Module], graph: Graph) -> tuple[Module, ...]:
    """Those that begin and end with tensors of the graph."""
    tensors = graph.tensors()
    return tuple(m for m in modules if all(name in tensors for name in m.ends))
