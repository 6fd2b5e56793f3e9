"""prune-filters: removes the least important filters of any layers, at any rates."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from wootz.passes.analysis.cost import macs, parameters
from wootz.passes.analysis.data_criteria import read_sample
from wootz.passes.analysis.importance import require_rate
from wootz.passes.analysis.modules import find_modules
from wootz.passes.base import Evaluator, Pass, PassResult, option
from wootz.passes.ir.model import Model, module_nodes
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.hand_out import DEFAULT_RATE, explained, hand_out, nothing_removed
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Counts, Planner
from wootz.passes.pruning.rounding import Rounding

RATE_STEPS = 1000
"""Targets are met by a multiple of 1/1000."""


@dataclass(frozen=True)
class PruneFilters(Pass):
    """Removes the least important filters of any layers, at any rates.

    1. `rate` prunes all convolutions, `rates` those named, or all of a module named; with `linear`, hidden fully
       connected layers too. Kept are `max(1, floor(n * (1 - rate)))` filters.
    2. Layers that are tied (added together, depthwise, …) are pruned as one; the importance of a channel is the sum
       over its filters.
    3. `ranking=global` removes the share `rate` of all channels, wherever the least important ones are (relative to
       the mean importance in their layers).
    4. `macs` and `params` find the lowest uniform rate that reaches a target: `0.5x` of the network's, or a number.
    5. Layers that can't be pruned stay whole, with the reason in the plan.
    6. Where neither a rate nor a target is given, `rate` is 0.5.

    The pruned network is executed beside the original, whose removed channels are masked (`check`); what fails is not
    handed out. Refuses a rate above 0 for a layer that can't be pruned, different rates for tied layers, a target that
    no rate reaches, and to remove nothing where something was asked for.
    """

    name = "prune-filters"
    rate: float | None = option(None, "the rate of all layers that rates doesn't name (0.5 if nothing else is asked)")
    rates: Mapping[str, float] = field(
        default_factory=dict, metadata={"help": "rates of layers or modules: NAME:RATE,NAME:RATE"}
    )
    macs: str = option("", "target for the multiply-accumulates, as 0.5x or a number")
    params: str = option("", "target for the parameters, as 0.5x or a number")
    criterion: str = option("l1", "how filters are ranked: l1, l2, fpgm, bn-scale, random; with data: apoz, taylor")
    data: Path | None = option(None, ".npz with the network's inputs, and labels, for apoz and taylor")
    ranking: Literal["local", "global"] = option("local", "rank within layers or over all of them")
    seed: int = option(0, "for the criterion random")
    linear: bool = option(False, "prune hidden fully connected layers too")
    round_to: int = option(1, "keep multiples of this many filters")
    min_channels: int = option(1, "keep at least this many filters")
    check: bool = option(True, "execute the pruned network beside the masked original")
    allow_unchanged: bool = option(False, "give the network back as it is where nothing can be removed")
    evaluator: Evaluator | None = None

    def apply(self, model: Model) -> PassResult:
        targets = (bool(self.macs), bool(self.params), self.rate is not None or bool(self.rates))
        if targets.count(True) > 1:
            raise self.refuse("takes one of: rate and rates, macs, params")
        is_default = not any(targets)
        rate = DEFAULT_RATE if is_default else self.rate or 0.0
        sample = read_sample(self.data, self.evaluator) if self.data else None
        planner = Planner.of(
            model, self.criterion, self.seed, Rounding(self.round_to), self.min_channels, sample=sample
        )
        materializer = Materializer.of(model, planner.analysis)
        if self.macs:
            plan = self._plan_for_target(model, planner, materializer, macs, "macs", self.macs)
        elif self.params:
            plan = self._plan_for_target(model, planner, materializer, parameters, "params", self.params)
        else:
            plan = planner.plan_counts(self._counts(model, planner, rate))
        pruned = materializer.materialize(plan)
        plan = explained(plan, model, planner.analysis, self._reasons(planner, rate))
        is_asked = any(targets[:2]) or rate > 0 or any(self.rates.values())
        if is_asked and not plan.is_pruned and not self.allow_unchanged:
            raise self.refuse(nothing_removed(plan))
        notes = (f"rate={DEFAULT_RATE}, as nothing else is asked",) if is_default else ()
        return hand_out(model, pruned, plan, planner.analysis, self.evaluator if self.check else None, notes)

    def _reasons(self, planner: Planner, rate: float) -> dict[str, str]:
        """Why layers that could be pruned are not asked to be."""
        reasons = {}
        for i, layer in enumerate(planner.analysis.layers):
            cells = planner.cells_of(i)
            if self.rates.get(layer.name) == 0:
                reasons[layer.name] = "its rate is 0"
            elif cells and not any(self._is_pruned_by_default(planner, cell) for cell in cells):
                reasons[layer.name] = "fully connected: pruned with linear=true, or by its name in rates"
            elif not (rate or self.macs or self.params):
                reasons[layer.name] = "no rate is given for it"
        return reasons

    def _counts(self, model: Model, planner: Planner, rate: float) -> Counts:
        """How many channels each cell keeps, `rate` being that of the layers that `rates` doesn't name."""
        chosen = self._chosen_rates(model, planner)
        if self.ranking == "global":
            if chosen:
                raise self.refuse("ranking=global goes with one rate; rates names some")
            return self._global_counts(planner, rate)
        return planner.counts({i: self._cell_rate(planner, i, chosen, rate) for i in range(len(planner.cells))})

    def _cell_rate(self, planner: Planner, cell: int, chosen: Mapping[int, float], rate: float) -> float:
        layers = planner.cells[cell].layers
        own = {chosen[p] for p in layers if p in chosen}
        if len(own) > 1:
            names = " and ".join(repr(planner.analysis.layers[p].name) for p in layers if p in chosen)
            raise self.refuse(f"{names} are tied and need the same rate")
        if own:
            return own.pop()
        return rate if self._is_pruned_by_default(planner, cell) else 0.0

    def _is_pruned_by_default(self, planner: Planner, cell: int) -> bool:
        return self.linear or any(planner.analysis.layers[p].is_convolution for p in planner.cells[cell].layers)

    def _chosen_rates(self, model: Model, planner: Planner) -> dict[int, float]:
        """The rates that `rates` gives, by the layers' positions. A layer's own rate comes before its module's."""
        positions = {layer.name: i for i, layer in enumerate(planner.analysis.layers)}
        chosen: dict[int, float] = {}
        for name, rate in sorted(self.rates.items(), key=lambda item: item[0] in positions):
            if name in positions:
                if rate != 0 and (reason := planner.lock_reason(positions[name])):
                    raise self.refuse(f"can't be pruned: {reason}", name)
                chosen[positions[name]] = rate
            else:
                chosen.update(dict.fromkeys(self._layers_of_module(model, planner, name), rate))
        return chosen

    def _layers_of_module(self, model: Model, planner: Planner, name: str) -> list[int]:
        modules = {m.name: m for m in find_modules(model)[0]}
        if name not in modules:
            raise self.refuse(f"no layer and no module is named {name!r}")
        inside = {id(node) for node in module_nodes(model, modules[name])}
        return [
            i
            for i, layer in enumerate(planner.analysis.layers)
            if id(model.graph.nodes[layer.node]) in inside and layer.is_convolution and not planner.lock_reason(i)
        ]

    def _global_counts(self, planner: Planner, rate: float) -> Counts:
        """Removes the share `rate` of all channels, the least important first; a family of cells as one."""
        require_rate(rate)
        families: dict[int, list[int]] = {}
        for i, cell in enumerate(planner.cells):
            if self._is_pruned_by_default(planner, i):
                planner.require_scores(i)
                families.setdefault(cell.family, []).append(i)
        scores, owners = [], []
        for number, members in enumerate(families.values()):
            ranked = [np.sort(planner.scores[planner.cells[i].channels])[::-1] for i in members]
            slots = np.mean(ranked, axis=0)
            scores.append(slots / max(slots.mean(), np.finfo(float).tiny))
            owners.append(np.full(len(slots), number))
        if not scores:
            return {}
        order = np.argsort(np.concatenate(scores), kind="stable")
        removed = np.bincount(np.concatenate(owners)[order[: int(rate * len(order))]], minlength=len(families))
        rates: dict[int, float] = {}
        for number, members in enumerate(families.values()):
            size = len(planner.cells[members[0]].channels)
            rates.update(dict.fromkeys(members, removed[number] / (size + 1e-9)))
        return planner.counts(rates)

    def _plan_for_target(
        self,
        model: Model,
        planner: Planner,
        materializer: Materializer,
        measure: Callable[[Model], int],
        name: str,
        target: str,
    ) -> PruningPlan:
        """The plan of the lowest uniform rate whose network measures at most `target`."""
        bound = self._bound(target, name, measure(model))

        def plan(step: int) -> PruningPlan:
            return planner.plan_counts(self._counts(model, planner, step / RATE_STEPS))

        def reaches(step: int) -> bool:
            return measure(materializer.materialize(plan(step))) <= bound

        if not reaches(RATE_STEPS - 1):
            least = measure(materializer.materialize(plan(RATE_STEPS - 1)))
            raise self.refuse(f"no rate reaches {name}={target}: at {1 - 1 / RATE_STEPS:g} there are {least:,} left")
        return plan(bisect.bisect_left(range(RATE_STEPS), True, key=reaches))

    def _bound(self, target: str, name: str, full: int) -> float:
        try:
            bound = float(target.removesuffix("x")) * (full if target.endswith("x") else 1)
        except ValueError:
            raise self.refuse(f"{name}={target} is no target: a share like 0.5x, or a number") from None
        if not bound > 0:
            raise self.refuse(f"{name}={target} is no target: it has to be above 0")
        return bound
