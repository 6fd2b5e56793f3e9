"""Cuts a network where everything flows through one tensor, and says what lies between two neighbouring cuts.

A *cut* is a tensor through which everything flows: nothing that is computed later reads anything computed before it,
but the cut itself. Between two neighbouring cuts lies one node, or a bundle of parallel paths (a residual block, an
Inception module).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from wootz.passes.ir.model import Graph, Node, captured_tensors, is_constant, subgraph_nodes

CONVOLUTIONS = {"Conv", "ConvTranspose"}
LAYERS = {*CONVOLUTIONS, "Gemm", "MatMul"}
RECURRENT = {"LSTM", "GRU", "RNN"}
READS_SHAPE = {"Shape", "Size"}
LINEAR = {"BatchNormalization", "Add", "Sub", "Sum", "Mul", "Split", "Slice", "Concat", "Identity"}
"""With convolutions, what a convolution may be written with: parallel branches that are summed, or parts of channels
that are convolved apart. Of Mul, those by a constant."""

Kind = Literal["block", "layer", "depthwise", "gate", "other"]


@dataclass(frozen=True, eq=False)
class Segment:
    """The nodes between two neighbouring cuts `entry` and `exit`, in the graph's order."""

    entry: str
    exit: str
    nodes: tuple[Node, ...]

    def has(self, operators: set[str]) -> bool:
        return any(node.op in operators for node in self.nodes)

    @property
    def convolutions(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op in CONVOLUTIONS)

    @cached_property
    def kind(self) -> Kind:
        """What the segment is.

        - `layer`: a convolution, or several that are as good as one: the parallel branches of a re-parameterisable
          block (RepVGG, MobileOne), the parts of a mixed convolution (MixNet);
        - `depthwise`: the same, where the channels that go in come out, filtered;
        - `gate`: what goes in, multiplied with what layers make of it (squeeze and excitation, spatial attention);
        - `block`: any other bundle with a convolution;
        - `other`: no convolution.
        """
        if self._is_gate:
            return "gate"
        if not self.convolutions:
            return "other"
        if not self._is_one_convolution:
            return "block"
        return "depthwise" if all(map(is_depthwise, self.convolutions)) else "layer"

    @cached_property
    def ties_its_ends(self) -> bool:
        """Whether a path leads through without a convolution that makes new channels (the identity of RepVGG)."""
        through = {self.entry}
        for node in self.nodes:
            keeps_channels = node.op not in LAYERS or is_depthwise(node)
            if keeps_channels and any(t.name in through for t in node.inputs):
                through.update(t.name for t in node.outputs)
        return self.exit in through

    @property
    def is_pointwise(self) -> bool:
        """Whether a `layer` has kernels of one position."""
        return all(set(_weight_shape(node)[2:]) == {1} for node in self.convolutions)

    @property
    def widening(self) -> int:
        """How many channels a `layer` has more than it reads; 0 where its weight is computed."""
        sizes = [_filters_and_inputs(node) for node in self.convolutions]
        filters = sum(a for a, _ in sizes) if self.has({"Concat"}) else sizes[0][0]
        inputs = sum(b for _, b in sizes) if self.has({"Split", "Slice"}) else sizes[0][1]
        return filters - inputs

    @property
    def ends_in_concat(self) -> bool:
        return self.nodes[-1].op == "Concat"

    @property
    def _is_gate(self) -> bool:
        last = self.nodes[-1]
        return last.op == "Mul" and any(t.name == self.entry for t in last.inputs) and self.has(LAYERS)

    @property
    def _is_one_convolution(self) -> bool:
        if len(self.nodes) == 1:
            return True
        depth: dict[str, int] = {}
        for node in self.nodes:
            data = [t for t in node.inputs if not is_constant(t)]
            is_product = node.op == "Mul" and len(data) > 1
            if node.op not in CONVOLUTIONS | LINEAR or is_product:
                return False
            before = max((depth.get(t.name, 0) for t in data), default=0)
            depth.update({t.name: before + (node.op in CONVOLUTIONS) for t in node.outputs})
        return max(depth.values()) == 1


def is_layer(node: Node) -> bool:
    """Whether a node has weights that are learnt, itself or in a body of it."""
    bodies = [a for a in node.attrs.values() if isinstance(a, Graph)]
    return node.op in LAYERS | RECURRENT or any(is_layer(inner) for body in bodies for inner in body.nodes)


def is_depthwise(node: Node) -> bool:
    """Whether the node is a convolution with one filter an input channel, which follows the layer before it."""
    return node.op == "Conv" and node.attrs.get("group", 1) > 1 and _weight_shape(node)[1:2] == (1,)


def _weight_shape(convolution: Node) -> tuple[int, ...]:
    """The shape of the weight; () where it is computed and not annotated."""
    return tuple(convolution.inputs[1].shape or ())


