"""What a network learns from in fine-tuning: targets of the data, the outputs of the full network, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from wootz.passes.errors import WootzError

LossKind = Literal["softmax-cross-entropy", "mse", "l1", "smooth-l1", "bce-with-logits"]
"""Losses against targets of the data."""
NO_LOSS = "none"
"""What users call it that nothing is learned from the data's targets."""

TEMPERATURE = 2.0


@dataclass(frozen=True)
class TargetLoss:
    """A loss of the `kind` that compares an `output` with its targets, and counts `weight` times.

    The output is empty where there is a single one and targets are one array. Nothing is learned from labels that are
    `ignore_label`. Raises WootzError for settings that mean nothing.
    """

    kind: LossKind = "softmax-cross-entropy"
    output: str = ""
    weight: float = 1.0
    ignore_label: int | None = None

    def __post_init__(self) -> None:
        if self.ignore_label is not None and self.kind != "softmax-cross-entropy":
            raise WootzError(f"a label to be ignored is for the cross-entropy, not for {self.kind}")

    def __str__(self) -> str:
        of = f" of {self.output}" if self.output else ""
        without = "" if self.ignore_label is None else f", without label {self.ignore_label}"
        return f"{self.kind}{of}{without}"


@dataclass(frozen=True)
class Lesson:
    """The loss is (1 - distill) · Σ `losses` + `distill` · distillation + `features` · feature loss.

    `losses` compare outputs with targets of the data; without any all is distillation. Distillation compares outputs
    with those of the full network, class scores at a `temperature`, and the feature loss compares what modules give.
    With `scores` all outputs are taken as class scores, whether they end in a Softmax or not; those that a
    cross-entropy is of are. Of several outputs distillation is the mean, by `output_weights` (names and weights of all)
    where there are any. Raises WootzError for settings that mean nothing.
    """

    losses: tuple[TargetLoss, ...] = (TargetLoss(),)
    distill: float = 0.0
    temperature: float = TEMPERATURE
    features: float = 0.0
    scores: bool = False
    output_weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.distill <= 1:
            raise WootzError(f"the share of distillation is at least 0 and at most 1, not {self.distill:g}")
        if not self.losses and self.distill != 1:
            raise WootzError(f"without targets all of the loss is distillation, its share is 1, not {self.distill:g}")
        if not 0 < self.temperature < math.inf:
            raise WootzError(f"the temperature of distillation is more than 0, not {self.temperature:g}")
        if not 0 <= self.features < math.inf:
            raise WootzError(f"the weight of the feature loss is at least 0, not {self.features:g}")
        if self.output_weights and not all(0 <= weight < math.inf for _, weight in self.output_weights):
            raise WootzError("weights of outputs are at least 0, and finite")
        if self.output_weights and not any(weight for _, weight in self.output_weights):
            raise WootzError("all outputs have weight 0: one at least has to count")

    @property
    def needs_teacher(self) -> bool:
        return self.distill > 0 or self.features > 0

    @property
    def reads_targets(self) -> bool:
        return self.distill < 1

    @property
    def has_scores(self) -> bool:
        """Whether all outputs are class scores whatever they end in."""
        return self.scores or any(not loss.output for loss in self._cross_entropies)

    @property
    def outputs_of_scores(self) -> tuple[str, ...]:
        """The names of outputs that are class scores whatever they end in."""
        return tuple(loss.output for loss in self._cross_entropies if loss.output)

    @property
    def _cross_entropies(self) -> list[TargetLoss]:
        return [loss for loss in self.losses if loss.kind == "softmax-cross-entropy"]

    @property
    def text(self) -> str:
        """What is learned from, in words."""
        targets = " and ".join(map(str, self.losses)) if self.reads_targets else ""
        full = f"the full network, with share {self.distill:g}" if self.distill else ""
        return " and ".join(filter(None, (targets, full)))

    def without_teacher(self) -> Lesson:
        """What the full network itself learns from. Raises WootzError where there are no targets."""
        if not self.losses:
            raise WootzError("the full network can't be trained without targets")
        return replace(self, distill=0.0, features=0.0)


LABELLED = Lesson()
"""From the labels of the data alone."""
