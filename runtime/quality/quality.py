"""Qualities: the metrics that need a network's outputs, summed up batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from wootz.passes.plan.metrics import Metric
from wootz.runtime.data.dataset import Targets
from wootz.runtime.evaluation import chosen_classes

Outputs = Mapping[str, np.ndarray]
"""Of a network for a batch, by name and in the network's order; examples along the first axis of each."""

WORST = 1e9
"""The OutputError of a network that gives no numbers, or something in an output where the full one always gives 0."""


class Tally(Protocol):
    """Sums up a quality over the batches of a split."""

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        """Adds a batch: the network's outputs, those of the full network (empty where they play no part), and what the
        data say."""

    @property
    def value(self) -> float:
        """Of all that was added; finite. Raises WootzError where there is none."""


@dataclass(frozen=True)
class Quality:
    """A metric that needs training, and how it is measured: by the tally that `begin` gives.

    `text` is all that a value depends on beside the outputs and targets. One that `compares` needs the full network's
    outputs; one that is `of_classes` a single output with the scores of classes, [n, classes].
    """

    metric: Metric
    begin: Callable[[], Tally]
    text: str
    compares: bool = False
    of_classes: bool = False


@dataclass
class _Right:
    """The share of images whose largest score is that of their class: exact. A NaN among them is wrong."""

    right: int = 0
    images: int = 0

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        assert isinstance(targets, np.ndarray), "accuracy is of labelled images"
        self._count(chosen_classes(_only(outputs)), targets)

    def _count(self, answers: np.ndarray, wanted: np.ndarray) -> None:
        self.right += int(np.sum((answers == wanted) & (answers >= 0)))
        self.images += len(answers)

    @property
    def value(self) -> float:
        return self.right / self.images


class _Agreeing(_Right):
    """The same for the class that the full network chooses."""

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        self._count(chosen_classes(_only(outputs)), chosen_classes(_only(full)))


@dataclass
class _OutputError:
    """Of each output the squared difference over the square of the full network's, both summed over all elements; of
    several outputs the mean, by `weights` where there are any. Outputs that are 0 all over in both networks don't
    count."""

    weights: Mapping[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)

    def add(self, outputs: Outputs, full: Outputs, targets: Targets | None) -> None:
        for name, own in full.items():
            wanted = own.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                difference = float(np.sum((outputs[name] - wanted) ** 2))
            self.differences[name] = self.differences.get(name, 0.0) + difference
            self.squares[name] = self.squares.get(name, 0.0) + float(np.sum(wanted**2))

    @property
    def value(self) -> float:
        errors = {name: self._error(name) for name in self.differences if self._weight(name)}
        known = {name: error for name, error in errors.items() if error is not None}
        if WORST in known.values():
            return WORST
        return float(np.average([*known.values()], weights=[*map(self._weight, known)])) if known else 0.0

    def _weight(self, name: str) -> float:
        return self.weights.get(name, 0.0) if self.weights else 1.0

    def _error(self, name: str) -> float | None:
        difference, square = self.differences[name], self.squares[name]
        if square:
            return min(difference / square, WORST) if math.isfinite(difference) else WORST
        return WORST if difference else None


def _only(outputs: Outputs) -> np.ndarray:
    (scores,) = outputs.values()
    return scores


ACCURACY = Quality(Metric.ACCURACY, _Right, "accuracy", of_classes=True)
AGREEMENT = Quality(Metric.AGREEMENT, _Agreeing, "agreement", compares=True, of_classes=True)
OUTPUT_ERROR = Quality(Metric.OUTPUT_ERROR, _OutputError, "output error", compares=True)


def weighted_output_error(weights: Mapping[str, float]) -> Quality:
    """OutputError whose mean over outputs has `weights`, by name; outputs without one don't count."""
    text = f"output error by {sorted(weights.items())}"
    return Quality(Metric.OUTPUT_ERROR, partial(_OutputError, dict(weights)), text, compares=True)