def _filters_and_inputs(convolution: Node) -> tuple[int, int]:
    shape = _weight_shape(convolution)
    if not shape:
        return 0, 0
    outer, inner = shape[:2]
    group = convolution.attrs.get("group", 1)
    return (inner * group, outer) if convolution.op == "ConvTranspose" else (outer, inner * group)


def find_segments(graph: Graph) -> tuple[Segment, ...]:
    """All that lies between the first and the last cut. Computations of shapes are left out.

    Where a shape that is needed later is read off a tensor between two cuts, these are none. Then what was a cut
    before lies between two as well.
    """
    segments = _between_cuts(graph)
    uses = _uses_of_extents(graph)
    place = {id(node): i for i, segment in enumerate(segments) for node in segment.nodes}
    made = {t.name: i for i, segment in enumerate(segments) for node in segment.nodes for t in node.outputs}
    joined: list[Segment] = []
    until = -1
    for i, segment in enumerate(segments):
        if i > until:
            joined.append(segment)
        else:
            before = joined.pop()
            joined.append(Segment(before.entry, segment.exit, (*before.nodes, *segment.nodes)))
        readers = [(tensor, place.get(node, len(segments))) for tensor, node in uses if made.get(tensor) == i]
        until = max([until, *(reader for tensor, reader in readers if tensor != segment.exit)])
        if until > i:
            until = max([until, *(reader for _, reader in readers)])
    return tuple(joined if until < len(segments) else joined[:-1])


def reads_of_extents(graph: Graph, segments: Sequence[Segment]) -> tuple[tuple[int, int], ...]:
    """Pairs (a, b): segment b, not the next one, needs a shape that is read off the exit of segment a.

    For tensors before the first segment, a is -1 for its entry and else -2; b is the number of segments for nodes
    behind the last one.
    """
    place = {id(node): i for i, segment in enumerate(segments) for node in segment.nodes}
    exits = {segment.exit: i for i, segment in enumerate(segments)}
    inside = {t.name for segment in segments for node in segment.nodes for t in node.outputs} - exits.keys()
    exits |= {segment.entry: -1 for segment in segments[:1]}
    pairs = {
        (exits.get(tensor, -2), place.get(node, len(segments)))
        for tensor, node in _uses_of_extents(graph)
        if tensor not in inside
    }
    return tuple(sorted((a, b) for a, b in pairs if b > a + 1))


def _uses_of_extents(graph: Graph) -> tuple[tuple[str, int], ...]:
    """Tensors with the (`id`s of) nodes that compute other data with their extents."""
    data = {t.name for t in graph.inputs}
    needed = subgraph_nodes(graph.outputs)
    sources: dict[str, set[str]] = {}
    uses: list[tuple[str, int]] = []
    for node in (node for node in graph.nodes if id(node) in needed):
        operands = [*node.inputs, *captured_tensors(node)]
        extents = set().union(*(sources.get(t.name, set()) for t in operands))
        is_data = any(t.name in data for t in operands)
        if is_data and node.op in READS_SHAPE:
            sources[node.outputs[0].name] = {node.inputs[0].name}
        elif is_data:
            data.update(t.name for t in node.outputs if t.name)
            uses += [(tensor, id(node)) for tensor in extents]
        elif extents:
            sources.update({t.name: extents for t in node.outputs})
    return tuple(uses)


def data_tensors(graph: Graph) -> set[str]:
    """What is computed from the network's inputs, and these: but for their shapes, and what is computed from those."""
    data = {t.name for t in graph.inputs}
    for node in graph.nodes:
        if node.op not in READS_SHAPE and any(t.name in data for t in (*node.inputs, *captured_tensors(node))):
            data.update(t.name for t in node.outputs if t.name)
    return data


def _between_cuts(graph: Graph) -> tuple[Segment, ...]:
    data = {t.name for t in graph.inputs}
    needed = subgraph_nodes(graph.outputs)
    outputs = {t.name for t in graph.outputs}
    readers: dict[str, int] = {}
    nodes: list[tuple[Node, set[str]]] = []
    for node in graph.nodes:
        operands = {t.name for t in (*node.inputs, *captured_tensors(node)) if t.name in data}
        if operands and node.op not in READS_SHAPE and id(node) in needed:
            nodes.append((node, operands))
            data.update(t.name for t in node.outputs if t.name)
            for name in operands:
                readers[name] = readers.get(name, 0) + 1
    live = {t.name for t in graph.inputs if t.name in readers}
    segments: list[Segment] = []
    entry, pending = (next(iter(live)) if len(live) == 1 else ""), []
    for node, operands in nodes:
        pending.append(node)
        for name in operands:
            readers[name] -= 1
            if not readers[name] and name not in outputs:
                live.discard(name)
        live.update(t.name for t in node.outputs if t.name in readers or t.name in outputs)
        if len(live) == 1:
            (exit_,) = live
            if entry and exit_ != entry:
                segments.append(Segment(entry, exit_, tuple(pending)))
            entry, pending = exit_, []
    return tuple(segments)
