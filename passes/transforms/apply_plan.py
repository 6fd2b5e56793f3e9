"""apply-plan: removes the filters that a stored pruning plan doesn't keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wootz.passes.base import Evaluator, Pass, PassResult, option
from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.hand_out import hand_out
from wootz.passes.pruning.materializer import Materializer


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Removes the filters that a stored pruning plan doesn't keep.

    The plan comes from `--plan` of an earlier run, on this model or on one of the same architecture with other weights.
    The pruned network is executed beside the original, whose removed channels are masked (`check`); what fails is not
    handed out. Refuses a plan whose layers or filter counts are others, one that removes a locked filter, one that
    keeps only some of the filters that are tied together, and one that removes nothing.
    """

    name = "apply-plan"
    requires = "a plan: apply-plan{plan=FILE.json}"
    plan: Path | None = option(None, "the JSON file that --plan wrote")
    check: bool = option(True, "execute the pruned network beside the masked original")
    allow_unchanged: bool = option(False, "give the network back as it is where the plan removes nothing")
    evaluator: Evaluator | None = None

    def apply(self, model: Model) -> PassResult:
        if self.plan is None:
            raise self.refuse(f"needs {self.requires}")
        if not self.plan.is_file():
            raise self.refuse(f"no such file: {self.plan}")
        with reading(self.plan, "a pruning plan"):
            text = self.plan.read_text(encoding="utf-8")
        try:
            plan = PruningPlan.from_json(text)
        except WootzError as error:
            raise InputError(str(error), self.plan) from error
        materializer = Materializer.of(model)
        pruned = materializer.materialize(plan)
        if not plan.is_pruned and not self.allow_unchanged:
            raise self.refuse(f"the plan in {self.plan} keeps all filters: nothing was removed")
        evaluator = self.evaluator if self.check else None
        return hand_out(model, pruned, plan, materializer.analysis, evaluator)
