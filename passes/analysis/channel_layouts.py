"""Tensors whose channels lie along several axes, as between the two Reshapes of a channel shuffle.

Removing channels leaves such a tensor a box only if every row loses the same columns. Where all that is done in such
a layout is to move channels, the nodes can be replaced by a Gather and nothing has to be tied; everywhere else the
rows are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channel_rules import MOVEMENTS, move
from wootz.passes.analysis.channel_walk import ChannelWalk
from wootz.passes.analysis.index_maps import along, connected, varying_axes
from wootz.passes.ir.model import Node, Tensor


@dataclass(frozen=True, eq=False)
class Permutation:
    """Nodes that only move channels: `exit` is `entry` taken at `positions` along `axis`.

    `nodes` are their positions in the graph, `inner` the tensors between them.
    """

    entry: str
    exit: str
    axis: int
    positions: np.ndarray
    nodes: frozenset[int]
    inner: tuple[str, ...]


def settle_layouts(walk: ChannelWalk) -> tuple[Permutation, ...]:
    """Finds the permutations, and ties the rows of every other tensor with channels along several axes."""
    spread = {name: labels for name, labels in walk.maps.items() if len(varying_axes(labels)) > 1}
    if not spread:
        return ()
    permutations: list[Permutation] = []
    free: set[str] = set()
    for node in walk.graph.nodes:
        if node.op in MOVEMENTS and node.outputs[0].name in spread and node.inputs[0].name not in spread:
            found = _permutations_from(walk, node, spread)
            permutations += found
            free.update(name for permutation in found for name in permutation.inner)
    rows = _Rows(walk)
    seen: set[tuple[tuple[int, ...], bytes]] = set()
    for name, labels in spread.items():
        key = (labels.shape, labels.tobytes())
        if name not in free and key not in seen:
            seen.add(key)
            rows.tie(labels)
    return tuple(permutations)


def _permutations_from(walk: ChannelWalk, root: Node, spread: dict[str, np.ndarray]) -> list[Permutation]:
    """The permutations that begin with `root`; none if anything else than a movement reads a tensor on the way."""
    entry = root.inputs[0]
    axes = varying_axes(walk.map(entry))
    if len(axes) != 1:
        return []
    rank, extent = walk.map(entry).ndim, walk.map(entry).shape[axes[0]]
    moved = {entry.name: along(np.arange(extent, dtype=np.int32), axes[0], rank)}
    nodes, inner, exits = [root], [], []
    pending = [root]
    while pending:
        node = pending.pop()
        result = node.outputs[0]
        positions = move(walk, node, moved[node.inputs[0].name])
        if positions is None:
            return []
        moved[result.name] = positions
        if result.name not in spread:
            exits.append(result)
            continue
        inner.append(result.name)
        consumers = list(result.outputs)
        if not consumers or any(c.op not in MOVEMENTS for c in consumers) or result in walk.graph.outputs:
            return []
        nodes += consumers
        pending += consumers
    if not all(_is_permuted(walk, entry, tensor, moved[tensor.name], axes[0]) for tensor in exits):
        return []
    where = frozenset(walk.position(node) for node in nodes)
    return [Permutation(entry.name, t.name, axes[0], moved[t.name].ravel(), where, tuple(inner)) for t in exits]


def _is_permuted(walk: ChannelWalk, entry: Tensor, exit: Tensor, positions: np.ndarray, axis: int) -> bool:
    """Whether `exit` differs from `entry` along `axis` alone, in the order of its elements."""
    return walk.shape(entry) == walk.shape(exit) and varying_axes(positions) in ((axis,), ())


class _Rows:
    """Ties the rows of maps. `channels` has the channel of each atom as far as it is known: int32[atoms]."""

    def __init__(self, walk: ChannelWalk):
        self.walk = walk
        self.channels = connected(walk.atoms, walk.ties)
        self.locked = np.zeros(walk.atoms + 1, bool)
        self.locked[-1] = True  # NO_ATOM
        self._lock(walk.locks)

    def tie(self, labels: np.ndarray) -> None:
        """Ties all rows of a map, where a row lies along the last axis that varies; maps that are settled stay."""
        known = np.where(labels >= 0, self.channels[labels], -1)
        axes = varying_axes(known)
        if self.locked[known].all():
            return
        for axis in axes:
            others = tuple(a for a in axes if a != axis)
            if (known == known[tuple(slice(0, 1) if a in others else slice(None) for a in range(known.ndim))]).all():
                return
        row = labels[tuple(slice(0, 1) if a in axes[:-1] else slice(None) for a in range(labels.ndim))]
        ties, locks = len(self.walk.ties), len(self.walk.locks)
        self.walk.tie(labels, row, "its channels lie beside others that can't be removed")
        new = [(self.channels[a], self.channels[b]) for a, b in self.walk.ties[ties:]]
        merged = connected(self.walk.atoms, new)
        self.channels = merged[self.channels]
        locked = np.flatnonzero(self.locked[:-1])
        self.locked[merged[locked]] = True
        self._lock(self.walk.locks[locks:])

    def _lock(self, locks: Iterable[tuple[np.ndarray, str]]) -> None:
        for atoms, _ in locks:
            self.locked[self.channels[atoms]] = True
