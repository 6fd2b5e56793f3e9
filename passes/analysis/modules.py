"""Finds a network's convolution modules: in its table, by the names of its layers, or by its structure.

A *cut* is a tensor through which everything flows: nothing that is computed later reads anything computed before it,
but the cut itself. Between two neighbouring cuts lies one node, or a bundle of parallel paths (a residual block, an
Inception module). By structure, each bundle with a convolution in it is a module, and so is an inverted bottleneck
that no path leads past (MobileNet's strided blocks); in a network without bundles, each convolution is a module.
Where paths of different modules cross (the skips of a U-Net, a DenseNet's block, the neck of a detector), they lie
between the same two cuts and are one module: none of them has an entry and an exit of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wootz.passes.ir.model import Graph, Model, Module, Node, is_constant

Source = Literal["table", "names", "structure"]

CONVOLUTIONS = {"Conv", "ConvTranspose"}
LAYERS = {*CONVOLUTIONS, "Gemm", "MatMul"}
ENDS_MODULE = {
    *LAYERS,
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Flatten", "Reshape"),
    *("Concat", "Split", "Slice", "Transpose", "ReduceMean", "Softmax", "Dropout"),
}
"""A module goes on behind its last join through normalizations and activations; it ends before these."""
ENDS_CHAIN_MODULE = {*LAYERS, "Flatten", "Reshape", "GlobalAveragePool", "ReduceMean", "Softmax"}

READS_SHAPE = {"Shape", "Size"}


@dataclass(frozen=True)
class Segment:
    """The nodes between two neighbouring cuts `entry` and `exit`, in the graph's order."""

    entry: str
    exit: str
    nodes: tuple[Node, ...]

    def has(self, operators: set[str]) -> bool:
        return any(node.op in operators for node in self.nodes)


def find_modules(model: Model, source: Source | None = None) -> tuple[tuple[Module, ...], Source]:
    """The modules in order of data flow, and where they come from.

    The model's table comes first; then groups of layers whose names share a prefix (`inception_3a/…`,
    `res2a_branch2b`), if they lie between cuts; then the structure. `source` asks for one of these.
    """
    if source == "table" or (source is None and model.modules):
        return model.modules, "table"
    segments = find_segments(model.graph)
    if source == "names" or source is None:
        modules = _modules_by_name(segments)
        if modules or source == "names":
            return modules, "names"
    return _modules_by_structure(segments), "structure"


def find_segments(graph: Graph) -> tuple[Segment, ...]:
    """All that lies between the first and the last cut. Computations of shapes are left out."""
    data = {t.name for t in graph.inputs}
    outputs = {t.name for t in graph.outputs}
    readers: dict[str, int] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = {t.name for t in node.inputs if t.name in data}
        if operands and node.op not in READS_SHAPE:
            nodes.append(node)
            data.update(t.name for t in node.outputs if t.name)
            for name in operands:
                readers[name] = readers.get(name, 0) + 1
    live = {t.name for t in graph.inputs if t.name in readers}
    segments: list[Segment] = []
    entry, pending = (next(iter(live)) if len(live) == 1 else ""), []
    for node in nodes:
        pending.append(node)
        for name in {t.name for t in node.inputs if t.name in readers}:
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


def _modules_by_structure(segments: Sequence[Segment]) -> tuple[Module, ...]:
    bundles = [(i, i) for i, s in enumerate(segments) if len(s.nodes) > 1 and s.has(CONVOLUTIONS)]
    if not bundles:
        starts = [i for i, s in enumerate(segments) if s.has(CONVOLUTIONS) and not _is_depthwise(s.nodes[0])]
        return _named_modules(segments, [(i, _extended(segments, i, ENDS_CHAIN_MODULE)) for i in starts])
    inverted = _inverted_bottlenecks(segments)
    spans = inverted + [b for b in bundles if not any(first <= b[0] <= last for first, last in inverted)]
    spans.sort()
    starts = [first for first, _ in spans[1:]] + [len(segments)]
    extended = [
        (first, _extended(segments[:start], last, ENDS_MODULE))
        for (first, last), start in zip(spans, starts, strict=True)
    ]
    return _named_modules(segments, extended)


