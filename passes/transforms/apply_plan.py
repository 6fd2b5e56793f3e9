"""apply-plan: removes the filters that a stored pruning plan doesn't keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import PruningPlan
from wootz.passes.pruning.materializer import materialize


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Removes the filters that a stored pruning plan doesn't keep.

    The plan comes from `--plan` of an earlier run, on this model or on one of the same architecture with other weights.
    Refuses a plan whose layers or filter counts are others, one that removes a locked filter, and one that keeps only
    some of the filters that are tied together.
    """

    name = "apply-plan"
    plan: Path | None = option(None, "the JSON file that --plan wrote")

    def apply(self, model: Model) -> PassResult:
        if self.plan is None:
            raise self.refuse("needs a plan: apply-plan{plan=FILE.json}")
        if not self.plan.is_file():
            raise self.refuse(f"no such file: {self.plan}")
        with reading(self.plan, "a pruning plan"):
            text = self.plan.read_text(encoding="utf-8")
        try:
            plan = PruningPlan.from_json(text)
        except WootzError as error:
            raise InputError(str(error), self.plan) from error
        return PassResult(materialize(model, plan), plan.is_pruned, plan.statistics(), plan)
