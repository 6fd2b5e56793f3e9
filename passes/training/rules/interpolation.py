"""The gradient of Resize."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from wootz.passes.ir.model import Constant
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, like, static


def resize(b: Backward) -> Gradients:
    """Resize is linear and separable: along each axis y = R x with a matrix R, so that dx = Rᵀ dy, axis by axis."""
    dx, x, y = b.gradient(), b.operand(0), b.result()
    if b.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRule("keep_aspect_ratio_policy is not supported: give the sizes or scales themselves")
    if x.shape == y.shape:  # ONNX Runtime copies it, whatever the scales are
        return [dx, 0]
    axes = [a % x.rank for a in b.attribute("axes", range(x.rank))]
    changed = sorted((a, s) for a, s in zip(axes, _scales(b), strict=True) if not _is_kept(b, a, s))
    if all(x.shape[a] == y.shape[a] for a, _ in changed):
        return [dx, 0]
    for axis, scale in changed:
        size, count, *behind = static([x.shape[axis], *y.shape[axis:]], "a resized axis and those behind it")
        matrix = _interpolation(b, size, count, scale or count / size)
        match x.rank - axis:
            case 1:
                dx = dx @ dx.constant(matrix)
            case 2:
                dx = dx.constant(matrix.T) @ dx
            case _:
                planes = dx.reshape([-1, count, math.prod(behind)])
                dx = (dx.constant(matrix.T) @ planes).reshape([-1, size, *behind])
    return [dx.reshape(like(x)) if any(axis < x.rank - 2 for axis, _ in changed) else dx, 0]


def _is_kept(b: Backward, axis: int, scale: float | None) -> bool:
    """Whether an axis stays as it is. A batch of any size is taken to do so where the sizes are stated."""
    before, after = b.operand(0).shape[axis], b.result().shape[axis]
    if scale is not None:
        return scale == 1.0
    return before == after or (axis == 0 and isinstance(before, str) and isinstance(after, str))


def _scales(b: Backward) -> list[float] | list[None]:
    """The scales that the node states, an axis each; None where it states the sizes instead."""
    if len(b.x) > 3 and b.x[3] is not None:
        return [None] * len(b.attribute("axes", b.operand(0).shape))
    tensor = b.operand(2).tensor
    if not isinstance(tensor, Constant):
        raise NoRule("the scales must be constant")
    return [float(v) for v in tensor.values]


def _interpolation(b: Backward, size: int, resized: int, scale: float) -> np.ndarray:
    """The matrix [resized, size] of the node's interpolation along one axis (onnx.ai/onnx/operators, Resize)."""
    mode = b.attribute("mode", "nearest")
    if mode == "nearest":
        coordinates = _coordinates(b, size, resized, np.float32(scale))  # ties fall as in ONNX Runtime
        return _weights_at(_nearest(b, coordinates)[:, None], np.ones((resized, 1)), size)
    coordinates = _coordinates(b, size, resized, np.float64(scale))
    reach, kernel = (1, _triangle) if mode == "linear" else (2, partial(_cubic, b.attribute("cubic_coeff_a", -0.75)))
    stretch = min(scale, 1.0) if b.attribute("antialias", 0) else 1.0
    first = math.floor(-reach / stretch) + 1
    below = np.floor(coordinates)[:, None]
    taps = below + np.arange(first, 2 * reach - first)
    weights = kernel(np.abs(taps - coordinates[:, None]) * stretch)
    if b.attribute("exclude_outside", 0):
        weights = weights * ((taps >= 0) & (taps < size))
    return _weights_at(taps, weights / weights.sum(axis=1, keepdims=True), size)


def _coordinates(b: Backward, size: int, resized: int, scale: np.floating) -> np.ndarray:
    """Where each element of the result lies in the operand, computed in the precision of `scale`."""
    place = np.arange(resized, dtype=scale.dtype)
    half = scale.dtype.type(0.5)
    match b.attribute("coordinate_transformation_mode", "half_pixel"):
        case "half_pixel":
            return (place + half) / scale - half
        case "pytorch_half_pixel":
            return (place + half) / scale - half if resized > 1 else place
        case "align_corners":
            return place * (size - 1) / max(resized - 1, 1)
        case "asymmetric":
            return place / scale
        case other:
            raise NoRule(f"coordinate_transformation_mode={other} is not supported")


def _nearest(b: Backward, coordinates: np.ndarray) -> np.ndarray:
    rounding = {
        "round_prefer_floor": np.ceil(coordinates - 0.5),
        "round_prefer_ceil": np.floor(coordinates + 0.5),
        "floor": np.floor(coordinates),
        "ceil": np.ceil(coordinates),
    }
    return rounding[b.attribute("nearest_mode", "round_prefer_floor")]


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - distance, 0.0)


def _cubic(a: float, distance: np.ndarray) -> np.ndarray:
    """Keys 1981, equation 15, for any a."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _weights_at(taps: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The matrix with `weights` at `taps` of each row; what lies outside counts for the border."""
    matrix = np.zeros((len(taps), size))
    rows = np.arange(len(taps))[:, None]
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1).astype(int)), weights)
    return matrix
