"""How important each filter is: the criteria by which filters are ranked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

from wootz.passes.analysis.channel_walk import Layer
from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.computed_constants import parameter_values
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model


def require_rate(rate: float) -> None:
    """Raises WootzError for a rate outside [0, 1)."""
    if not 0 <= rate < 1:
        raise WootzError(f"{rate} is not a pruning rate: it is the fraction of filters removed, at least 0 and below 1")


def kept_count(filters: int, rate: float, round_to: int = 1, at_least: int = 1) -> int:
    """`max(1, floor(filters * (1 - rate) + 1e-9))`, rounded to the nearest multiple of `round_to`.

    Never more than `filters`. Raises WootzError for a rate outside [0, 1).
    """
    require_rate(rate)
    if rate == 0:
        return filters
    return rounded_count(filters * (1 - rate), filters, round_to, at_least)


def rounded_count(promised: float, filters: int, round_to: int = 1, at_least: int = 1) -> int:
    """The whole number of filters that stay of `filters` where `promised`, a fraction, should."""
    count = math.floor(promised + 1e-9)
    if round_to > 1:
        count = max(round_to, round(count / round_to) * round_to)
    return min(filters, max(1, at_least, count))


def most_important(scores: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` highest scores, ascending; of equal scores the lowest indices are taken."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def filters_of(weight: np.ndarray, layer: Layer) -> np.ndarray:
    """The filters of a layer as rows: float[filters, weights of a filter]."""
    if layer.filter_axis == 1 and layer.groups > 1:  # grouped ConvTranspose: (inputs, filters of a group, …)
        weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = np.moveaxis(weight, 2, 1)
        return weight.reshape(layer.size, -1)
    return np.moveaxis(weight, layer.filter_axis, 0).reshape(layer.size, -1)


def l1(filters: np.ndarray) -> np.ndarray:
    """Sum of absolute weights, in float32 (Li et al. 2017, "Pruning filters for efficient convnets")."""
    return np.abs(filters).sum(1, dtype=np.promote_types(filters.dtype, np.float32)).astype(np.float64)


def l2(filters: np.ndarray) -> np.ndarray:
    """Euclidean norm."""
    return np.sqrt(np.square(filters, dtype=np.float64).sum(1))


def geometric_median(filters: np.ndarray) -> np.ndarray:
    """Sum of distances to the layer's other filters: small near their geometric median (He et al. 2019, FPGM)."""
    rows = filters.astype(np.float64)
    squares = np.square(rows).sum(1)
    distances = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    return np.sqrt(np.maximum(distances, 0)).sum(1)


WEIGHT_CRITERIA: dict[str, Callable[[np.ndarray], np.ndarray]] = {"l1": l1, "l2": l2, "fpgm": geometric_median}


def channel_scores(model: Model, analysis: ChannelAnalysis, criterion: str = "l1", seed: int = 0) -> np.ndarray:
    """The importance of each channel, by `filter_scores`: float64[atoms], at the channel's own index; NaN where the
    criterion says nothing of any of its filters."""
    return sum_over_channels(analysis, filter_scores(model, analysis, criterion, seed))


def sum_over_channels(analysis: ChannelAnalysis, scores: np.ndarray) -> np.ndarray:
    """The sum over the filters of a channel in all layers: float64[atoms], at the channel's own index.

    Filters without a score (NaN) count as 0, unless no filter of the channel has one."""
    sums = np.bincount(analysis.channel_of, weights=np.nan_to_num(scores), minlength=len(scores)).astype(np.float64)
    known = np.bincount(analysis.channel_of, weights=~np.isnan(scores), minlength=len(scores))
    sums[analysis.channel_of[known[analysis.channel_of] == 0]] = np.nan
    return sums


def filter_scores(model: Model, analysis: ChannelAnalysis, criterion: str, seed: int) -> np.ndarray:
    """The importance of each filter: float64[atoms].

    Criteria: those of `WEIGHT_CRITERIA`, `bn-scale` (absolute scale of the BatchNormalization behind the layer, NaN
    where there is none; Liu et al. 2017) and `random`. Those that look at data are in `data_criteria`.
    """
    scores = np.zeros(len(analysis.channel_of))
    if criterion in WEIGHT_CRITERIA:
        weights = parameter_values(model.graph, analysis.computed)
        for layer in analysis.layers:
            scores[layer.atoms] = WEIGHT_CRITERIA[criterion](filters_of(weights[layer.weight], layer))
    elif criterion == "bn-scale":
        scores[:] = _batch_norm_scales(model, analysis)
    elif criterion == "random":
        for layer in analysis.layers:
            scores[layer.atoms] = np.random.default_rng([seed, zlib.crc32(layer.name.encode())]).random(layer.size)
    else:
        known = ", ".join([*WEIGHT_CRITERIA, "bn-scale", "random; with data: apoz, taylor"])
        raise WootzError(f"no criterion {criterion!r} (there are {known})")
    return scores


def _batch_norm_scales(model: Model, analysis: ChannelAnalysis) -> np.ndarray:
    values = parameter_values(model.graph, analysis.computed)
    scales = np.full(len(analysis.channel_of), np.nan)
    for use in analysis.parameters:
        if model.graph.nodes[use.node].op == "BatchNormalization" and use.operand == 1:
            (atoms,) = use.maps
            scales[atoms[atoms >= 0]] = np.abs(values[use.constant])[atoms >= 0]
    return scales
