"""prune-blocks: prunes each convolution module at one rate, its top layer left whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wootz.passes.analysis.data_criteria import read_sample
from wootz.passes.analysis.importance import require_rate
from wootz.passes.base import Evaluator, Pass, PassResult, option
from wootz.passes.ir.model import Model
from wootz.passes.plan.subspace import SKIP, SKIP_TEXT, Rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.hand_out import DEFAULT_RATE, explained, hand_out, nothing_removed
from wootz.passes.pruning.rounding import Rounding


@dataclass(frozen=True)
class PruneBlocks(Pass):
    """Prunes each convolution module at one rate, its top layer left whole.

    1. In each module the convolutions whose outputs stay inside are pruned at the module's rate; kept are
       `max(1, floor(n * (1 - rate)))` filters.
    2. Convolutions whose output channels reach the module's exit or are tied to its entry (the top layer: in a
       residual block the last convolution and the shortcut, in an Inception module the last of each branch) stay
       whole, so that modules of any rates fit together. So do convolutions outside modules.
    3. In a network without modules, where each convolution is a module of its own (LeNet, VGG), every convolution is
       pruned, and the next one loses the inputs.
    4. A rate of 1, or `skip`, in `rates` leaves the whole module out: an Identity from its entry to its exit stands for
       it, which `eliminate-dead` removes.
    5. Where no rate is given, `rate` is 0.5.

    The pruned network is executed beside the original, whose removed channels are masked (`check`); what fails is not
    handed out. Refuses another number of rates than modules, a rate above 0 in `rates` for a module in which nothing
    can be removed, to leave out a module whose entry and exit differ in shape or type, or one of a chain of layers, and
    to remove nothing where something was asked for.
    """

    name = "prune-blocks"
    rate: float | Literal["skip"] | None = option(None, "one rate for all modules (0.5 if rates gives none)")
    rates: tuple[float | Literal["skip"], ...] = option(
        (), "one rate a module, in order of data flow; skip (or 1) leaves it out"
    )
    criterion: str = option("l1", "how filters are ranked: l1, l2, fpgm, bn-scale, random; with data: apoz, taylor")
    data: Path | None = option(None, ".npz with the network's inputs, and labels, for apoz and taylor")
    seed: int = option(0, "for the criterion random")
    round_to: int = option(1, "keep multiples of this many filters")
    min_channels: int = option(1, "keep at least this many filters")
    check: bool = option(True, "execute the pruned network beside the masked original")
    allow_unchanged: bool = option(False, "give the network back as it is where nothing can be removed")
    evaluator: Evaluator | None = None

    def apply(self, model: Model) -> PassResult:
        if self.rate is not None and self.rates:
            raise self.refuse("takes one of rate=R (for all modules) and rates=R1,R2,… (one a module)")
        is_default = self.rate is None and not self.rates
        sample = read_sample(self.data, self.evaluator) if self.data else None
        pruner = BlockPruner.of(model, self.criterion, self.seed, Rounding(self.round_to), self.min_channels, sample)
        rates = self._rates(pruner, DEFAULT_RATE if is_default else self.rate)
        plan = pruner.plan(rates)
        pruned = pruner.materialize(plan)
        plan = explained(plan, model, pruner.analysis, pruner.reasons(rates))
        if not plan.is_pruned and not self.allow_unchanged and (is_default or self.rate or any(self.rates)):
            raise self.refuse(nothing_removed(plan))
        notes = (f"rate={DEFAULT_RATE} for all modules, as no rate is given",) if is_default else ()
        return hand_out(model, pruned, plan, pruner.analysis, self.evaluator if self.check else None, notes)

    def _rates(self, pruner: BlockPruner, rate: float | str | None) -> dict[str, Rate]:
        names = [m.name for m in pruner.modules]
        if isinstance(rate, str) or rate == SKIP:
            raise self.refuse(
                f"{rate} is not a pruning rate for all modules: rates=R1,R2,… with skip (or 1) leaves some out"
            )
        if rate is not None:
            require_rate(rate)
            return dict.fromkeys((m.module for m in pruner.convolutions if m.prunable), rate)
        if len(self.rates) != len(names):
            raise self.refuse(f"{len(self.rates)} rates for {len(names)} modules ({', '.join(names)})")
        rates: list[float] = [SKIP if r == SKIP_TEXT else float(r) for r in self.rates]
        if wrong := [rate for rate in rates if not 0 <= rate <= SKIP]:
            raise self.refuse(f"{wrong[0]} is not a pruning rate: at least 0 and below 1, or 1 (skip)")
        return dict(zip(names, rates, strict=True))
