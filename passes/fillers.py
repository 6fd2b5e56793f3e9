"""Caffe's fillers: the values that parameters start from (`include/caffe/filler.hpp`)."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.passes.errors import WootzError


class VarianceNorm(Enum):
    FAN_IN = 0
    FAN_OUT = 1
    AVERAGE = 2


@dataclass(frozen=True)
class Filler:
    """FillerParameter, with Caffe's names and defaults."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: VarianceNorm = VarianceNorm.FAN_IN


ZERO, QUARTER, ONE = Filler(), Filler(value=0.25), Filler(value=1.0)


def fill(filler: Filler, shape: tuple[int, ...], seed: int, name: str) -> np.ndarray:
    """float32 values of `shape`; the same for the same seed and name, whatever else the network holds.

    Raises WootzError for a type of filler that Caffe does not have and for a shape that it can't fill.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if filler.type == "constant":
        return np.full(shape, filler.value, np.float32)
    if filler.type == "uniform":
        return _uniform(random, filler.min, filler.max, shape)
    if filler.type == "gaussian":
        return _gaussian(random, filler, shape)
    if filler.type == "xavier":
        bound = math.sqrt(3 / _fan(filler, shape))
        return _uniform(random, -bound, bound, shape)
    if filler.type == "msra":
        return _normal(random, 0, math.sqrt(2 / _fan(filler, shape)), shape)
    if filler.type == "positive_unitball":
        values = random.random(shape, np.float32).reshape(shape[0], -1)
        return (values / values.sum(axis=1, keepdims=True)).reshape(shape)
    if filler.type == "bilinear":
        return _bilinear(shape)
    raise WootzError(
        f"no filler of type {filler.type!r}: Caffe has constant, uniform, gaussian, xavier, msra, bilinear and "
        f"positive_unitball"
    )


def _fan(filler: Filler, shape: tuple[int, ...]) -> float:
    fan_in = math.prod(shape[1:])
    fan_out = math.prod(shape) // shape[1] if len(shape) > 1 else math.prod(shape)
    if filler.variance_norm is VarianceNorm.AVERAGE:
        return max(1.0, (fan_in + fan_out) / 2)
    return max(1, fan_out if filler.variance_norm is VarianceNorm.FAN_OUT else fan_in)


def _uniform(random: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    values = random.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _normal(random: np.random.Generator, mean: float, std: float, shape: tuple[int, ...]) -> np.ndarray:
    values = random.standard_normal(shape, np.float32)
    values *= np.float32(std)
    values += np.float32(mean)
    return values


def _gaussian(random: np.random.Generator, filler: Filler, shape: tuple[int, ...]) -> np.ndarray:
    values = _normal(random, filler.mean, filler.std, shape)
    if filler.sparse >= 0:
        outputs = max(1, shape[0])
        values *= random.random(shape, np.float32) < filler.sparse / outputs
    return values


def _bilinear(shape: tuple[int, ...]) -> np.ndarray:
    """Weights with which a deconvolution of stride ceil(size / 2) interpolates."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise WootzError(f"a bilinear filler needs 4 dimensions and a square kernel, not {shape}")
    size = shape[3]
    factor = math.ceil(size / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    tent = 1 - np.abs(np.arange(size) / factor - centre)
    return np.broadcast_to(np.outer(tent, tent), shape).astype(np.float32)
