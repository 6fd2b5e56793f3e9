"""Turns rates into pruning plans: which filters of which layers stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.data_criteria import DATA_CRITERIA, Sample, data_scores
from wootz.passes.analysis.importance import channel_scores, most_important, require_rate, sum_over_channels
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import LayerPlan, PruningPlan
from wootz.passes.pruning.cells import Cell, find_cells
from wootz.passes.pruning.counts import Families
from wootz.passes.pruning.rounding import EXACT, Rounding

NOT_ASKED = "nothing was asked of it"
Counts = Mapping[int, int]
"""How many channels each cell (by position) keeps; cells that aren't in it keep all."""


@dataclass(frozen=True, eq=False)
class Planner:
    """Makes plans for one model. What is chosen once, for a cell and a rate, is kept for the plans that follow.

    `locks` has the reason for each channel that can't be removed; `scores` has the importance of each channel by
    `criterion`, NaN where that says nothing: it alone depends on the model's weights.
    """

    analysis: ChannelAnalysis
    cells: tuple[Cell, ...]
    locks: Mapping[int, str]
    families: Families
    scores: np.ndarray
    criterion: str
    seed: int
    rounding: Rounding
    min_channels: int
    _counts: dict[tuple[tuple[int, float], ...], dict[int, int]] = field(default_factory=dict, repr=False)
    _multiples: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False)
    _removed: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    _entries: dict[tuple[int, tuple[tuple[int, int], ...]], LayerPlan] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        model: Model,
        criterion: str = "l1",
        seed: int = 0,
        rounding: Rounding = EXACT,
        min_channels: int = 1,
        analysis: ChannelAnalysis | None = None,
        sample: Sample | None = None,
    ) -> Planner:
        """The planner for `model`; `analysis` saves analysing it again, `sample` is for criteria that look at data.

        Raises WootzError for an unknown criterion, or one that lacks what it needs, and for counts below 1.
        """
        _require_counts(rounding, min_channels)
        analysis = analysis or analyse_channels(model)
        cells, locks = find_cells(analysis)
        families = Families.of(analysis, cells)
        scores = _scores(model, analysis, criterion, seed, sample)
        return Planner(analysis, cells, locks, families, scores, criterion, seed, rounding, min_channels)

    def with_weights(self, model: Model, criterion: str | None = None, sample: Sample | None = None) -> Planner:
        """The planner for `model`, which differs in its weights alone; by another criterion, if one is given."""
        criterion = criterion or self.criterion
        scores = _scores(model, self.analysis, criterion, self.seed, sample)
        return replace(self, scores=scores, criterion=criterion, _removed={}, _entries={})

    def rounding_to(self, rounding: Rounding) -> Planner:
        """The planner that rounds counts so. Raises WootzError for a multiple below 1."""
        _require_counts(rounding, self.min_channels)
        return replace(self, rounding=rounding, _counts={}, _multiples={}, _removed={}, _entries={})

    def cells_of(self, layer: int) -> tuple[int, ...]:
        """The positions of the cells that have filters in the layer at that position of the analysis."""
        return tuple(i for i, cell in enumerate(self.cells) if layer in cell.layers)

    def lock_reason(self, layer: int) -> str | None:
        """Why no filter of a layer can be removed; None when some can."""
        channels = self.analysis.channels(self.analysis.layers[layer]).tolist()
        return None if any(c not in self.locks for c in channels) else self.locks[channels[0]]

    def plan(self, rates: Mapping[int, float]) -> PruningPlan:
        """The plan that prunes each cell (by position) at its rate, and the others not.

        Raises WootzError for a rate outside [0, 1) and for different rates in the groups of a convolution.
        """
        return self.plan_counts(self.counts(rates))

    def counts(self, rates: Mapping[int, float]) -> dict[int, int]:
        """How many channels each cell (by position) keeps, so that layers keep what its rate promises.

        Cells of rate 0 keep all, and aren't in it. Raises WootzError as `plan` does.
        """
        for rate in set(rates.values()):
            require_rate(rate)
        self._require_even({i: rates.get(i, 0.0) for i in range(len(self.cells))})
        counts: dict[int, int] = {}
        for chosen in self._by_component({i: rate for i, rate in rates.items() if rate}):
            key = tuple(sorted(chosen.items()))
            if key not in self._counts:
                self._counts[key] = self.families.counts(chosen, self._multiple(chosen), self.min_channels)
            counts.update(self._counts[key])
        return counts

    def multiples(self, cells: Iterable[int]) -> set[int]:
        """Of how many filters the layers with these cells, by position, keep multiples."""
        return {self._multiple(chosen) for chosen in self._by_component(dict.fromkeys(cells, 0.0))}

    def _by_component(self, rates: Mapping[int, float]) -> Iterable[Mapping[int, float]]:
        """The rates of cells as those of their families, apart for families that share no layers."""
        of_components: dict[int, dict[int, float]] = {}
        for i, rate in rates.items():
            family = self.cells[i].family
            of_components.setdefault(self.families.component_of[family], {})[family] = rate
        return of_components.values()

    def _multiple(self, chosen: Iterable[int]) -> int:
        """Of how many filters the layers keep multiples that lose channels of the chosen families."""
        key = tuple(sorted(chosen))
        if key not in self._multiples:

            def kept(rate: float, multiple: int) -> tuple[int, ...]:
                counts = self.families.counts(dict.fromkeys(key, rate), multiple, self.min_channels)
                return tuple(counts.values()) if rate else tuple(len(self.cells[i].channels) for i in counts)

            self._multiples[key] = self.rounding.multiple_for(self.families.narrowest(key), kept)
        return self._multiples[key]

    def plan_counts(self, counts: Counts) -> PruningPlan:
        """The plan that keeps the most important channels of each cell, `counts` of them.

        Where a layer, a group or a slice of a tensor would be left without channels, its cells keep more.
        Raises WootzError when the groups of a convolution would keep unequal counts.
        """
        self._require_even({i: counts.get(i, len(cell.channels)) for i, cell in enumerate(self.cells)})
        kept = self._kept(counts)
        while (empty := self._empty_part(kept, counts)) is not None:
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
                self._entries[key] = self._entry(layer, kept, is_asked=layer in by_layer)
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
            if count < len(channels):
                self.require_scores(cell)
            self._removed[key] = np.delete(channels, most_important(self.scores[channels], count))
        return self._removed[key]

    def require_scores(self, cell: int) -> None:
        """Raises WootzError where the criterion says nothing about a channel of the cell."""
        if not np.isnan(self.scores[self.cells[cell].channels]).any():
            return
        name = self.analysis.layers[self.cells[cell].layers[0]].name
        if self.criterion == "bn-scale":
            reason = f"no BatchNormalization scales the output of {name!r} (folded into the weights? use l1)"
        else:
            reason = f"the filters of {name!r} have no importance that can be compared (NaN)"
        raise WootzError(f"criterion {self.criterion}: {reason}")

    def _entry(self, position: int, kept: np.ndarray, is_asked: bool = True) -> LayerPlan:
        layer = self.analysis.layers[position]
        keep = tuple(np.flatnonzero(kept[self.analysis.channels(layer)]).tolist())
        tied = self.analysis.tied_layers(layer)
        reason = self.lock_reason(position)
        removed = layer.size - len(keep)
        if removed:
            outcome = f"{removed} of {layer.size} filters removed"
        elif reason or not is_asked:
            outcome = reason or NOT_ASKED
        else:
            outcome = f"the rate leaves all of its {layer.size} filters"
        return LayerPlan(layer.name, layer.weight, layer.size, keep, tied, reason, outcome)

    def _kept(self, counts: Counts) -> np.ndarray:
        """bool[atoms], at each channel's own index."""
        kept = np.ones(len(self.analysis.channel_of), bool)
        for cell, count in counts.items():
            kept[self._removed_from(cell, count)] = False
        return kept

    def _empty_part(self, kept: np.ndarray, counts: Counts) -> np.ndarray | None:
        """The channels of a layer, a group or a slice that would have none left."""
        parts = self._slices
        if 0 in counts.values():
            parts = (*parts, *(self.analysis.channels(layer) for layer in self.analysis.layers))
            parts = (*parts, *(row for partition in self.analysis.partitions for row in partition))
        return next((channels for channels in parts if not kept[channels].any()), None)

    @cached_property
    def _slices(self) -> tuple[np.ndarray, ...]:
        """The channels of each set of which one has to stay, where all of them can be removed."""
        sets = [atoms for atoms in self.analysis.never_empty if (atoms >= 0).all()]
        return tuple(self.analysis.channel_of[atoms] for atoms in sets)

    def _with_one_more(self, counts: Counts, channels: np.ndarray) -> Counts:
        """The counts with one more for the cell of the most important of `channels`, and for its family."""
        best = channels[np.argmax(self.scores[channels])]
        family = next(self.cells[i].family for i in counts if best in self.cells[i].channels)
        return {i: count + (self.cells[i].family == family) for i, count in counts.items()}

    def _require_even(self, of_cells: Mapping[int, float]) -> None:
        """Raises WootzError where cells of one family differ in their rates or counts."""
        first: dict[int, int] = {}
        for i, cell in enumerate(self.cells):
            other = first.setdefault(cell.family, i)
            if of_cells[i] != of_cells[other]:
                names = sorted({self.analysis.layers[p].name for c in (cell, self.cells[other]) for p in c.layers})
                raise WootzError(
                    f"{' and '.join(map(repr, names))} feed or are the groups of one convolution and need the same rate"
                )


def _require_counts(rounding: Rounding, min_channels: int) -> None:
    for name, count in (("round-to", rounding.multiple), ("min-channels", min_channels)):
        if count < 1:
            raise WootzError(f"{name}={count} is no number of filters: it has to be at least 1")


def _scores(model: Model, analysis: ChannelAnalysis, criterion: str, seed: int, sample: Sample | None) -> np.ndarray:
    if criterion not in DATA_CRITERIA:
        return channel_scores(model, analysis, criterion, seed)
    if sample is None:
        raise WootzError(f"criterion {criterion} looks at data: data=FILE.npz")
    return sum_over_channels(analysis, data_scores(model, analysis, criterion, sample))
