"""Prunes the convolution modules of one network by many configurations, their top layers left whole, or leaves modules
out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.data_criteria import Sample
from wootz.passes.analysis.importance import require_rate
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Module, module_nodes, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.pruning import PruningPlan, SkippedModule
from wootz.passes.plan.subspace import SKIP, Rate
from wootz.passes.pruning.input_sources import InputSources, find_input_sources
from wootz.passes.pruning.materializer import Materializer, kept_atoms
from wootz.passes.pruning.planner import Planner
from wootz.passes.pruning.rounding import EXACT, Rounding
from wootz.passes.pruning.skipping import find_unskippable
from wootz.passes.pruning.student import Student, carve, weights_shared_with_others

CHAIN = "in a chain of layers each goes on with what is left of the one before it"
OUTSIDE = "outside of all modules (prune-filters prunes it)"
FULLY_CONNECTED = "fully connected (prune-filters{linear=true} prunes it)"
ALMOST_ALL = 0.999
"""A rate at which one filter is left."""


@dataclass(frozen=True)
class ModuleConvolutions:
    """The convolutions of a module, in the graph's order, and the reason for each that can't be pruned."""

    module: str
    convolutions: tuple[str, ...]
    locked: Mapping[str, str]

    @property
    def prunable(self) -> tuple[str, ...]:
        return tuple(c for c in self.convolutions if c not in self.locked)


def plan_blocks(
    model: Model, rates: Mapping[str, Rate], criterion: str = "l1", rounding: Rounding = EXACT, min_channels: int = 1
) -> PruningPlan:
    """The plan that prunes the modules named in `rates`; the others stay whole.

    A rate is one number for all prunable convolutions of the module, a tuple with one for each of them, or SKIP, which
    leaves the module out.
    Raises WootzError for an unknown module, another rate outside [0, 1), a tuple of another length, a rate above 0
    where nothing can be removed, different rates for tied convolutions, and a module that can't be left out.
    """
    return BlockPruner.of(model, criterion, rounding=rounding, min_channels=min_channels).plan(rates)


def prunable_convolutions(model: Model) -> tuple[ModuleConvolutions, ...]:
    """For each module, which convolutions `prune-blocks` prunes, and why it can't prune the others."""
    return BlockPruner.of(model).convolutions


@dataclass(frozen=True)
class Kept:
    """What is left of the cells (by position in the planner) that lose channels: (cell, channels) pairs; and the names
    of the modules that are left out."""

    channels: frozenset[tuple[int, int]]
    skipped: frozenset[str]


