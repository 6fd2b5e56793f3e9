"""Which constraints of its objective a file of a run misses, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from wootz.passes.plan.metrics import METRICS, Metric
from wootz.passes.plan.objective import Constraint
from wootz.runtime.result import BestNetwork, Miss, ObjectiveResult, Speed


def misses(
    objective: ObjectiveResult, quality: Metric, measured: Mapping[Metric, float], speed: Speed
) -> Iterator[Miss]:
    """The constraints that what was `measured` misses; the full network's latency is that of `speed`."""
    for stated, constraint in zip(objective.constraints, constraints_of(objective, quality), strict=True):
        if constraint.metric == Metric.LATENCY:
            constraint = replace(constraint, offset=stated.scale * speed.full.median_ms + stated.offset)
        if not constraint.holds(measured, {}):
            bound = f"{stated.metric} {stated.comparison} {constraint.offset:.6g}"
            yield Miss(constraint=bound, by=abs(measured[constraint.metric] - constraint.offset))


def misses_of_best(objective: ObjectiveResult, quality: Metric, best: BestNetwork, speed: Speed) -> tuple[Miss, ...]:
    """Those of `best.onnx`, by its latency in `speed`: where nobody gave the objective, a network may miss it."""
    measured = {
        Metric.MODEL_SIZE: best.model_size,
        Metric.FLOPS: best.flops,
        quality: best.quality,
        Metric.LATENCY: speed.best.median_ms,
    }
    return tuple(misses(objective, quality, measured, speed))


def constraints_of(objective: ObjectiveResult, quality: Metric) -> list[Constraint]:
    """The objective's constraints with their bounds as numbers."""
    return [
        Constraint(METRICS.get(c.metric, quality), c.comparison, offset=c.bound)
        for c in objective.constraints
        if c.bound is not None
    ]
