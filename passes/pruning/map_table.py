"""The index maps of a network, each content once: what loses channels is found in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis


@dataclass(frozen=True, eq=False)
class MapTable:
    """Maps that differ in shape alone, or not at all, are one row.

    `labels` has the rows behind each other: int32[elements]; `starts` says where: int[rows + 1]. `of_tensors` has the
    row of each tensor's map, `of_parameters` the rows of the maps of each parameter use.
    """

    labels: np.ndarray
    starts: np.ndarray
    of_tensors: Mapping[str, int]
    of_parameters: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(analysis: ChannelAnalysis) -> MapTable:
        rows: dict[bytes, int] = {}
        labels: list[np.ndarray] = []

        def row(map_: np.ndarray) -> int:
            content = map_.tobytes()
            if content not in rows:
                rows[content] = len(rows)
                labels.append(map_.ravel())
            return rows[content]

        of_tensors = {name: row(map_) for name, map_ in analysis.maps.items()}
        of_parameters = tuple(tuple(row(map_) for map_ in use.maps) for use in analysis.parameters)
        starts = np.cumsum([0, *(len(line) for line in labels)])
        return MapTable(np.concatenate(labels or [np.zeros(0, np.int32)]), starts, of_tensors, of_parameters)

    def lossy(self, kept: np.ndarray) -> dict[int, np.ndarray]:
        """The rows that lose an atom, with what stays in them: bool[elements of the row]. `kept`: bool[atoms + 1]."""
        if not len(self.labels):
            return {}
        flags = kept[self.labels]
        changed = np.flatnonzero(~np.logical_and.reduceat(flags, self.starts[:-1]))
        return {row: flags[self.starts[row] : self.starts[row + 1]] for row in changed.tolist()}
