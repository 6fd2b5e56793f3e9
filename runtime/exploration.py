"""In which order the networks are tried, and when to stop (paper, section 6.2, "Exploration Scripts")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeGuard, TypeVar

from wootz.passes.errors import WootzError
from wootz.passes.plan.objective import Measurements, Metric, Objective
from wootz.runtime.cluster import Cluster


@dataclass(frozen=True)
class Candidate:
    """A configuration by its position in the subspace, with what is known of it before training."""

    index: int
    measured: Measurements


class Evaluated(Protocol):
    """What a tried network has: all measurements, accuracy included, or None where its training failed."""

    @property
    def measured(self) -> Measurements | None: ...


E = TypeVar("E", bound=Evaluated)


@dataclass(frozen=True)
class Exploration(Generic[E]):
    """The networks that were evaluated, in order, and the best of those that meet the constraints."""

    evaluated: tuple[E, ...]
    best: E | None


def feasible_in_order(candidates: Sequence[Candidate], objective: Objective, full: Measurements) -> list[Candidate]:
    """The candidates that constraints known before training leave, in the order to try them.

    Best first in the metric; accuracy is not known, and larger networks tend to have more of it, so `max Accuracy`
    goes from the largest down (`min Accuracy` up). Equal ones keep their order in the subspace. Raises WootzError
    when no candidate is left.
    """
    known = [c for c in objective.constraints if not c.metric.needs_training]
    left = [c for c in candidates if all(constraint.holds(c.measured, full) for constraint in known)]
    if not left:
        raise WootzError(_nothing_feasible(candidates, objective, full))
    metric = Metric.MODEL_SIZE if objective.metric.needs_training else objective.metric
    sign = -1 if objective.direction == "max" else 1
    return sorted(left, key=lambda c: (sign * c.measured[metric], c.index))


def _nothing_feasible(candidates: Sequence[Candidate], objective: Objective, full: Measurements) -> str:
    for constraint in objective.constraints:
        if constraint.metric.needs_training:
            continue
        values = [c.measured[constraint.metric] for c in candidates]
        if not any(constraint.holds(c.measured, full) for c in candidates):
            return (
                f"no configuration can meet '{constraint}': {constraint.metric.value} of the subspace goes from "
                f"{min(values):g} to {max(values):g} (unpruned: {full[constraint.metric]:g}); "
                f"relax the constraint or add configurations"
            )
    return f"no configuration meets all constraints of '{objective}' together: relax one or add configurations"


def check_accuracy_bounds(objective: Objective, full: Measurements | None = None) -> None:
    """Raises WootzError for a bound that no accuracy can meet; bounds relative to `full` once that is known."""
    for constraint in objective.constraints:
        if constraint.metric is not Metric.ACCURACY or (constraint.scale and full is None):
            continue
        if not any(constraint.holds({Metric.ACCURACY: value}, full or {}) for value in (0.0, 1.0)):
            raise WootzError(f"no network can meet '{constraint}': an accuracy lies between 0 and 1")


def explore(
    order: Sequence[Candidate],
    objective: Objective,
    full: Measurements,
    evaluate: Callable[[Candidate], E],
    cluster: Cluster,
) -> Exploration[E]:
    """Evaluates candidates in rounds, one a process: process i takes the networks i, i + p, i + 2p, … of `order`.

    Where the metric is known before training, the first network that meets the constraints is the best, and the
    rounds end with the one in which it is found; otherwise all are evaluated. A network whose training failed meets
    none, not even no constraint at all. Every process gets the same result, and the best network is the one that a
    single process finds.
    """
    evaluated: list[E] = []
    stops_early = not objective.metric.needs_training
    for start in range(0, len(order), cluster.size):
        mine = order[start + cluster.rank : start + cluster.rank + 1]
        for results in cluster.gather([evaluate(candidate) for candidate in mine]):
            evaluated.extend(results)
        if stops_early and any(_meets(e.measured, objective, full) for e in evaluated):
            break
    return Exploration(tuple(evaluated), _best(evaluated, objective, full))


def _meets(measured: Measurements | None, objective: Objective, full: Measurements) -> TypeGuard[Measurements]:
    return measured is not None and all(constraint.holds(measured, full) for constraint in objective.constraints)


def _best(evaluated: Sequence[E], objective: Objective, full: Measurements) -> E | None:
    best: E | None = None
    best_measured: Measurements | None = None
    for network in evaluated:
        measured = network.measured
        if _meets(measured, objective, full) and (best_measured is None or objective.better(measured, best_measured)):
            best, best_measured = network, measured
    return best
