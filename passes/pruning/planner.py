"""Turns rates into pruning plans: which filters of which layers stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.data_criteria import DATA_CRITERIA, Sample, data_scores
from wootz.passes.analysis.importance import channel_scores, kept_count, most_important, sum_over_channels
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import LayerPlan, PruningPlan
from wootz.passes.pruning.cells import Cell, find_cells

Counts = Mapping[int, int]
"""How many channels each cell (by position) keeps; cells that aren't in it keep all."""


@dataclass(frozen=True, eq=False)
class Planner:
    """Makes plans for one model. What is chosen once, for a cell and a rate, is kept for the plans that follow.

    `scores` has the importance of each channel, `locks` the reason for each channel that can't be removed.
    """

    analysis: ChannelAnalysis
    cells: tuple[Cell, ...]
    locks: Mapping[int, str]
    scores: np.ndarray
    round_to: int = 1
    min_channels: int = 1
    _removed: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    _entries: dict[tuple[int, tuple[tuple[int, int], ...]], LayerPlan] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        model: Model,
        criterion: str = "l1",
        seed: int = 0,
        round_to: int = 1,
        min_channels: int = 1,
        analysis: ChannelAnalysis | None = None,
        sample: Sample | None = None,
    ) -> Planner:
        """The planner for `model`; `analysis` saves analysing it again, `sample` is for criteria that look at data.

        Raises WootzError for an unknown criterion, or one that lacks what it needs, and for counts below 1.
        """
        for name, count in (("round-to", round_to), ("min-channels", min_channels)):
            if count < 1:
                raise WootzError(f"{name}={count} is no number of filters: it has to be at least 1")
        analysis = analysis or analyse_channels(model)
        cells, locks = find_cells(analysis)
        if criterion in DATA_CRITERIA:
            if sample is None:
                raise WootzError(f"criterion {criterion} looks at data: data=FILE.npz")
            scores = sum_over_channels(analysis, data_scores(model, analysis, criterion, sample))
        else:
            scores = channel_scores(model, analysis, criterion, seed)
        return Planner(analysis, cells, locks, scores, round_to, min_channels)

    def cells_of(self, layer: int) -> tuple[int, ...]:
        """The positions of the cells that have filters in the layer at that position of the analysis."""
        return tuple(i for i, cell in enumerate(self.cells) if layer in cell.layers)

    def lock_reason(self, layer: int) -> str | None:
        """Why no filter of a layer can be removed; None when some can."""
        channels = self.analysis.channels(self.analysis.layers[layer]).tolist()
        return None if any(c not in self.locks for c in channels) else self.locks[channels[0]]

    def plan(self, rates: Mapping[int, float]) -> PruningPlan:
        """The plan that prunes each cell (by position) at its rate. Raises WootzError for a rate outside [0, 1)."""
        return self.plan_counts(
            {
                cell: kept_count(len(self.cells[cell].channels), rate, self.round_to, self.min_channels)
                for cell, rate in rates.items()
            }
        )

    def plan_counts(self, counts: Counts) -> PruningPlan:
        """The plan that keeps the most important channels of each cell, `counts` of them.

        Where a slice of a tensor would be left without channels, its cells keep more.
        Raises WootzError when the groups of a convolution would keep unequal counts.
        """
        self._require_even(counts)
        kept = self._kept(counts)
        while (empty := self._empty_slice(kept)) is not None:
            counts = self._with_one_more(counts, empty)
            kept = self._kept(counts)
        by_layer: dict[int, list[tuple[int, int]]] = {}
        for cell, count in counts.items():
            for layer in self.cells[cell].layers:
                by_layer.setdefault(layer, []).append((cell, count))
        entries = []
        for layer in range(len(self.analysis.layers)):
            key = (layer, tuple(by_layer.get(layer, ())))
            if key not in self._entries:
                self._entries[key] = self._entry(layer, kept)
            entries.append(self._entries[key])
        return PruningPlan(tuple(entries))

    def plan_of_kept(self, kept: np.ndarray) -> PruningPlan:
        """The plan that keeps the channels flagged in `kept`: bool[atoms], read at each channel's own index."""
        return PruningPlan(tuple(self._entry(i, kept) for i in range(len(self.analysis.layers))))

    def _removed_from(self, cell: int, count: int) -> np.ndarray:
        """The channels that a cell loses when it keeps `count`."""
        key = (cell, count)
        if key not in self._removed:
            channels = self.cells[cell].channels
            self._removed[key] = np.delete(channels, most_important(self.scores[channels], count))
        return self._removed[key]

    def _entry(self, position: int, kept: np.ndarray) -> LayerPlan:
        layer = self.analysis.layers[position]
        keep = tuple(np.flatnonzero(kept[self.analysis.channels(layer)]).tolist())
        tied = self.analysis.tied_layers(layer)
        return LayerPlan(layer.name, layer.weight, layer.size, keep, tied, self.lock_reason(position))

    def _kept(self, counts: Counts) -> np.ndarray:
        """bool[atoms], at each channel's own index."""
        kept = np.ones(len(self.analysis.channel_of), bool)
        for cell, count in counts.items():
            kept[self._removed_from(cell, count)] = False
        return kept

    def _empty_slice(self, kept: np.ndarray) -> np.ndarray | None:
        """The channels of a slice that would have none left."""
        for atoms in self.analysis.never_empty:
            channels = self.analysis.channel_of[atoms[atoms >= 0]]
            if len(channels) == len(atoms) and not kept[channels].any():
                return channels
        return None

    def _with_one_more(self, counts: Counts, channels: np.ndarray) -> Counts:
        """The counts with one more for the cell of the most important of `channels`, and for its family."""
        best = channels[np.argmax(self.scores[channels])]
        family = next(self.cells[i].family for i in counts if best in self.cells[i].channels)
        return {i: count + (self.cells[i].family == family) for i, count in counts.items()}

    def _require_even(self, counts: Counts) -> None:
        first: dict[int, int] = {}
        for i, cell in enumerate(self.cells):
            count = counts.get(i, len(cell.channels))
            other = first.setdefault(cell.family, i)
            if count != counts.get(other, len(self.cells[other].channels)):
                names = sorted({self.analysis.layers[p].name for c in (cell, self.cells[other]) for p in c.layers})
                raise WootzError(
                    f"{' and '.join(map(repr, names))} feed or are the groups of one convolution and need the same rate"
                )
