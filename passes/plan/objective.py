"""What the best network is: a metric to minimise or maximise under constraints (paper, Figure 3b)."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wootz.passes.plan.metrics import Metric as Metric

Measurements = Mapping[Metric, float]

_COMPARISONS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Constraint:
    """`metric comparison bound`, where bound is `scale * full + offset`: `full` is the unpruned network's value.

    An absolute bound has scale 0: `Accuracy > 0.8` is (ACCURACY, ">", scale=0, offset=0.8).
    """

    metric: Metric
    comparison: Literal["<", ">", "<=", ">="]
    offset: float
    scale: float = 0.0

    def bound(self, full: Measurements) -> float:
        return self.scale * full[self.metric] + self.offset if self.scale else self.offset

    def holds(self, measured: Measurements, full: Measurements) -> bool:
        return bool(_COMPARISONS[self.comparison](measured[self.metric], self.bound(full)))

    @property
    def asks_for_quality(self) -> bool:
        """Whether it keeps a metric from getting worse: a lower bound where higher is better, else an upper one."""
        return self.comparison[0] == (">" if self.metric.higher_is_better else "<")

    def __str__(self) -> str:
        if not self.scale:
            return f"{self.metric.name} {self.comparison} {_shortest(self.offset)}"
        scaled = "full" if self.scale == 1 else f"{_shortest(self.scale)} * full"
        shift = f" {'-' if self.offset < 0 else '+'} {_shortest(abs(self.offset))}" if self.offset else ""
        return f"{self.metric.name} {self.comparison} {scaled}{shift}"


@dataclass(frozen=True)
class Objective:
    """`direction metric constraint …`; `str()` gives the text form back."""

    direction: Literal["min", "max"]
    metric: Metric
    constraints: tuple[Constraint, ...] = ()

    def better(self, a: Measurements, b: Measurements) -> bool:
        """Whether `a` is strictly better than `b` in the metric; constraints are not looked at."""
        sign = 1 if self.direction == "max" else -1
        return sign * a[self.metric] > sign * b[self.metric]

    @property
    def quality(self) -> Metric | None:
        """The one metric among those named that needs training; None where none does."""
        named = (self.metric, *(c.metric for c in self.constraints))
        return next((metric for metric in named if metric.needs_training), None)

    @property
    def wants_quality(self) -> bool:
        """Whether it is about a quality, and wants as much of it as there is."""
        return self.metric.needs_training and (self.direction == "max") == self.metric.higher_is_better

    @property
    def bounds_of_quality(self) -> tuple[Constraint, ...]:
        """The constraints that only training decides."""
        return tuple(c for c in self.constraints if c.metric.needs_training)

    def __str__(self) -> str:
        return " ".join([f"{self.direction} {self.metric.name}", *(f"constraint {c}" for c in self.constraints)])


def _shortest(value: float) -> str:
    """The fewest digits that read back as `value`."""
    return repr(float(value)).removesuffix(".0")