@dataclass(frozen=True, eq=False)
class BlockPruner:
    """Prunes the modules of one model by many configurations; it is analysed once, and slices and students are
    shared.

    `convolutions` is what the function `prunable_convolutions` gives; `cells_of` has for each of them the cells, by
    position in the planner, that a rate for it chooses from: none where it is locked. `layers_inside` has the names of
    each module's layers, fully connected ones among them. Where the network `is_chain`, modules are open: what one of
    them loses is missing in the next.
    """

    model: Model
    modules: tuple[Module, ...]
    convolutions: tuple[ModuleConvolutions, ...]
    cells_of: Mapping[str, tuple[int, ...]]
    planner: Planner
    materializer: Materializer
    layers_inside: Mapping[str, tuple[str, ...]]
    is_chain: bool
    _students: dict[TuningBlock, Student] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(
        model: Model,
        criterion: str = "l1",
        seed: int = 0,
        rounding: Rounding = EXACT,
        min_channels: int = 1,
        sample: Sample | None = None,
    ) -> BlockPruner:
        """The pruner for `model`; `sample` is for criteria that look at data."""
        modules, _ = find_modules(model)
        planner = Planner.of(model, criterion, seed, rounding, min_channels, sample=sample)
        cells = _ModuleCells(model, modules, planner)
        materializer = Materializer.of(model, planner.analysis)
        return BlockPruner(
            model=model,
            modules=modules,
            convolutions=cells.convolutions,
            cells_of=cells.of_convolution,
            planner=planner,
            materializer=materializer,
            layers_inside=cells.layers,
            is_chain=cells.is_chain,
        )

    def with_weights(
        self, weights: Mapping[str, np.ndarray], criterion: str | None = None, sample: Sample | None = None
    ) -> BlockPruner:
        """The pruner for the same network with other weights, of which the importance of channels alone is computed.

        `weights` are parameters by name, those that aren't in it stay; constants that shapes are computed from are
        none. `criterion` and `sample` are as in `of`; none given: the criterion of this pruner.
        Raises WootzError for a name that isn't a constant of the network, or has another shape there.
        """
        model = with_weights(self.model, weights)
        planner = self.planner.with_weights(model, criterion, sample)
        return replace(self, model=model, planner=planner, materializer=self.materializer.with_weights(model))

    def plan(self, rates: Mapping[str, Rate]) -> PruningPlan:
        """See the function `plan_blocks`."""
        plan = self.planner.plan(self._rates_of_cells(rates))
        skipped = tuple(SkippedModule(m.name, m.entry, m.exit) for m in self.modules if rates.get(m.name) == SKIP)
        if not skipped:
            return plan
        outcomes = {layer: _left_out(m.name) for m in skipped for layer in self.layers_inside[m.name]}
        layers = (replace(entry, outcome=outcomes.get(entry.layer, entry.outcome)) for entry in plan.layers)
        return PruningPlan(tuple(layers), skipped)

    def kept(self, rates: Mapping[str, Rate]) -> Kept:
        """What a plan leaves of the network: the same for rates that make the same network.

        Raises WootzError as `plan` does.
        """
        cells, counts = self.planner.cells, self.planner.counts(self._rates_of_cells(rates))
        channels = frozenset((cell, count) for cell, count in counts.items() if count < len(cells[cell].channels))
        return Kept(channels, frozenset(module for module, rate in rates.items() if rate == SKIP))

    def least_rates(self, rates: Iterable[float]) -> dict[str, dict[float, float]]:
        """For each module and each of the rates the least one of them, or 0, that leaves the same of the module.

        Raises WootzError for a rate outside [0, 1).
        """
        all_rates = sorted({0.0, *rates})
        for rate in all_rates:
            require_rate(rate)
        least: dict[str, dict[float, float]] = {}
        for table in self.convolutions:
            first: dict[Kept, float] = {}
            of_module = {r: self.kept({table.module: r if table.prunable else 0.0}) for r in all_rates}
            least[table.module] = {rate: first.setdefault(kept, rate) for rate, kept in of_module.items()}
        return least

    def least_rates_or_skip(self, rates: Iterable[float]) -> dict[str, dict[float, float]]:
        """`least_rates` where SKIP may be among the rates: in a module that can't be left out the greatest other rate
        stands for it. Raises WootzError where no module can be left out, and for a rate outside [0, 1].
        """
        pruned = {rate for rate in rates if rate != SKIP}
        least = self.least_rates(pruned)
        if pruned == {*rates}:
            return least
        if not self.skippable:
            raise WootzError(f"no module can be left out: {next(iter(self.unskippable.values()), 'there are none')}")
        greatest = max(pruned, default=0.0)
        return {
            module: {**of_module, SKIP: SKIP if module in self.skippable else of_module[greatest]}
            for module, of_module in least.items()
        }

    def _rates_of_cells(self, rates: Mapping[str, Rate]) -> dict[int, float]:
        cell_rates: dict[int, float] = {}
        tables = {table.module: table for table in self.convolutions}
        for module, rate in rates.items():
            if module not in tables:
                raise WootzError(f"no module named {module!r} in the model (modules: {', '.join(tables) or 'none'})")
            if rate == SKIP:
                self._require_skippable(module)
                continue
            for convolution, r in _rate_of_each(tables[module], rate).items():
                require_rate(r)
                for cell in self.cells_of[convolution]:
                    if cell_rates.setdefault(cell, r) != r:
                        tied = self.planner.cells[cell].layers
                        names = " and ".join(repr(self.planner.analysis.layers[i].name) for i in tied)
                        raise WootzError(f"module {module!r}: {names} are tied and need the same rate")
        return {cell: rate for cell, rate in cell_rates.items() if rate}

    @cached_property
    def unskippable(self) -> Mapping[str, str]:
        """The reason for each module that can't be left out."""
        if self.is_chain and self.can_prune:
            return {module.name: CHAIN for module in self.modules}
        return find_unskippable(self.model, self.modules, self.analysis.shapes)

    @property
    def skippable(self) -> tuple[str, ...]:
        """The modules that can be left out: those whose input can stand for their output."""
        return tuple(module.name for module in self.modules if module.name not in self.unskippable)

    def _require_skippable(self, module: str) -> None:
        if module in self.unskippable:
            raise WootzError(f"module {module!r} can't be left out: {self.unskippable[module]}")

    def materialize(self, plan: PruningPlan) -> Model:
        return self.materializer.materialize(plan)

    def narrowed(
        self, block: TuningBlock, weights: Mapping[str, np.ndarray], rates: Mapping[str, Rate]
    ) -> Mapping[str, np.ndarray]:
        """The weights of a block as they are in the network of `rates`, where it has less of its output left."""
        return self.materializer.narrowed(weights, self.plan(self.rates_of(block)), self.plan(rates))

    def student(self, block: TuningBlock) -> Student:
        """The block with what remains of the model's weights, carved when it is first asked for; names are the model's.

        It is shared: who changes its graph takes a copy. Raises WootzError for modules that can't be cut out or pruned.
        """
        if block not in self._students:
            plan = self.plan(self.rates_of(block))
            modules = [self.modules[m] for m in block.modules]
            model = carve(self.materialize(plan), modules, self.analysis)
            shared = weights_shared_with_others(self.model, modules)
            self._students[block] = Student(model, kept_atoms(self.analysis, plan), self.analysis, shared)
        return self._students[block]

    def rates_of(self, block: TuningBlock) -> dict[str, Rate]:
        """The rates of the block's modules, and of those that its input comes from."""
        rates: dict[str, Rate] = {}
        for symbol in block.symbols:
            if symbol.input_rates:
                before = self.input_sources.of_modules.get(symbol.module, ())
                rates.update({self.modules[m].name: r for m, r in zip(before, symbol.input_rates, strict=True)})
            rates[self.modules[symbol.module].name] = symbol.rate
        return rates

    @cached_property
    def input_sources(self) -> InputSources:
        """Whose inputs depend on which modules."""
        tables = enumerate(self.convolutions)
        removed = {i: self._removed_channels(table.module) for i, table in tables if table.prunable}
        return find_input_sources(self.model, self.modules, self.analysis, removed)

    def _removed_channels(self, module: str) -> np.ndarray:
        """The channels that go when `module` is pruned as far as it can be: int32[channels]."""
        plan = self.plan({module: ALMOST_ALL})
        removed = [
            np.delete(self.analysis.channels(layer), entry.keep)
            for layer, entry in zip(self.analysis.layers, plan.layers, strict=True)
            if entry.is_pruned
        ]
        return np.concatenate(removed) if removed else np.zeros(0, np.int32)

    def reasons(self, rates: Mapping[str, Rate]) -> dict[str, str]:
        """Why a plan of these rates leaves layers whole that aren't locked."""
        reasons = {layer.name: OUTSIDE if layer.is_convolution else FULLY_CONNECTED for layer in self.analysis.layers}
        for table in self.convolutions:
            for name in table.prunable:
                reasons.pop(name)
                if not rates.get(table.module):
                    reasons[name] = f"the rate of its module {table.module!r} is 0"
            reasons.update(table.locked)
            if rates.get(table.module) == SKIP:
                reasons.update(dict.fromkeys(self.layers_inside[table.module], _left_out(table.module)))
        return reasons

    @property
    def analysis(self) -> ChannelAnalysis:
        return self.planner.analysis

    def rounding_to(self, rounding: Rounding) -> BlockPruner:
        """The same, with counts rounded so."""
        return replace(self, planner=self.planner.rounding_to(rounding))

    @property
    def can_prune(self) -> bool:
        """Whether filters can be removed from any module."""
        return any(table.prunable for table in self.convolutions)

    @property
    def multiples(self) -> tuple[int, ...]:
        """Of how many filters layers of which some can be removed keep multiples: in which one, the largest first."""
        cells = [cell for table in self.convolutions for name in table.prunable for cell in self.cells_of[name]]
        return tuple(sorted(self.planner.multiples(cells), reverse=True))


