"""What a network gives before it is decoded: a detector's logits and offsets instead of its boxes and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.analysis.class_scores import KINDS, LAYOUT_OPERATORS
from wootz.passes.analysis.segments import is_layer
from wootz.passes.ir.model import Graph, Node, Tensor, producer, subgraph_nodes

CHOOSING = LAYOUT_OPERATORS | {"Split", "Slice", "Gather", "Concat"}
"""Operators that give elements of their operands as they are."""
BENDING = frozenset(KINDS) | {"Exp"}
"""What makes probabilities and sizes of real numbers: without any of it there is nothing to decode."""
DECODING = CHOOSING | BENDING | {"Add", "Sub", "Sum", "Mul", "Div", "Pow", "Neg", "Reciprocal", "Min", "Max", "Clip"}
"""What boxes and probabilities are computed by."""


@dataclass(frozen=True, eq=False)
class Undecoded:
    """What layers give, in some layout, and the Softmax, LogSoftmax or Sigmoid that reads it: None where others do."""

    tensor: Tensor
    activation: Node | None


class Decoding:
    """Finds in a graph what its outputs are decoded from."""

    def __init__(self, graph: Graph):
        layers = [node for node in graph.nodes if is_layer(node)]
        self._nodes = tuple(graph.nodes)
        self._before_layers = subgraph_nodes(t for node in layers for t in node.inputs)
        self._learnt: set[str] = set()
        for node in graph.nodes:
            if is_layer(node) or any(t.name in self._learnt for t in node.inputs):
                self._learnt.update(t.name for t in node.outputs if t.name)

    def sources(self, output: Tensor) -> tuple[Undecoded, ...]:
        """What `output` is computed from by DECODING operators behind the last layers, in order of data flow.

        Nothing where none of them is BENDING, and where a layer reads what is found, too: it is not the network's end.
        """
        computing, computed = list[Node](), set[str]()
        for node in self._behind_layers(output):
            if node.op not in CHOOSING or any(t.name in computed for t in node.inputs):
                computing.append(node)
                computed.update(t.name for t in node.outputs)
        found: dict[str, Undecoded] = {}
        for node in computing:
            for tensor in (t for t in node.inputs if t.name in self._learnt - computed):
                is_alone = node.op in KINDS and tensor.name not in found
                found[tensor.name] = Undecoded(tensor, node if is_alone else None)
        is_bent = any(node.op in BENDING for node in computing)
        is_end = not any(id(producer(use.tensor)) in self._before_layers for use in found.values())
        return tuple(found.values()) if is_bent and is_end else ()

    def _behind_layers(self, output: Tensor) -> list[Node]:
        """The DECODING operators that an output comes from, back to what else computes, in the graph's order."""
        found: set[int] = set()
        pending = [output]
        while pending:
            node = producer(pending.pop())
            if node is not None and node.op in DECODING and id(node) not in found | self._before_layers:
                found.add(id(node))
                pending += [t for t in node.inputs if t.name in self._learnt]
        return [node for node in self._nodes if id(node) in found]
