"""The update rules of Caffe's solvers, one function each, as formulas on graph tensors.

The gradient has clipping, accumulation and weight decay in it; the rate is the learning rate times lr_mult. Each
rule gives the new parameter and the new states, in the order of the states' names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wootz.passes.plan.solver import Solver
from wootz.passes.training.expression import Expression


@dataclass(frozen=True)
class Step:
    """One parameter's step: `w`, its gradient `g`, the `rate`, the states `h`, and the step's `number` from 1."""

    solver: Solver
    w: Expression
    g: Expression
    rate: Expression
    h: Sequence[Expression]
    number: Expression


Update = tuple[Expression, list[Expression]]
Rule = Callable[[Step], Update]


@dataclass(frozen=True)
class Optimizer:
    """An update rule and the names of what it remembers of each parameter; all states start at zero."""

    states: tuple[str, ...]
    update: Rule
    counts_steps: bool = False
    """Whether the rule uses the number of the step."""
    decouples_decay: bool = False
    """Whether the rule itself applies the weight decay, so that it is not in the gradient."""


def sgd(t: Step) -> Update:
    """v = momentum · v + rate · g; w - v (Caffe sgd_solver; PyTorch's v is without the rate)."""
    if not t.solver.momentum:
        return t.w - t.g * t.rate, []
    v = t.h[0] * t.solver.momentum + t.g * t.rate
    return t.w - v, [v]


def nesterov(t: Step) -> Update:
    """v' = momentum · v + rate · g; w - (1 + momentum) · v' + momentum · v (Caffe nesterov_solver)."""
    v = t.h[0] * t.solver.momentum + t.g * t.rate
    return t.w - (v * (1.0 + t.solver.momentum) - t.h[0] * t.solver.momentum), [v]


def adam(t: Step) -> Update:
    """w - rate · √(1-β₂ᵗ)/(1-β₁ᵗ) · m / (√v + delta), m and v the running means of g and g² (Caffe adam_solver)."""
    return _adam(t, t.number.constant(t.solver.delta))


def adamw(t: Step) -> Update:
    """(1 - rate · decay) · w - rate · m̂ / (√v̂ + delta), m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ) (Loshchilov & Hutter 2019)."""
    return _adam(t, _second_correction(t) * t.solver.delta)


def _adam(t: Step, delta: Expression) -> Update:
    m = t.h[0] * t.solver.momentum + t.g * (1.0 - t.solver.momentum)
    v = t.h[1] * t.solver.momentum2 + t.g * t.g * (1.0 - t.solver.momentum2)
    correction = _second_correction(t) / (1.0 - t.number.constant(t.solver.momentum) ** t.number)
    return t.w - m / (v.op("Sqrt") + delta) * (t.rate * correction), [m, v]


def _second_correction(t: Step) -> Expression:
    """√(1-β₂ᵗ)"""
    return (1.0 - t.number.constant(t.solver.momentum2) ** t.number).op("Sqrt")


def rmsprop(t: Step) -> Update:
    """h = rms_decay · h + (1 - rms_decay) · g²; w - rate · g / (√h + delta) (Caffe rmsprop_solver)."""
    mean_square = t.h[0] * t.solver.rms_decay + t.g * t.g * (1.0 - t.solver.rms_decay)
    return t.w - t.g / (mean_square.op("Sqrt") + t.solver.delta) * t.rate, [mean_square]


def adagrad(t: Step) -> Update:
    """h = h + g²; w - rate · g / (√h + delta) (Caffe adagrad_solver)."""
    total = t.h[0] + t.g * t.g
    return t.w - t.g / (total.op("Sqrt") + t.solver.delta) * t.rate, [total]


def adadelta(t: Step) -> Update:
    """u = g · √((d + delta) / (h + delta)), h and d the running means of g² and u²; w - rate · u (adadelta_solver)."""
    mean_square = t.h[0] * t.solver.momentum + t.g * t.g * (1.0 - t.solver.momentum)
    u = t.g * ((t.h[1] + t.solver.delta) / (mean_square + t.solver.delta)).op("Sqrt")
    return t.w - u * t.rate, [mean_square, t.h[1] * t.solver.momentum + u * u * (1.0 - t.solver.momentum)]


OPTIMIZERS: dict[str, Optimizer] = {
    "SGD": Optimizer(("momentum",), sgd),
    "Nesterov": Optimizer(("momentum",), nesterov),
    "Adam": Optimizer(("mean", "mean_square"), adam, counts_steps=True),
    "AdamW": Optimizer(("mean", "mean_square"), adamw, counts_steps=True, decouples_decay=True),
    "RMSProp": Optimizer(("mean_square",), rmsprop),
    "AdaGrad": Optimizer(("square_sum",), adagrad),
    "AdaDelta": Optimizer(("mean_square", "mean_square_update"), adadelta),
}
