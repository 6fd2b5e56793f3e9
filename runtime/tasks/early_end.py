"""Rules that end a training before its last step."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.plan.objective import Constraint, Metric, Objective
from wootz.runtime.training import Curve

FEWEST_TESTS = 4
"""Tests that have to be made before a training is given up, step 0 included."""


@dataclass(frozen=True)
class EarlyEnd:
    """A network is done when its accuracy meets `bounds` at a test, step 0 included.

    With `gives_up` it is given up when it won't meet them by this rule: after half of the steps and FEWEST_TESTS tests,
    twice what the best accuracy has risen by in the second half of the tests is less than what is missing.
    """

    bounds: tuple[Constraint, ...]
    gives_up: bool = False

    def met(self, accuracy: float) -> bool:
        return all(bound.holds({Metric.ACCURACY: accuracy}, {}) for bound in self.bounds)

    def hopeless(self, curve: Curve, steps: int) -> bool:
        """Whether the rule gives a training of so many `steps` up, whose tests so far are `curve`."""
        if not self.gives_up or len(curve) < FEWEST_TESTS or curve[-1][0] < steps / 2:
            return False
        best = max(accuracy for _, accuracy in curve)
        best_before = max(accuracy for _, accuracy in curve[: len(curve) // 2])
        return not self.met(best + 2 * (best - best_before))

    def __str__(self) -> str:
        return f"{' and '.join(map(str, self.bounds))}{', or given up' if self.gives_up else ''}"


def early_end(objective: Objective, full_accuracy: float, gives_up: bool = False) -> EarlyEnd | None:
    """The rule that `objective` allows; None where more accuracy than the constraints ask for is of use.

    That is where the metric is Accuracy, and where accuracy has no lower bound or an upper one.
    """
    of_accuracy = [c for c in objective.constraints if c.metric is Metric.ACCURACY]
    if objective.metric is Metric.ACCURACY or not of_accuracy or any(c.comparison[0] != ">" for c in of_accuracy):
        return None
    full = {Metric.ACCURACY: full_accuracy}
    bounds = (Constraint(Metric.ACCURACY, c.comparison, offset=c.bound(full)) for c in of_accuracy)
    return EarlyEnd(tuple(bounds), gives_up)
