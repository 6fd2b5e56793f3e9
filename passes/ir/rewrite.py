"""Rewires a graph, in place: the vocabulary of all passes that replace, erase and insert nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from wootz.passes.ir.model import Graph, Node, Tensor, producer, subgraph_nodes


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
