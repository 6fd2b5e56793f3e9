"""Cells: the channels among which a rate chooses.

A cell holds the channels with filters in the same layers and in the same groups of grouped convolutions. The same
fraction of each cell is kept, so that tied layers agree and every group of a convolution keeps equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis

MISALIGNED = "grouped convolutions whose groups don't line up with the layers before them"


@dataclass(frozen=True, eq=False)
class Cell:
    """`channels`, ascending, with filters in the layers at the positions `layers` of the analysis.

    Cells of one family (the same layers, partitions and size) are the groups of grouped convolutions, and have to
    keep equally many.
    """

    channels: np.ndarray
    layers: tuple[int, ...]
    partitions: tuple[int, ...] = ()

    @property
    def family(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        return self.layers, self.partitions, len(self.channels)


def find_cells(analysis: ChannelAnalysis) -> tuple[tuple[Cell, ...], Mapping[int, str]]:
    """The cells of channels that can be removed, and the reason for each channel that can't."""
    locks = dict(analysis.locks)
    cells = _cells(analysis)
    while uneven := _uneven_channels(analysis, cells):
        for cell in cells:
            if not uneven.isdisjoint(cell.channels.tolist()):
                locks.update(dict.fromkeys(cell.channels.tolist(), MISALIGNED))
        cells = tuple(cell for cell in cells if int(cell.channels[0]) not in locks)
    return cells, locks


def _cells(analysis: ChannelAnalysis) -> tuple[Cell, ...]:
    rows: dict[int, list[tuple[int, int]]] = {}
    for p, partition in enumerate(analysis.partitions):
        for r, row in enumerate(partition):
            for channel in np.unique(row).tolist():
                rows.setdefault(channel, []).append((p, r))
    members: dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], list[int]] = {}
    for channel, layers in sorted(analysis.layer_sets.items()):
        if channel not in analysis.locks:
            members.setdefault((layers, tuple(rows.get(channel, ()))), []).append(channel)
    return tuple(
        Cell(np.asarray(channels, np.int32), layers, tuple(p for p, _ in places))
        for (layers, places), channels in members.items()
    )


def _uneven_channels(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> set[int]:
    """The free channels of partitions whose rows aren't made of cells of equal sizes: equal rates would leave
    unequal counts."""
    cell_of = np.full(len(analysis.channel_of), -1, np.int32)
    for i, cell in enumerate(cells):
        cell_of[cell.channels] = i
    uneven: set[int] = set()
    for partition in analysis.partitions:
        free = cell_of[partition] >= 0
        sizes = [
            sorted(np.unique(row[is_free], return_counts=True)[1].tolist())
            for row, is_free in zip(cell_of[partition], free, strict=True)
        ]
        if any(s != sizes[0] for s in sizes):
            uneven.update(partition[free].tolist())
    return uneven
