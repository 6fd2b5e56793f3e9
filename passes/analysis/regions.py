"""Finds modules where hardly any tensor is a cut: regions, which may have several entries and exits.

U-Nets, the necks of detectors, networks with several inputs or outputs. docs/modules.md has the rules.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.module_boundaries import module_of
from wootz.passes.analysis.module_names import titles
from wootz.passes.analysis.segments import LAYERS, READS_SHAPE, Segment, data_tensors, is_layer
from wootz.passes.analysis.spans import POOLING, Span, chain_spans, closed_spans, groups_of_layers, through
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.ir.model import (
    Graph,
    Model,
    Module,
    Node,
    captured_tensors,
    is_constant,
    subgraph_nodes,
)

NO_MAPS = {
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Gather", "GatherND", "GatherElements"),
    *("NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "NonZero", "Loop", "If", "Scan"),
}
"""What these give, behind the last layers, is no map of features any more."""
NOWHERE = np.iinfo(np.int64).max
"""The place of what is in no piece."""


def find_regions(model: Model, segments: Sequence[Segment]) -> tuple[Module, ...]:
    """The modules of a network whose `segments` don't say enough; none where they do.

    They do in networks of one input whose one output is a vector, and where each bundle is a piece.
    """
    network = _Network(model)
    if network.gives_a_vector or network.consists_of(segments):
        return ()
    spans = _spans(network)
    names = titles([_groups_of_layers(network, span) for span in spans])
    return tuple(network.module(name, span) for name, span in zip(names, spans, strict=True))


@dataclass(frozen=True, eq=False)
class _Network:
    """What regions are found by. A *place* is the position of a piece among the `pieces`."""

    model: Model

    @property
    def graph(self) -> Graph:
        return self.model.graph

    @cached_property
    def trunk(self) -> tuple[Node, ...]:
        """The nodes that compute data, without the end: what comes behind the last layers and makes no maps."""
        needed = subgraph_nodes(self.graph.outputs)
        nodes = [n for n in self.graph.nodes if id(n) in needed and n.op not in READS_SHAPE and self._is_data(n)]
        before_layers = subgraph_nodes(t for n in nodes if is_layer(n) for t in n.inputs)
        ended: set[str] = set()
        kept = []
        for node in nodes:
            makes_maps = node.op not in NO_MAPS and all(t.name not in ended for t in node.inputs)
            if is_layer(node) or id(node) in before_layers or makes_maps:
                kept.append(node)
            else:
                ended.update(t.name for t in node.outputs)
        return tuple(kept)

    @cached_property
    def data(self) -> set[str]:
        return data_tensors(self.graph)

    def _is_data(self, node: Node) -> bool:
        return any(t.name in self.data for t in node.outputs)

    def reads(self, node: Node) -> set[str]:
        """The data that a node reads."""
        return {t.name for t in (*node.inputs, *captured_tensors(node)) if t.name in self.data}

    @property
    def gives_a_vector(self) -> bool:
        """Whether there is one input, and one output that is a vector for each image, which the trunk ends in."""
        inputs = [t for t in self.graph.inputs if t.outputs and not is_constant(t)]
        if len(inputs) != 1 or len(self.graph.outputs) != 1 or len(self._ends) != 1:
            return False
        return not self._is_map(self.graph.outputs[0].name)

    @cached_property
    def _ends(self) -> set[str]:
        """What the trunk makes for the end and for the outputs of the network."""
        made = {t.name for node in self.trunk for t in node.outputs}
        return {name for name in made if self.last_reader(name) == NOWHERE}

    @cached_property
    def _readers(self) -> dict[str, list[int]]:
        """The nodes, by their positions in the trunk, that read a tensor; NOWHERE for others, and for outputs."""
        place = {id(node): i for i, node in enumerate(self.trunk)}
        needed = subgraph_nodes(self.graph.outputs)
        readers: dict[str, list[int]] = {t.name: [NOWHERE] for t in self.graph.outputs}
        for node in (n for n in self.graph.nodes if id(n) in needed and n.op not in READS_SHAPE):
            for name in self.reads(node):
                readers.setdefault(name, []).append(place.get(id(node), NOWHERE))
        return readers

    def last_reader(self, name: str) -> int:
        return max(self._readers.get(name, [-1]))

    def _is_map(self, name: str) -> bool:
        """Whether a tensor has more than one place, or may have."""
        shape = self.shapes.get(name)
        return shape is None or bool(len(shape) > 2 and np.prod(shape[2:]) > 1)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...] | None]:
        return static_shapes(self.model).shapes

    @cached_property
    def analysis(self) -> ChannelAnalysis:
        return analyse_channels(self.model)

    # Pieces

    @cached_property
    def pieces(self) -> tuple[Segment, ...]:
        """The nodes of the trunk, those of a bundle together and layers that share their weights, each with what
        follows all of them alike, in an order of data flow; layers that stand in one another's way, with other nodes
        between them, stay apart."""
        pieces = self._pieces_apart()
        for weight in self._shared_weights:
            sharing = [p for p in pieces if any(n.op in LAYERS and _weight(n) == weight for n in p.nodes)]
            while len(sharing) > 1 and (joined := self._in_order(_with_joined(pieces, sharing))):
                pieces = joined
                sharing = self._following_alike(pieces, sharing)
        return pieces

    def _following_alike(self, pieces: Sequence[Segment], before: Sequence[Segment]) -> list[Segment]:
        """One piece behind each of those `before`, all of one operator that is no layer; none where it isn't so."""
        following = [
            [p for p in pieces if len(p.nodes) == 1 and not is_layer(p.nodes[0]) and self.reads(p.nodes[0]) <= made]
            for made in ({t.name for t in piece.nodes[-1].outputs} for piece in before)
        ]
        alone = [found[0] for found in following if len(found) == 1]
        is_alike = len(alone) == len(before) and len({p.nodes[0].op for p in alone}) == 1
        return alone if is_alike else []

    def _pieces_apart(self) -> tuple[Segment, ...]:
        bundles = {max(bundle): (fork, bundle) for fork, bundle in self._bundles()}
        inside = {i for _, bundle in bundles.values() for i in bundle}
        pieces = []
        for i, node in enumerate(self.trunk):
            if i in bundles:
                fork, bundle = bundles[i]
                pieces.append(Segment(fork, node.outputs[0].name, tuple(self.trunk[j] for j in sorted(bundle))))
            elif i not in inside:
                latest = max(self.reads(node), key=lambda name: self._made.get(name, -1))
                pieces.append(Segment(latest, node.outputs[0].name, (node,)))
        return tuple(pieces)

    @cached_property
    def _shared_weights(self) -> tuple[str, ...]:
        """The weights that several layers of the trunk read."""
        readers = Counter(_weight(node) for node in self.trunk if node.op in LAYERS)
        return tuple(weight for weight, count in readers.items() if weight and count > 1)

    def _in_order(self, pieces: Sequence[Segment]) -> tuple[Segment, ...]:
        """The pieces, each behind those that it reads and else as they are; none where they read each other."""
        maker = {t.name: i for i, piece in enumerate(pieces) for node in piece.nodes for t in node.outputs}
        sorter = TopologicalSorter(
            {i: {maker[name] for name in self._read_in(piece) if name in maker} - {i} for i, piece in enumerate(pieces)}
        )
        try:
            sorter.prepare()
        except CycleError:
            return ()
        ordered, ready = [], list(sorter.get_ready())
        heapify(ready)
        while ready:
            first = heappop(ready)
            ordered.append(pieces[first])
            sorter.done(first)
            for following in sorter.get_ready():
                heappush(ready, following)
        return tuple(ordered)

    @cached_property
    def _made(self) -> dict[str, int]:
        return {t.name: i for i, node in enumerate(self.trunk) for t in node.outputs if t.name}

    def _bundles(self) -> list[tuple[str, frozenset[int]]]:
        """Where the network forks, and the nodes from there to where all that is needed elsewhere is one tensor.

        Of those that lie in each other the largest.
        """
        forks = (name for name in (*(t.name for t in self.graph.inputs), *self._made) if self._forks(name))
        found = [(name, bundle) for name in forks if (bundle := self._bundle(name))]
        chosen: list[tuple[str, frozenset[int]]] = []
        for name, bundle in sorted(found, key=lambda item: -len(item[1])):
            if all(bundle.isdisjoint(other) for _, other in chosen):
                chosen.append((name, bundle))
        return chosen

    def _forks(self, name: str) -> bool:
        readers = [i for i in self._readers.get(name, []) if i != NOWHERE]
        return len(readers) > 1 or any(len(self.trunk[i].outputs) > 1 for i in readers)

    def _bundle(self, fork: str) -> frozenset[int]:
        """The nodes, by their positions, from a tensor to the first one in which paths from it have joined; none where
        they go up before."""
        behind: dict[str, int] = {}
        for i in range(min(self._readers[fork]), len(self.trunk)):
            node = self.trunk[i]
            operands = [name for name in self.reads(node) if name == fork or name in behind]
            if operands and self._goes_up(node):
                break
            if operands:
                behind.update({t.name: i for t in node.outputs if t.name})
            if len(operands) > 1 and (nodes := self._joined(fork, i, behind)):
                return nodes
        return frozenset()

    def _joined(self, fork: str, end: int, behind: dict[str, int]) -> frozenset[int]:
        """The nodes between a fork and node `end`, if several of them read the fork, and others nothing but the end."""
        nodes, pending = {end}, [end]
        while pending:
            for name in self.reads(self.trunk[pending.pop()]):
                if name in behind and behind[name] not in nodes:
                    nodes.add(behind[name])
                    pending.append(behind[name])
        starts = [i for i in nodes if fork in self.reads(self.trunk[i])]
        if len(starts) < 2 and all(len(self.trunk[i].outputs) == 1 for i in starts):
            return frozenset()
        inner = {t.name for i in nodes - {end} for t in self.trunk[i].outputs}
        beside = {name for i in nodes for name in self.reads(self.trunk[i])} - inner - {fork}
        is_closed = all(nodes.issuperset(self._readers.get(name, [])) for name in inner)
        return frozenset(nodes) if is_closed and not any(map(self._is_map, beside)) else frozenset()

    def _goes_up(self, node: Node) -> bool:
        """Whether the node makes a map larger, but one of a single place."""
        if node.op == "ConvTranspose":
            return max(node.attrs.get("strides", [1])) > 1
        is_enlarged = node.op in ("Resize", "Upsample", "DepthToSpace", "MaxUnpool")
        return is_enlarged and self._is_map(node.inputs[0].name)

    def consists_of(self, segments: Sequence[Segment]) -> bool:
        """Whether the trunk consists of these segments, and each bundle of them is a piece.

        Of a chain, where modules give channels to each other, single layers may lie outside, such as heads.
        """
        nodes = {id(node) for segment in segments for node in segment.nodes}
        outside = [node for node in self.trunk if id(node) not in nodes]
        if any(map(is_layer, outside)):
            return bool(chain_spans(segments)) and not closed_spans(segments) and self._most_layers(outside) == 1
        bundles = [frozenset(map(id, piece.nodes)) for piece in self.pieces if len(piece.nodes) > 1]
        blocks = [frozenset(map(id, s.nodes)) for s in segments if s.kind == "block"]
        return all(any(block <= bundle for bundle in bundles) for block in blocks)

    def _most_layers(self, nodes: Sequence[Node]) -> int:
        """How many layers follow each other among these nodes."""
        depth: dict[str, int] = {}
        for node in nodes:
            own = max((depth.get(name, 0) for name in self.reads(node)), default=0) + is_layer(node)
            depth.update({t.name: own for t in node.outputs})
        return max(depth.values())

    # Stages

    @cached_property
    def stages(self) -> tuple[range, ...]:
        """Runs of pieces, each of which goes on with the one before it, while the same tensors pass by, and towers end
        together."""
        starts = [0]
        before = self._passing_by(0)
        for place in range(1, len(self.pieces)):
            previous, piece = self.pieces[place - 1 : place + 1]
            goes_on = any(t.name in self._read_in(piece) for node in previous.nodes for t in node.outputs)
            now = self._passing_by(place)
            if now != before or not goes_on or self._has_towers(previous) != self._has_towers(piece):
                starts.append(place)
            before = now
        return tuple(range(a, b) for a, b in itertools.pairwise([*starts, len(self.pieces)]))

    @staticmethod
    def _has_towers(piece: Segment) -> bool:
        """Whether it is of layers side by side that share their weights, or of what follows them."""
        inside = {id(node) for node in piece.nodes}
        exits = [t for node in piece.nodes for t in node.outputs if any(id(r) not in inside for r in t.outputs)]
        return len(piece.nodes) > 1 and len(exits) > 1

    @cached_property
    def shrinking(self) -> tuple[int, ...]:
        """The places of poolings and convolutions with strides."""
        nodes = ((place, node) for place, piece in enumerate(self.pieces) for node in piece.nodes)
        reducing = {"Conv", *POOLING}
        return tuple(place for place, n in nodes if n.op in reducing and max(n.attrs.get("strides", [1])) > 1)

    def _read_in(self, piece: Segment) -> set[str]:
        return set().union(*(self.reads(node) for node in piece.nodes))

    def _passing_by(self, place: int) -> frozenset[str]:
        """The maps that are made before the piece at `place` and read behind it."""
        return frozenset(name for name in self._born if self._born[name] < place < self._last_place[name])

    @cached_property
    def _place_of(self) -> dict[int, int]:
        """Of nodes by their `id`."""
        return {id(node): place for place, piece in enumerate(self.pieces) for node in piece.nodes}

    @cached_property
    def _born(self) -> dict[str, int]:
        """Where maps are made that pieces read, inputs where they are read first."""
        born = {t.name: self._place_of[id(node)] for node in self.trunk for t in node.outputs if t.name}
        given = {t.name: min(self._places(t.name)) for t in self.graph.inputs if self._places(t.name)}
        return {name: place for name, place in {**given, **born}.items() if self._is_map(name)}

    @cached_property
    def _last_place(self) -> dict[str, int]:
        return {name: max(self._places(name), default=-1) for name in self._born}

    def _places(self, name: str) -> list[int]:
        """Where a tensor is read in the trunk."""
        return [self._place_of[id(self.trunk[i])] for i in self._readers.get(name, []) if i != NOWHERE]

    # What can be removed

    def removable(self, first: int, last: int) -> int:
        """The number of channels that can be removed if the pieces `first` to `last` are a module.

        0 where there is a recurrent layer, or a body of nodes, among these: a block couldn't be trained.
        """
        if any(first <= place <= last for place in self.untrained):
            return 0
        inside = (self._extents[0] >= first) & (self._extents[1] <= last)
        boundary = [self.analysis.channels_in(name) for name in self._ends_of(first, last)]
        if boundary:
            inside[np.concatenate(boundary)] = False
        return int(inside.sum())

    @cached_property
    def untrained(self) -> tuple[int, ...]:
        """The places of layers that have no gradient."""
        return tuple(self._place_of[id(n)] for n in self.trunk if is_layer(n) and n.op not in LAYERS)

    @cached_property
    def _extents(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last place of the layers of each channel: NOWHERE and -1 where nothing can be removed."""
        analysis = self.analysis
        first, last = np.full(len(analysis.channel_of), NOWHERE), np.full(len(analysis.channel_of), -1)
        is_convolution = np.zeros(len(analysis.channel_of), bool)
        for layer in analysis.layers:
            channels = analysis.channels(layer)
            place = self._place_of.get(id(self.graph.nodes[layer.node]), NOWHERE)
            first[channels] = np.minimum(first[channels], place)
            last[channels] = np.maximum(last[channels], place)
            is_convolution[channels] |= layer.is_convolution
        fixed = ~is_convolution
        fixed[list(analysis.locks)] = True
        first[fixed] = -1
        return first, last

    def _ends_of(self, first: int, last: int) -> Iterator[str]:
        """The entries and exits of the pieces `first` to `last`."""
        made: set[str] = set()
        read: set[str] = set()
        for piece in self.pieces[first : last + 1]:
            made.update(t.name for node in piece.nodes for t in node.outputs)
            read |= self._read_in(piece)
        yield from read - made
        for name in made:
            places = self._places(name)
            if self.last_reader(name) == NOWHERE or (places and max(places) > last):
                yield name

    def module(self, name: str, span: Span) -> Module:
        pieces = self.pieces[span.first : span.last + 1]
        inside = {id(node) for piece in pieces for node in piece.nodes}
        entry = next((p.entry for p in pieces if self._is_map(p.entry)), pieces[0].entry)
        return module_of(name, self.graph, inside, entry, pieces[-1].exit)


def _weight(layer: Node) -> str:
    """The name of a layer's weight; empty where it is computed."""
    return next((t.name for t in layer.inputs if is_constant(t) and len(t.shape or ()) > 1), "")


def _with_joined(pieces: Sequence[Segment], chosen: Sequence[Segment]) -> list[Segment]:
    """The pieces, those that are chosen as one in the place of the first."""
    joined = Segment(chosen[0].entry, chosen[-1].exit, tuple(node for piece in chosen for node in piece.nodes))
    gone = {id(piece) for piece in chosen[1:]}
    return [joined if piece is chosen[0] else piece for piece in pieces if id(piece) not in gone]


def _groups_of_layers(network: _Network, span: Span) -> Iterator[Sequence[Node]]:
    """Those of other modules, and then each layer alone."""
    yield from groups_of_layers(network.pieces, span)
    for piece in network.pieces[span.first : span.last + 1]:
        yield from ([node] for node in piece.convolutions)


# From stages to modules


def _spans(network: _Network) -> list[Span]:
    found = [span for stage in network.stages for span in _of_stage(network, stage)]
    found = sorted([*found, *_of_rests(network, found)], key=lambda span: span.first)
    return _with_layers_before(network, found)


def _of_stage(network: _Network, stage: range) -> Iterator[Span]:
    """The modules of a stage by the rules for segments, without those of which nothing can be removed.

    Convolutions before the first one belong to it, but for the stem of the network.
    """
    pieces = network.pieces[stage.start : stage.stop]
    spans = closed_spans(pieces)
    layers = [place for place, piece in enumerate(pieces) if piece.convolutions]
    if spans and stage.start:
        spans[0] = replace(spans[0], first=min(spans[0].first, layers[0]))
    for span in spans:
        first, last = span.first + stage.start, span.last + stage.start
        if network.removable(first, last):
            core = (span.core[0] + stage.start, span.core[1] + stage.start)
            yield replace(span, first=first, last=last, core=core)


def _of_rests(network: _Network, spans: Sequence[Span]) -> Iterator[Span]:
    """Modules of what is left of stages: of as few neighbours as there have to be for something that can be removed."""
    for run in _runs_of_rests(network, spans):
        start = 0
        while start < len(run):
            window = _smallest_window(network, run, start)
            if window is None:
                start += 1
                continue
            first, last = run[window[0]].start, run[window[1]].stop - 1
            yield _trimmed(network, first, last)
            start = window[1] + 1


def _smallest_window(network: _Network, run: Sequence[range], start: int) -> tuple[int, int] | None:
    """The first and last one of as few neighbours from `start` on as can lose channels; without those at the front that
    don't count."""
    for end in range(start, len(run)):
        removable = network.removable(run[start].start, run[end].stop - 1)
        if removable:
            while start < end and network.removable(run[start + 1].start, run[end].stop - 1) == removable:
                start += 1
            return start, end
    return None


def _runs_of_rests(network: _Network, spans: Sequence[Span]) -> Iterator[list[range]]:
    """What no span covers, in runs between spans, cut where stages are and before what makes maps smaller."""
    bounds = [-1, *itertools.chain(*((span.first, span.last) for span in spans)), len(network.pieces)]
    for before, after in zip(bounds[::2], bounds[1::2], strict=True):
        starts = [*(stage.start for stage in network.stages), *network.shrinking]
        starts += [place + side for place in network.untrained for side in (0, 1)]
        inner = sorted({place for place in starts if before + 1 < place < after})
        yield [range(a, b) for a, b in itertools.pairwise([before + 1, *inner, after])]


def _trimmed(network: _Network, first: int, last: int) -> Span:
    """The span from the first of its layers to what follows its last one."""
    layers = [place for place in range(first, last + 1) if any(map(is_layer, network.pieces[place].nodes))]
    return Span(layers[0], through(network.pieces, layers[-1], last + 1), (layers[0], layers[-1]))


def _with_layers_before(network: _Network, spans: Sequence[Span]) -> list[Span]:
    """The spans, each but the first with the convolutions right before it, if more can be removed then."""
    extended = list(spans[:1])
    for before, span in itertools.pairwise(spans):
        gap = [p for p in range(before.last + 1, span.first) if network.pieces[p].convolutions]
        more = bool(gap) and network.removable(gap[0], span.last) > network.removable(span.first, span.last)
        extended.append(replace(span, first=gap[0]) if more else span)
    return extended
