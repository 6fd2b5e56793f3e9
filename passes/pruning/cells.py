"""Cells: the channels among which a rate chooses.

A cell holds the channels with equally many filters in the same layers and in the same groups of grouped convolutions.
About the same fraction of each cell is kept (see `counts`), so that tied layers agree. Cells that stand for each other
in the groups of a convolution are a family: they have to keep equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.index_maps import connected, split

MISALIGNED = "grouped convolutions whose groups don't line up with the layers before them"


@dataclass(frozen=True, eq=False)
class Cell:
    """`channels`, ascending, with equally many filters in each of the layers at the positions `layers` of the analysis.

    Cells with the same `family` have equally many channels and have to keep equally many.
    """

    channels: np.ndarray
    layers: tuple[int, ...]
    family: int = 0


def find_cells(analysis: ChannelAnalysis) -> tuple[tuple[Cell, ...], Mapping[int, str]]:
    """The cells of channels that can be removed, and the reason for each channel that can't."""
    locks = dict(analysis.locks)
    cells = _cells(analysis)
    while uneven := {cell for table in _tables(analysis, cells) if not table.is_even for cell in table.cells.tolist()}:
        for i in uneven:
            locks.update(dict.fromkeys(cells[i].channels.tolist(), MISALIGNED))
        cells = tuple(cell for i, cell in enumerate(cells) if i not in uneven)
    families = connected(len(cells), (table.ties() for table in _tables(analysis, cells)))
    return tuple(replace(cell, family=int(f)) for cell, f in zip(cells, families, strict=True)), locks


def _cells(analysis: ChannelAnalysis) -> tuple[Cell, ...]:
    """The cells, by their first channels."""
    kinds, layers_of_kind = analysis.kinds
    classes = kinds.copy()
    for layer in analysis.layers:
        channels, filters = np.unique(analysis.channels(layer), return_counts=True)
        if (filters != filters[0]).any():
            split(classes, channels, filters)
    for partition in analysis.partitions:
        _split_by_rows(classes, partition)
    is_free = kinds > 0
    is_free[list(analysis.locks)] = False
    free = np.flatnonzero(is_free)
    if not free.size:
        return ()
    order = np.argsort(classes[free], kind="stable")
    ends = np.flatnonzero(np.diff(classes[free][order])) + 1
    members = sorted(np.split(free[order].astype(np.int32), ends), key=lambda channels: int(channels[0]))
    return tuple(Cell(channels, layers_of_kind[kinds[channels[0]]]) for channels in members)


def _split_by_rows(classes: np.ndarray, partition: np.ndarray) -> None:
    """Parts channels of one class that are in different rows. A channel in several rows is parted by each of them."""
    rows = np.repeat(np.arange(len(partition)), partition.shape[1])
    pairs = np.unique(partition.ravel().astype(np.int64) * len(partition) + rows)
    channels, rows = pairs // len(partition), pairs % len(partition)
    while len(channels):
        is_first = np.append(True, channels[1:] != channels[:-1])
        first = channels[is_first]
        split(classes, first, rows[is_first])
        channels, rows = channels[~is_first], rows[~is_first]


@dataclass(frozen=True, eq=False)
class _Table:
    """The cells in the rows of a partition, row by row, those of a row by size and by how often it has their channels.

    All arrays are int[places]; `often` is 0 where a row hasn't all channels of the cell equally often.
    """

    row_count: int
    rows: np.ndarray
    sizes: np.ndarray
    often: np.ndarray
    cells: np.ndarray

    @property
    def is_even(self) -> bool:
        """Whether all rows are made of like cells: with others they couldn't keep equally many."""
        if not len(self.rows):
            return True
        counts = np.bincount(self.rows, minlength=self.row_count)
        if (counts != counts[0]).any() or not self.often.all():
            return False
        sizes, often = (column.reshape(self.row_count, -1) for column in (self.sizes, self.often))
        return bool((sizes == sizes[0]).all() and (often == often[0]).all())

    def ties(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells at the same place of different rows, for an even table."""
        cells = self.cells.reshape(self.row_count, -1)
        return np.broadcast_to(cells[0], cells.shape), cells


def _tables(analysis: ChannelAnalysis, cells: Sequence[Cell]) -> list[_Table]:
    """One table for each partition."""
    cell_of = np.full(len(analysis.channel_of), -1, np.int64)
    for i, cell in enumerate(cells):
        cell_of[cell.channels] = i
    sizes = np.asarray([len(cell.channels) for cell in cells], np.int64)
    return [_table(partition, cell_of, sizes) for partition in analysis.partitions]


def _table(partition: np.ndarray, cell_of: np.ndarray, sizes: np.ndarray) -> _Table:
    rows = np.repeat(np.arange(len(partition)), partition.shape[1])
    pairs, counts = np.unique(rows * len(cell_of) + partition.ravel(), return_counts=True)
    rows, cells = pairs // len(cell_of), cell_of[pairs % len(cell_of)]
    is_free = cells >= 0
    places, place = np.unique(rows[is_free] * len(sizes) + cells[is_free], return_inverse=True)
    least, most = np.full(len(places), partition.shape[1]), np.zeros(len(places), np.int64)
    np.minimum.at(least, place, counts[is_free])
    np.maximum.at(most, place, counts[is_free])
    rows, cells, often = places // max(1, len(sizes)), places % max(1, len(sizes)), np.where(least == most, most, 0)
    order = np.lexsort((cells, often, sizes[cells], rows))
    return _Table(len(partition), rows[order], sizes[cells][order], often[order], cells[order])
