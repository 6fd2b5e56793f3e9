"""How many channels each cell keeps, so that every layer keeps as many filters as its rate promises.

A rate is a promise about a layer. The filters of a layer may lie in several cells (the groups of a grouped convolution,
the parts of a Split), and a channel may have several filters of a layer (behind a PixelShuffle). So a layer's total is
computed first and apportioned among its families of cells by largest remainder (Hamilton's method); a layer of more
families comes before those of fewer, whose totals follow where they share families.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.importance import rounded_count
from wootz.passes.analysis.index_maps import connected
from wootz.passes.pruning.cells import Cell


@dataclass(frozen=True, eq=False)
class Families:
    """The families of cells, and how many filters of which layers one more channel in each cell of a family is.

    `members` are positions of cells, `sizes` the channels of one cell, by family. `weights` has for each layer (by its
    position in the analysis) the filters of it that one slot of a family holds.
    """

    members: Mapping[int, tuple[int, ...]]
    sizes: Mapping[int, int]
    weights: Mapping[int, Mapping[int, int]]

    @staticmethod
    def of(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> Families:
        members: dict[int, tuple[int, ...]] = {}
        for i, cell in enumerate(cells):
            members[cell.family] = (*members.get(cell.family, ()), i)
        cell_of = np.full(len(analysis.channel_of), len(cells))
        for i, cell in enumerate(cells):
            cell_of[cell.channels] = i
        weights: dict[int, dict[int, int]] = {}
        for position, layer in enumerate(analysis.layers):
            filters = np.bincount(cell_of[analysis.channels(layer)], minlength=len(cells) + 1)
            for i in np.flatnonzero(filters[:-1]).tolist():
                a_layer = weights.setdefault(position, {})
                a_slot = int(filters[i]) // len(cells[i].channels)
                a_layer[cells[i].family] = a_layer.get(cells[i].family, 0) + a_slot
        return Families(members, {f: len(cells[m[0]].channels) for f, m in members.items()}, weights)

    @cached_property
    def component_of(self) -> Mapping[int, int]:
        """For each family the smallest one that shares layers with it, directly or not."""
        ties = [(np.full(len(row), min(row)), np.fromiter(row, int)) for row in self.weights.values()]
        root = connected(max(self.members, default=-1) + 1, ties)
        return {family: int(root[family]) for family in self.members}

    def narrowest(self, families: Collection[int]) -> int:
        """Of the filters of a layer that these families hold, the fewest."""
        held = ([w * self.sizes[f] for f, w in row.items() if f in families] for row in self.weights.values())
        return min((sum(filters) for filters in held if filters), default=0)

    def counts(self, rates: Mapping[int, float], round_to: int, at_least: int) -> dict[int, int]:
        """How many channels each cell of the families keeps that `rates` (family -> rate above 0) names."""
        ideal = {f: self.sizes[f] * (1 - rate) for f, rate in rates.items()}
        kept: dict[int, int] = {}
        shares = {layer: {f: w for f, w in row.items() if f in rates} for layer, row in self.weights.items()}
        for layer in sorted(shares, key=lambda layer: (-len(shares[layer]), layer)):
            weights = shares[layer]
            open_ = [f for f in weights if f not in kept]
            if open_:
                filters = sum(w * self.sizes[f] for f, w in weights.items())
                promised = sum(w * ideal[f] for f, w in weights.items())
                fixed = sum(w * kept[f] for f, w in weights.items() if f in kept)
                part = _Part([weights[f] for f in open_], [ideal[f] for f in open_], [self.sizes[f] for f in open_])
                for total in _totals(filters, promised, round_to, at_least):
                    chosen = part.apportion(total - fixed)
                    if fixed + part.filters(chosen) == total:
                        break
                else:
                    chosen = part.apportion(rounded_count(promised, filters, round_to, at_least) - fixed)
                kept.update(zip(open_, chosen, strict=True))
        return {i: count for f, count in kept.items() for i in self.members[f]}


def _totals(filters: int, promised: float, round_to: int, at_least: int) -> Iterable[int]:
    """What a layer may keep, the best first: what is promised, then other multiples of `round_to`, by nearness."""
    best = rounded_count(promised, filters, round_to, at_least)
    yield best
    if round_to > 1:
        multiples = range(max(round_to, -(-at_least // round_to) * round_to), filters + 1, round_to)
        yield from sorted(multiples, key=lambda total: abs(total - best))


@dataclass(frozen=True)
class _Part:
    """Families among which a total is apportioned: of each the filters of a slot, the ideal slots and all slots."""

    weights: Sequence[int]
    ideal: Sequence[float]
    sizes: Sequence[int]

    def filters(self, slots: Sequence[int]) -> int:
        return sum(w * k for w, k in zip(self.weights, slots, strict=True))

    def apportion(self, total: int) -> list[int]:
        """Slots that hold at most `total` filters and nearly as many, in proportion to what is ideal.

        Each family keeps one slot at least if there is room for that.
        """
        least = 1 if sum(self.weights) <= total or len(self.weights) == 1 else 0
        ideal_total = sum(w * x for w, x in zip(self.weights, self.ideal, strict=True))
        scale = total / ideal_total if ideal_total else 0.0
        quotas = [x * scale for x in self.ideal]
        slots = [min(size, max(least, int(q + 1e-9))) for q, size in zip(quotas, self.sizes, strict=True)]
        while self.filters(slots) > total:
            above = [i for i, k in enumerate(slots) if k > least]
            if not above:
                break
            slots[max(above, key=lambda i: slots[i] - quotas[i])] -= 1
        while True:
            room = total - self.filters(slots)
            open_ = [i for i, k in enumerate(slots) if k < self.sizes[i] and self.weights[i] <= room]
            if not open_:
                return slots
            slots[max(open_, key=lambda i: quotas[i] - slots[i])] += 1
