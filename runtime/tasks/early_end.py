"""Rules that end a training before its last step."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.passes.plan.objective import Constraint, Metric, Objective
from wootz.runtime.training import Curve
from wootz.runtime.uncertainty import Share

FEWEST_TESTS = 4
"""Tests that have to be made before a training is given up, step 0 included."""


@dataclass(frozen=True)
class EarlyEnd:
    """A network is done when its accuracy meets `bounds` at a test, step 0 included, by its standard error on so many
    `images`: the first of several tests that meets them barely does so by chance, and the steps that follow help.

    With `gives_up` it is given up when it won't meet them by this rule: after half of the steps and FEWEST_TESTS tests,
    twice what the best accuracy has risen by in the second half of the tests is less than what is missing.
    """

    bounds: tuple[Constraint, ...]
    gives_up: bool = False
    images: int = 0

    def met(self, accuracy: float) -> bool:
        return self._holds(accuracy - (Share(accuracy, self.images).standard_error if self.images else 0.0))

    def _holds(self, accuracy: float) -> bool:
        return all(bound.holds({Metric.ACCURACY: accuracy}, {}) for bound in self.bounds)

    def hopeless(self, curve: Curve, steps: int) -> bool:
        """Whether the rule gives a training of so many `steps` up, whose tests so far are `curve`."""
        if not self.gives_up or len(curve) < FEWEST_TESTS or curve[-1][0] < steps / 2:
            return False
        best = max(accuracy for _, accuracy in curve)
        best_before = max(accuracy for _, accuracy in curve[: len(curve) // 2])
        return not self._holds(best + 2 * (best - best_before))

    def __str__(self) -> str:
        by = f" by a standard error on {self.images} images" if self.images else ""
        return f"{' and '.join(map(str, self.bounds))}{by}{', or given up' if self.gives_up else ''}"


def early_end(objective: Objective, full_accuracy: float, gives_up: bool = False, images: int = 0) -> EarlyEnd | None:
    """The rule that `objective` allows, where accuracies are measured on so many `images` (0: no margin).

    None where more accuracy than the constraints ask for is of use: where the metric is Accuracy, and where accuracy
    has no lower bound or an upper one.
    """
    of_accuracy = [c for c in objective.constraints if c.metric is Metric.ACCURACY]
    if objective.metric is Metric.ACCURACY or not of_accuracy or any(c.comparison[0] != ">" for c in of_accuracy):
        return None
    full = {Metric.ACCURACY: full_accuracy}
    bounds = (Constraint(Metric.ACCURACY, c.comparison, offset=c.bound(full)) for c in of_accuracy)
    return EarlyEnd(tuple(bounds), gives_up, images)
