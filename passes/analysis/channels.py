"""Which channels belong together: the channel analysis.

Every filter of every layer (convolution or fully connected) is an *atom*. The analysis runs the graph on index maps:
each tensor carries an integer array, broadcastable to its shape, whose entries name the atom that an element belongs
to. A Transpose transposes the map, a Concat concatenates maps; an Add ties the atoms that meet; a convolution makes
new atoms, and notes which of its weights are indexed by which. Atoms tied together are one *channel*: kept or removed
as one. `channel_rules` has the rules, one an operator.

Some channels are locked, with the reason: those of graph outputs, those that an operator couples to others (LRN,
LayerNorm, a softmax over channels: removal is not zeroing there), and whatever an operator without a rule reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channel_layouts import Permutation, settle_layouts
from wootz.passes.analysis.channel_rules import walk_node
from wootz.passes.analysis.channel_walk import ChannelWalk, Layer, ParameterUse, ShapeUse, UniformUse
from wootz.passes.analysis.index_maps import connected
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.ir.model import Graph, Model


@dataclass(frozen=True, eq=False)
class ChannelAnalysis:
    """What the index maps of a model say: of its structure, whatever its weights are.

    `channel_of` names each atom's channel by the smallest atom in it: int32[atoms]; atoms that no layer has are
    constant channels (padding, filled or constant parts of a Concat). `locks` has the reason for each locked channel.
    `maps` has the index map of each tensor that has one. `computed` names the parameters that are computed from
    constants (see `parameter_values`). Every row of a partition (int[groups, n], channels) has to keep equally many; of
    each set in `never_empty` one atom has to stay. `shapes` and `values` are those of `static_shapes`.
    """

    layers: tuple[Layer, ...]
    channel_of: np.ndarray
    locks: Mapping[int, str]
    parameters: tuple[ParameterUse, ...]
    computed: tuple[str, ...]
    uniform_uses: tuple[UniformUse, ...]
    shape_uses: tuple[ShapeUse, ...]
    permutations: tuple[Permutation, ...]
    partitions: tuple[np.ndarray, ...]
    never_empty: tuple[np.ndarray, ...]
    maps: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...] | None]
    values: Mapping[str, np.ndarray]

    @cached_property
    def locked(self) -> np.ndarray:
        """bool[atoms]: whether the atom's channel is locked."""
        flags = np.zeros(len(self.channel_of), bool)
        flags[list(self.locks)] = True
        return flags[self.channel_of]

    @cached_property
    def kinds(self) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
        """Which layers have filters in a channel: the kind of each channel, and for each kind the positions of layers.

        Kinds are int32[atoms], at the channel's own index; 0, of no layers, elsewhere.
        """
        kind_of = np.zeros(len(self.channel_of), np.int32)
        positions: list[tuple[int, ...]] = [()]
        for position, layer in enumerate(self.layers):
            channels = np.unique(self.channels(layer))
            before, new = np.unique(kind_of[channels], return_inverse=True)
            kind_of[channels] = len(positions) + new
            positions += [(*positions[kind], position) for kind in before.tolist()]
        return kind_of, tuple(positions)

    def layers_with(self, channels: np.ndarray) -> tuple[int, ...]:
        """The positions in `layers` of those with filters in any of `channels`."""
        kind_of, positions = self.kinds
        return tuple(sorted({p for kind in np.unique(kind_of[channels]).tolist() for p in positions[kind]}))

    def channels(self, layer: Layer) -> np.ndarray:
        """The channel of each filter of `layer`: int32[filters]."""
        return self.channel_of[layer.atoms]

    def channels_in(self, tensor: str) -> np.ndarray:
        """The channels that occur in a tensor, ascending."""
        labels = self.maps.get(tensor, np.zeros(0, np.int32))
        return np.unique(self.channel_of[labels[labels >= 0]])

    def lock_reason(self, layer: Layer) -> str | None:
        """Why no filter of `layer` can be removed; None when some can."""
        return self.locks[int(self.channels(layer)[0])] if self.locked[layer.atoms].all() else None

    def tied_layers(self, layer: Layer) -> tuple[str, ...]:
        """The names of the other layers with filters in the channels of `layer`."""
        together = self.layers_with(self.channels(layer))
        return tuple(self.layers[p].name for p in together if self.layers[p] is not layer)


def analyse_channels(model: Model, lock_outputs: bool = True) -> ChannelAnalysis:
    """The channels of `model`; those of its outputs are locked, unless `lock_outputs` is False.

    Raises VerificationError when the model's shapes contradict each other.
    """
    static = static_shapes(model)
    walk = ChannelWalk(model.graph, static, node_names(model.graph))
    for node in model.graph.nodes:
        walk_node(walk, node)
    for output in model.graph.outputs:
        if lock_outputs and walk.is_labelled(output):
            walk.lock(walk.map(output), f"output {output.name!r} of the network")
    _tie_shared_weights(walk)
    permutations = settle_layouts(walk)
    channel_of = connected(walk.atoms, walk.ties)
    return ChannelAnalysis(
        layers=tuple(walk.layers),
        channel_of=channel_of,
        locks=_locked_channels(walk, channel_of),
        parameters=tuple(walk.parameters),
        computed=walk.constants.asked_for,
        uniform_uses=tuple(walk.uniform_uses),
        shape_uses=tuple(walk.shape_uses),
        permutations=permutations,
        partitions=tuple(channel_of[atoms] for atoms in walk.partitions),
        never_empty=tuple(walk.never_empty),
        maps=walk.maps,
        shapes=static.shapes,
        values=static.values,
    )


def node_names(graph: Graph) -> dict[int, str]:
    """A unique name for each node (by position): its own, or its first output's where it has none of its own.

    Where that is another node's own name, a number is added.
    """
    counts = Counter(node.name for node in graph.nodes)
    names = {i: node.name for i, node in enumerate(graph.nodes) if node.name and counts[node.name] == 1}
    taken = dict.fromkeys(names.values(), 1)
    for i, node in enumerate(graph.nodes):
        if i not in names:
            output = name = next(t.name for t in node.outputs if t.name)
            while name in taken:
                taken[output] += 1
                name = f"{output}_{taken[output]}"
            names[i] = name
            taken[name] = 1
    return names


def _tie_shared_weights(walk: ChannelWalk) -> None:
    """Layers that share a weight share filters and inputs. Vectors are copied instead, when they have to differ."""
    first: dict[str, ParameterUse] = {}
    for use in walk.parameters:
        if len(use.maps) == 2:
            for a, b in zip(first.setdefault(use.constant, use).maps, use.maps, strict=True):
                if a is not b and a.shape == b.shape:
                    walk.tie(a, b, f"weight {use.constant!r} is shared with a layer where it can't be pruned")
                elif a is not b:
                    for labels in (a, b):
                        walk.lock(labels, f"weight {use.constant!r} is shared in different layouts")


def _locked_channels(walk: ChannelWalk, channel_of: np.ndarray) -> dict[int, str]:
    """The first reason for each locked channel."""
    locks: dict[int, str] = {}
    for atoms, reason in walk.locks:
        for channel in np.unique(channel_of[atoms]).tolist():
            locks.setdefault(channel, reason)
    return locks
