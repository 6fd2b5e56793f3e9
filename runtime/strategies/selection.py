"""What an objective says of networks: in which order they are tried, which may be chosen, and which is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from wootz.passes.errors import WootzError
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Measurements, Objective


@dataclass(frozen=True)
class Candidate:
    """A configuration by its position in the subspace, with what is known of it before training."""

    index: int
    measured: Measurements


def feasible_in_order(candidates: Sequence[Candidate], objective: Objective, full: Measurements) -> list[Candidate]:
    """The candidates that constraints known before training leave, in the order to try them.

    Best first in the metric; a quality is not known, and larger networks tend to be better, so `max Accuracy` goes from
    the largest down (`min Accuracy` up). Equal ones keep their order in the subspace. Raises WootzError when no
    candidate is left.
    """
    left = [c for c in candidates if not violated(c, objective, full)]
    if not left:
        raise WootzError(_nothing_feasible(candidates, objective, full))
    if objective.metric.needs_training:
        metric, largest_first = Metric.MODEL_SIZE, objective.wants_quality
    else:
        metric, largest_first = objective.metric, objective.direction == "max"
    sign = -1 if largest_first else 1
    return sorted(left, key=lambda c: (sign * c.measured[metric], c.index))


def _nothing_feasible(candidates: Sequence[Candidate], objective: Objective, full: Measurements) -> str:
    for constraint in objective.constraints:
        if constraint.metric.needs_training:
            continue
        values = [c.measured[constraint.metric] for c in candidates]
        if not any(constraint.holds(c.measured, full) for c in candidates):
            return (
                f"no configuration can meet '{constraint}': {constraint.metric} of the subspace goes from "
                f"{min(values):g} to {max(values):g} (unpruned: {full[constraint.metric]:g}); "
                f"relax the constraint or add configurations"
            )
    return f"no configuration meets all constraints of '{objective}' together: relax one or add configurations"


def violated(candidate: Candidate, objective: Objective, full: Measurements) -> str:
    """The first constraint known before training that a candidate misses, as text; empty where there is none."""
    known = (c for c in objective.constraints if not c.metric.needs_training)
    return next((str(c) for c in known if not c.holds(candidate.measured, full)), "")


def check_quality_bounds(objective: Objective, full: Measurements | None = None) -> None:
    """Raises WootzError for a bound that no network can meet, whatever it learns; for bounds relative to `full` once
    that is known."""
    for constraint in objective.bounds_of_quality:
        metric = constraint.metric
        if constraint.scale and full is None:
            continue
        if not any(constraint.holds({metric: value}, full or {}) for value in (metric.least, metric.most)):
            ends = f"lies between {metric.least:g} and {metric.most:g}"
            raise WootzError(f"no network can meet '{constraint}': {metric} {ends}")
        if (
            full is not None
            and constraint.scale not in (0, 1)
            and full[metric] < 0
            and not constraint.holds(full, full)
        ):
            raise WootzError(
                f"'{constraint}' asks for more than the full network has, {full[metric]:.4g}: a share of a negative "
                f"number means the opposite; say by how much less is enough, as in '{metric} {constraint.comparison} "
                f"full {'-' if metric.higher_is_better else '+'} {abs(full[metric]) / 50:.2g}' (--objective)"
            )


def check_searchable(objective: Objective) -> None:
    """Raises WootzError for an objective that a search has no use for."""
    if not (objective.wants_quality if objective.metric.needs_training else objective.direction == "min"):
        raise WootzError(
            f"a search is for the cheapest or the best network, not for '{objective}': wootz run is for others"
        )
    for constraint in objective.bounds_of_quality:
        if not constraint.asks_for_quality:
            raise WootzError(f"a search can't keep a network bad ('{constraint}'): wootz run can")


N = TypeVar("N")


def meets(measured: Measurements | None, objective: Objective, full: Measurements) -> TypeGuard[Measurements]:
    """Whether a network may be chosen. One whose training failed, None, may not, whatever the constraints are."""
    return measured is not None and all(constraint.holds(measured, full) for constraint in objective.constraints)


def best_of(networks: Mapping[N, Measurements | None], objective: Objective, full: Measurements) -> N | None:
    """The best of those that meet the constraints, of equals the one with the fewest parameters, the first of these;
    None where none does."""
    best: N | None = None
    best_measured: Measurements | None = None
    for network, measured in networks.items():
        if meets(measured, objective, full) and (best_measured is None or _better(objective, measured, best_measured)):
            best, best_measured = network, measured
    return best


def _better(objective: Objective, a: Measurements, b: Measurements) -> bool:
    if a[objective.metric] == b[objective.metric]:
        return a[Metric.MODEL_SIZE] < b[Metric.MODEL_SIZE]
    return objective.better(a, b)


def nearest(
    networks: Mapping[N, Measurements | None], quality: Metric, full: Measurements, most_lost: float
) -> N | None:
    """The one of the best quality, the first of equals; None where all lose more than `most_lost` of the full one's."""
    bound = Constraint(quality, ">=" if quality.higher_is_better else "<=", offset=-quality.sign * most_lost, scale=1.0)
    return best_of(networks, Objective("max" if quality.higher_is_better else "min", quality, (bound,)), full)