def _inverted_bottlenecks(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Depthwise convolutions with the layers around them, where no path leads past them (MobileNetV2, EfficientNet).

    The layer before belongs to it when it is pointwise and widens, the next one always, with a gate in between.
    """
    spans: list[tuple[int, int]] = []
    for i, segment in enumerate(segments):
        last = _projection(segments, i) if len(segment.nodes) == 1 and _is_depthwise(segment.nodes[0]) else None
        if last is not None and (not spans or spans[-1][1] < i):
            spans.append((_expansion(segments, i), last))
    return spans


def _expansion(segments: Sequence[Segment], depthwise: int) -> int:
    """The widening pointwise convolution before a depthwise one; the depthwise one itself where there is none."""
    before = depthwise - 1
    while before >= 0 and not segments[before].has(ENDS_MODULE):
        before -= 1
    if before < 0 or len(segments[before].nodes) > 1 or segments[before].nodes[0].op != "Conv":
        return depthwise
    filters, inputs, *kernel = segments[before].nodes[0].inputs[1].shape
    return before if filters > inputs and set(kernel) == {1} else depthwise


def _projection(segments: Sequence[Segment], depthwise: int) -> int | None:
    """The convolution behind a depthwise one; only normalization, activation and a gate may lie between them."""
    for i in range(depthwise + 1, len(segments)):
        nodes = segments[i].nodes
        if len(nodes) == 1 and nodes[0].op == "Conv":
            return None if _is_depthwise(nodes[0]) else i
        is_gate = len(nodes) > 1 and nodes[-1].op == "Mul"
        if not is_gate and segments[i].has(ENDS_MODULE):
            return None
    return None


def _extended(segments: Sequence[Segment], last: int, stops: set[str]) -> int:
    """The last segment of a module whose last bundle or convolution is in segment `last`."""
    while last + 1 < len(segments):
        following = segments[last + 1]
        if following.has(stops) and not (len(following.nodes) == 1 and _is_depthwise(following.nodes[0])):
            break
        last += 1
    return last


def _is_depthwise(node: Node) -> bool:
    """Whether the node is a convolution with one filter an input channel, which follows the layer before it."""
    return node.op == "Conv" and node.attrs.get("group", 1) > 1 and node.inputs[1].shape[1] == 1


def _modules_by_name(segments: Sequence[Segment]) -> tuple[Module, ...]:
    """Modules by the prefixes of layer names; none if a group of layers is torn apart or meets another."""
    groups: dict[str, list[int]] = {}
    for i, segment in enumerate(segments):
        for node in segment.nodes:
            if node.op in CONVOLUTIONS and (prefix := _prefix(layer_name(node))):
                groups.setdefault(prefix, []).append(i)
    groups = {prefix: places for prefix, places in groups.items() if len(places) > 1}
    spans = [(places[0], _extended(segments, places[-1], ENDS_MODULE)) for places in groups.values()]
    if len(groups) < 2 or any(before[1] >= after[0] for before, after in itertools.pairwise(spans)):
        return ()
    return tuple(
        Module(prefix, segments[first].entry, segments[last].exit)
        for prefix, (first, last) in zip(groups, spans, strict=True)
    )


def layer_name(node: Node) -> str:
    """The layer that a convolution belongs to: the name of its weight without `.weight`, or the node's name."""
    weight = node.inputs[1]
    if is_constant(weight) and weight.name.endswith(".weight"):
        return weight.name.removesuffix(".weight")
    return node.name


def _prefix(layer: str) -> str:
    if branch := re.match(r"(.+?)_?branch", layer):
        return branch[1]
    return layer.rpartition("/")[0]


def _named_modules(segments: Sequence[Segment], spans: Sequence[tuple[int, int]]) -> tuple[Module, ...]:
    """Modules called after the path that the names of their convolutions share, else `module1`, `module2`, …"""
    titles = []
    for first, last in spans:
        names = [layer_name(n) for s in segments[first : last + 1] for n in s.nodes if n.op in CONVOLUTIONS]
        paths = [[part for part in re.split(r"[/.]", name)[:-1] if part] for name in names]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        titles.append(".".join(parts[0] for parts in shared))
    if not all(titles) or len(set(titles)) < len(titles):
        titles = [f"module{i}" for i in range(1, len(spans) + 1)]
    return tuple(
        Module(title, segments[first].entry, segments[last].exit)
        for title, (first, last) in zip(titles, spans, strict=True)
    )
