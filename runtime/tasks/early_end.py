"""Rules that end a training before its last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Objective
from wootz.runtime.training import Curve
from wootz.runtime.uncertainty import Share

FEWEST_TESTS = 4
"""Tests that have to be made before a training is given up, step 0 included; one less where none of them was better
than that."""
CLEARLY = 2.0
"""Standard errors by which a quality misses a bound that the rest of a training isn't expected to reach."""

Ended = Literal["", "bound met", "given up"]


@dataclass(frozen=True)
class EarlyEnd:
    """A network is done when its quality meets `bounds`, which are all of it, at a test, step 0 included; a share of so
    many `images` by its standard error: the first of several tests that meets them barely does so by chance, and the
    steps that follow help.

    With `gives_up` a training ends when the rest isn't expected to change that the bounds are missed, or met if only
    just. After half of the steps that is so when twice what the best quality has improved by in the second half of the
    tests is less than what is missing, or it hasn't improved; after a third when no test was better than that before
    training, and more than CLEARLY standard errors are missing, or nothing.
    """

    bounds: tuple[Constraint, ...]
    gives_up: bool = False
    images: int = 0

    @property
    def _metric(self) -> Metric:
        return self.bounds[0].metric

    def met(self, value: float) -> bool:
        return self._holds(value - self._margin(value))

    def _margin(self, value: float) -> float:
        return Share(value, self.images).standard_error if self.images and self._metric.is_share else 0.0

    def _holds(self, value: float) -> bool:
        return all(bound.holds({self._metric: value}, {}) for bound in self.bounds)

    def given_up(self, curve: Curve, steps: int, tests_all: bool = True) -> Ended:
        """What a training of so many `steps` comes to, whose tests so far are `curve`; empty where it goes on. Unless a
        test is of all images it can't tell that a bound is met, or that nothing was gained."""
        last, tests = curve[-1][0], len(curve)
        if not self.gives_up or last >= steps:
            return ""
        if last >= steps / 2 and tests >= FEWEST_TESTS:
            ended = self._after_half(curve)
            return ended if tests_all or ended == "given up" else ""
        if last >= steps / 3 and tests >= FEWEST_TESTS - 1 and tests_all:
            return self._without_gain(curve)
        return ""

    def _after_half(self, curve: Curve) -> Ended:
        best, best_before = (self._best(part) for part in (curve, curve[: len(curve) // 2]))
        if self._holds(best):
            return "bound met" if best == best_before else ""
        return "" if self._holds(best + 2 * (best - best_before)) else "given up"

    def _without_gain(self, curve: Curve) -> Ended:
        first = curve[0][1]
        if self._best(curve) != first:
            return ""
        if self._holds(first):
            return "bound met"
        return "" if self._holds(first + CLEARLY * self._margin(first)) else "given up"

    def _best(self, curve: Curve) -> float:
        return max((value for _, value in curve), key=lambda value: self._metric.sign * value)

    def __str__(self) -> str:
        by = f" by a standard error on {self.images} images" if self.images and self._metric.is_share else ""
        rest = ", or the rest is not expected to change that" if self.gives_up else ""
        return f"{' and '.join(map(str, self.bounds))}{by}{rest}"


def early_end(objective: Objective, of_full: float, gives_up: bool = False, images: int = 0) -> EarlyEnd | None:
    """The rule that `objective` allows, where the full network has the quality `of_full`, and qualities are measured on
    so many `images` (0: no margin).

    None where more quality than the constraints ask for is of use: where it is what the objective is about, and where
    no constraint asks for it, or one for less of it.
    """
    bounds = objective.bounds_of_quality
    if objective.metric.needs_training or not bounds or not all(c.asks_for_quality for c in bounds):
        return None
    full = {bounds[0].metric: of_full}
    absolute = (Constraint(c.metric, c.comparison, offset=c.bound(full)) for c in bounds)
    return EarlyEnd(tuple(absolute), gives_up, images)