class _ModuleCells:
    """Which cells lie inside the modules of a network."""

    def __init__(self, model: Model, modules: tuple[Module, ...], planner: Planner):
        self.model, self.modules, self.planner, self.analysis = model, modules, planner, planner.analysis

    @property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The names of each module's layers."""
        layers = self.analysis.layers
        return {module.name: tuple(layers[i].name for i in inside) for module, inside in self._layers_inside.items()}

    @property
    def convolutions(self) -> tuple[ModuleConvolutions, ...]:
        """The convolutions of each module, and why those that have no cells to choose from are locked."""
        tables = []
        for module, inside in self._convolutions_inside.items():
            names = {self.analysis.layers[position].name: position for position in inside}
            locked = {n: self._lock_reason(p, module) for n, p in names.items() if not self.of_convolution[n]}
            tables.append(ModuleConvolutions(module.name, tuple(names), locked))
        return tuple(tables)

    @cached_property
    def of_convolution(self) -> dict[str, tuple[int, ...]]:
        """The cells that a rate for a convolution chooses from; none where it is locked."""
        cells: dict[str, tuple[int, ...]] = {}
        for module, inside in self._layers_inside.items():
            allowed = set(self._inner_cells[module])
            if self.is_chain:
                own_cells = (i for i, cell in enumerate(self.planner.cells) if set(cell.layers) <= set(inside))
                allowed = set(self._whole_families(own_cells))
            for position in self._convolutions_inside[module]:
                is_depthwise = self.analysis.layers[position].kind == "depthwise"
                own = () if is_depthwise else tuple(i for i in self.planner.cells_of(position) if i in allowed)
                cells[self.analysis.layers[position].name] = own
        return cells

    @cached_property
    def _layers_inside(self) -> dict[Module, tuple[int, ...]]:
        """The positions of each module's layers in the analysis."""
        place = {id(node): i for i, node in enumerate(self.model.graph.nodes)}
        inside = {}
        for module in self.modules:
            nodes = {place[id(node)] for node in module_nodes(self.model, module)}
            inside[module] = tuple(i for i, layer in enumerate(self.analysis.layers) if layer.node in nodes)
        return inside

    @cached_property
    def _convolutions_inside(self) -> dict[Module, tuple[int, ...]]:
        """Those of `_layers_inside` that rates are for; fully connected ones of a gate follow what they scale."""
        layers = self.analysis.layers
        return {m: tuple(i for i in inside if layers[i].is_convolution) for m, inside in self._layers_inside.items()}

    @cached_property
    def is_chain(self) -> bool:
        """Whether the network has no modules to speak of: no prunable feature map stays inside one.

        What a gate (squeeze and excitation) computes inside is no feature map.
        """
        return not any(
            self._makes_feature_map(position, module)
            for module, inner in self._inner_cells.items()
            for cell in inner
            for position in self.planner.cells[cell].layers
            if self.analysis.layers[position].is_convolution
        )

    def _makes_feature_map(self, position: int, module: Module) -> bool:
        """Whether a layer's output has more than one place, or one of the module's exits has only one, too."""
        node = self.model.graph.nodes[self.analysis.layers[position].node]
        output, *exits = (self.analysis.shapes.get(name) for name in (node.outputs[0].name, *module.exits))
        if output is None or np.prod(output[2:]) > 1:
            return True
        return any(exit_ is None or np.prod(exit_[2:]) == 1 for exit_ in exits)

    @cached_property
    def _inner_cells(self) -> dict[Module, tuple[int, ...]]:
        """The cells with filters in no other layers than a module's, and in none of its entries and exits."""
        inner = {}
        for module, inside in self._layers_inside.items():
            boundary = np.concatenate([self.analysis.channels_in(name) for name in module.ends])
            inner[module] = self._whole_families(
                i
                for i, cell in enumerate(self.planner.cells)
                if set(cell.layers) <= set(inside) and not np.isin(cell.channels, boundary).any()
            )
        return inner

    def _whole_families(self, cells: Iterable[int]) -> tuple[int, ...]:
        """Those of `cells` whose families are among them as a whole: others would keep unequal counts."""
        chosen = set(cells)
        torn = {cell.family for i, cell in enumerate(self.planner.cells) if i not in chosen}
        return tuple(i for i in sorted(chosen) if self.planner.cells[i].family not in torn)

    def _lock_reason(self, position: int, module: Module) -> str:
        """Why a convolution of a module stays whole."""
        if reason := self.planner.lock_reason(position):
            return reason
        layer = self.analysis.layers[position]
        if layer.kind == "depthwise" and self.analysis.tied_layers(layer):
            return f"depthwise: its filters are those of {self.analysis.tied_layers(layer)[0]!r}"
        channels = self.analysis.channels(layer)
        for exit_ in module.exits:
            if np.isin(channels, self.analysis.channels_in(exit_)).any():
                return f"top layer: its channels reach the exit {exit_!r} of module {module.name!r}"
        for entry in module.entries:
            if np.isin(channels, self.analysis.channels_in(entry)).any():
                return f"tied to the entry {entry!r} of module {module.name!r}"
        return f"tied to {self.analysis.tied_layers(layer)[0]!r} outside module {module.name!r}"


def _left_out(module: str) -> str:
    return f"its module {module!r} is left out"


def _rate_of_each(table: ModuleConvolutions, rate: Rate) -> dict[str, float]:
    """The rate of each prunable convolution. Raises WootzError where they can't have it."""
    prunable = table.prunable
    if isinstance(rate, tuple):
        if len(rate) != len(prunable):
            raise WootzError(f"module {table.module!r}: {len(rate)} rates for {len(prunable)} prunable convolutions")
        return dict(zip(prunable, rate, strict=True))
    if rate != 0 and not prunable:
        reason = next(iter(table.locked.values()), "it has no convolution")
        raise WootzError(f"module {table.module!r} can't be pruned at {rate:g}: {reason}")
    return dict.fromkeys(prunable, rate)
