"""Dynamic loss scaling: gradients of float16 networks are kept in float16's range.

Micikevicius et al. 2018, "Mixed precision training", section 3.2. The gradient of the loss with respect to itself is
the scale instead of 1; gradients are divided by it before they are used. A step in which one of them is not finite is
skipped and the scale halved; after `interval` steps without one it is doubled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.model import Graph
from wootz.passes.ir.rewrite import replace_all_uses
from wootz.passes.training.expression import Expression
from wootz.passes.training.state import gradient_seed

SMALLEST, LARGEST = 2.0**-14, 2.0**24
"""Bounds of the scale: a loss that is not finite itself, or that is always zero, would drive it out of float32."""


@dataclass(frozen=True)
class LossScale:
    """The state of one loss: its scale, a float32 scalar, and how many steps this has been so, an int64 scalar."""

    scale: Expression
    steps: Expression
    interval: int

    @staticmethod
    def names(loss: str) -> tuple[str, str]:
        """The names of the two pieces of state."""
        return f"{loss}.scale", f"{loss}.steps_at_scale"

    def multiply_loss(self, graph: Graph, loss: str) -> bool:
        """Lets the gradients of `loss` begin with the scale instead of 1; False where they don't begin in `graph`."""
        seed = gradient_seed(graph, loss)
        if seed is None:
            return False
        replace_all_uses(graph, seed, self.scale.tensor)
        return True

    def divide(self, gradient: Expression) -> Expression:
        """The gradient of the loss as it is. The scale is a power of 2, so that nothing is rounded."""
        return gradient * self.scale.op("Reciprocal").cast(gradient)

    def updated(self, finite: Expression, is_step: Expression | None) -> tuple[Expression, Expression]:
        """Scale and number of steps after a step with finite gradients, or without; unchanged where `is_step` fails."""
        counted = self.steps + 1
        grows = counted.equal(self.interval)
        larger = (self.scale * 2.0).op("Min", LARGEST).where(grows, self.scale)
        scale = larger.where(finite, (self.scale * 0.5).op("Max", SMALLEST))
        steps = counted.where(finite.op("And", grows.op("Not")), counted.constant(0))
        if is_step is None:
            return scale, steps
        return scale.where(is_step, self.scale), steps.where(is_step, self.steps)


def all_finite(gradients: Iterable[Expression]) -> Expression:
    """Whether all elements of all gradients are finite: their sum is infinite or NaN where one of them is."""
    sums = [g.sum(keepdims=False) for g in gradients]
    total = sums[0].op("Sum", *sums[1:]) if len(sums) > 1 else sums[0]
    return total.op("Abs").less(float(np.finfo(total.dtype).max))
