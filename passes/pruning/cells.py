"""Cells: the channels among which a rate chooses.

A cell holds the channels with filters in the same layers and in the same groups of grouped convolutions. The same
fraction of each cell is kept, so that tied layers agree. Cells that stand for each other in the groups of a
convolution are a family: they have to keep equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.index_maps import connected

MISALIGNED = "grouped convolutions whose groups don't line up with the layers before them"


@dataclass(frozen=True, eq=False)
class Cell:
    """`channels`, ascending, with filters in the layers at the positions `layers` of the analysis.

    Cells with the same `family` have equally many channels and have to keep equally many.
    """

    channels: np.ndarray
    layers: tuple[int, ...]
    family: int = 0


def find_cells(analysis: ChannelAnalysis) -> tuple[tuple[Cell, ...], Mapping[int, str]]:
    """The cells of channels that can be removed, and the reason for each channel that can't."""
    locks = dict(analysis.locks)
    cells = _cells(analysis)
    while uneven := _uneven_channels(analysis, cells):
        for cell in cells:
            if not uneven.isdisjoint(cell.channels.tolist()):
                locks.update(dict.fromkeys(cell.channels.tolist(), MISALIGNED))
        cells = tuple(cell for cell in cells if int(cell.channels[0]) not in locks)
    families = _families(analysis, cells)
    return tuple(replace(cell, family=int(f)) for cell, f in zip(cells, families, strict=True)), locks


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
    return tuple(Cell(np.asarray(channels, np.int32), layers) for (layers, _), channels in members.items())


Place = tuple[int, int, int]
"""A cell in a row of a partition: its size, how often the row has each of its channels (0: not all alike), the cell."""


def _rows(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> list[list[list[Place]]]:
    """For each partition and row the cells in it, sorted."""
    cell_of = np.full(len(analysis.channel_of), -1, np.int32)
    for i, cell in enumerate(cells):
        cell_of[cell.channels] = i
    return [[_places(row, cell_of, cells) for row in partition] for partition in analysis.partitions]


def _places(row: np.ndarray, cell_of: np.ndarray, cells: Sequence[Cell]) -> list[Place]:
    channels, counts = np.unique(row, return_counts=True)
    places = []
    for i in np.unique(cell_of[channels]).tolist():
        if i >= 0:
            often = counts[cell_of[channels] == i]
            places.append((len(cells[i].channels), int(often[0]) if (often == often[0]).all() else 0, i))
    return sorted(places)


def _uneven_channels(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> set[int]:
    """The free channels of partitions whose rows aren't made of like cells: they couldn't keep equally many."""
    uneven: set[int] = set()
    for rows in _rows(analysis, cells):
        kinds = [[(size, often) for size, often, _ in row] for row in rows]
        if any(kind != kinds[0] for kind in kinds) or any(often == 0 for _, often in kinds[0]):
            uneven.update(int(c) for row in rows for *_, i in row for c in cells[i].channels)
    return uneven


def _families(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> np.ndarray:
    """A number for each cell; equal for cells at the same place of different rows."""
    ties = [
        (np.asarray([i for *_, i in rows[0]], np.int32), np.asarray([i for *_, i in row], np.int32))
        for rows in _rows(analysis, cells)
        for row in rows[1:]
    ]
    return connected(len(cells), ties)
