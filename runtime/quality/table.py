"""The table of qualities: those that everybody has, and those of installed packages."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.passes.plan.objective import Objective
from wootz.passes.transforms.image_classifier import is_classifier
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.quality.quality import ACCURACY, AGREEMENT, OUTPUT_ERROR, Quality, weighted_output_error

GROUP = "wootz.metrics"
"""The entry points of packages that add qualities: each is a `Quality`."""


@functools.cache
def qualities() -> Mapping[str, Quality]:
    """All qualities by the names of their metrics. Raises WootzError for an entry point that is none, or has the name
    of another metric."""
    found = {quality.metric.name: quality for quality in (ACCURACY, AGREEMENT, OUTPUT_ERROR)}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        quality = _loaded(point)
        if quality.metric.name in {**METRICS, **found}:
            raise WootzError(f"{_named(point)}: there is a metric {quality.metric} already")
        found[quality.metric.name] = quality
    return found


def metrics(own: Quality | None = None) -> Mapping[str, Metric]:
    """All metrics that an objective may name, the user's own among them."""
    known = (*qualities().values(), *filter(None, (own,)))
    return {**METRICS, **{quality.metric.name: quality.metric for quality in known}}


def judged_by(
    objective: Objective | None,
    dataset: Dataset,
    network: Model,
    own: Quality | None = None,
    output_weights: Mapping[str, float] = MappingProxyType({}),
) -> Quality:
    """What networks are judged by: as the objective says, else the user's own metric, else by what the data and the
    outputs allow; OutputError by `output_weights`, where there are any. Raises WootzError for a metric of the user's
    that the objective has no use for."""
    named = None if objective is None else objective.quality
    if own is not None and named not in (None, own.metric):
        raise WootzError(f"--metric {own.metric}: the objective is about {named}")
    if own is not None:
        return own
    if named is not None:
        found = qualities()[named.name]
    elif dataset.train.has_classes:
        found = ACCURACY
    else:
        found = AGREEMENT if is_classifier(network) else OUTPUT_ERROR
    return weighted_output_error(output_weights) if output_weights and found is OUTPUT_ERROR else found


def _loaded(point: EntryPoint) -> Quality:
    try:
        quality = point.load()
    except Exception as error:
        raise WootzError(f"{_named(point)} can't be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(quality, Quality) or not quality.metric.needs_training:
        raise WootzError(f"{_named(point)} is no Quality of a metric that needs training")
    return quality


def _named(point: EntryPoint) -> str:
    return f"the entry point {point.name} = {point.value} of {GROUP}"
