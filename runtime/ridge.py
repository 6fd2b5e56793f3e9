"""Linear layers by least squares: what a layer sees of its operand, and the weights that come nearest to a target.

All sums are taken in an order that doesn't depend on the number of threads: products of matrices don't, LAPACK's
factorisations do, so that systems of equations are divided until they are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wootz.passes.training.rules.geometry import Window

MOST_PLACES = 16
"""Places along each axis of a feature map that are looked at in one image."""
UNDIVIDED = 64
"""Equations that LAPACK solves on one thread."""


def places(count: Sequence[int], number: int) -> tuple[np.ndarray, ...]:
    """Along each axis of `count` places those that batch `number` looks at: evenly, at most MOST_PLACES, and in other
    batches others."""
    strides = [-(-n // MOST_PLACES) for n in count]
    return tuple(np.arange(number % s, n, s) for n, s in zip(count, strides, strict=True))


def patches(data: np.ndarray, window: Window | None, groups: int, at: Sequence[np.ndarray]) -> np.ndarray:
    """What a layer sees of `data` [n, channels, *size] at the places `at`: [groups, n · places, features].

    Features are in the order of the weights, channels before taps. Without a window, `data` is [n, features].
    """
    if window is None:
        return data[None]
    ends = [max(p, 0) for p in window.pads_end]
    padded = np.pad(data, [(0, 0), (0, 0), *zip(window.pads_begin, ends, strict=True)])
    axes = list(zip(at, window.strides, window.dilations, strict=True))
    taps = []
    for tap in np.ndindex(*window.kernel):
        index = [p * stride + t * dilation for (p, stride, dilation), t in zip(axes, tap, strict=True)]
        taps.append(_at(padded, index).reshape(*data.shape[:2], -1))
    seen = np.stack(taps, axis=2)  # [n, channels, taps, places]
    images, channels, _, count = seen.shape
    seen = seen.reshape(images, groups, channels // groups * len(taps), count)
    return np.ascontiguousarray(seen.transpose(1, 0, 3, 2)).reshape(groups, images * count, -1)


def targets(output: np.ndarray, groups: int, at: Sequence[np.ndarray]) -> np.ndarray:
    """`output` [n, filters, *count] at the places `at`: [groups, n · places, filters of a group]."""
    images, filters = output.shape[:2]
    chosen = _at(output, at) if at else output
    by_group = chosen.reshape(images, groups, filters // groups, -1)
    return np.ascontiguousarray(by_group.transpose(1, 0, 3, 2)).reshape(groups, -1, filters // groups)


def _at(values: np.ndarray, index: Sequence[np.ndarray]) -> np.ndarray:
    """`values` [n, channels, *size] at these indices of each further axis."""
    whole: tuple[Any, ...] = (slice(None), slice(None), *np.ix_(*index))
    return np.asarray(values[whole])


@dataclass
class Moments:
    """Sums over rows of features x and targets y, in float64: of x [groups, features], y [groups, filters], x xᵀ and
    x yᵀ. Features that are not finite leave sums that are not."""

    rows: int = 0
    x: np.ndarray | float = 0.0
    y: np.ndarray | float = 0.0
    xx: np.ndarray | float = 0.0
    xy: np.ndarray | float = 0.0

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """`x` [groups, rows, features] and `y` [groups, rows, filters]."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        turned = x.transpose(0, 2, 1)
        self.rows += x.shape[1]
        self.x, self.y = self.x + x.sum(1), self.y + y.sum(1)
        self.xx, self.xy = self.xx + turned @ x, self.xy + turned @ y


@dataclass(frozen=True)
class Fit:
    """Weights w [groups, features, filters] of which x w, moved to the mean of y, comes nearest to y; the means of y
    and of x w [groups, filters], and the variance of x w."""

    weights: np.ndarray
    target_mean: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def fit(moments: Moments, start: np.ndarray, ridge: float, centred: bool) -> Fit:
    """Ridge regression: the minimum of |x w - y|² / rows + λ |w - start|², where λ is `ridge` in units of the mean
    square of a feature. With `centred`, features and targets are taken about their means: a constant is free."""
    x, y = np.asarray(moments.x) / moments.rows, np.asarray(moments.y) / moments.rows
    xx, xy = np.asarray(moments.xx) / moments.rows, np.asarray(moments.xy) / moments.rows
    about_means = xx - x[:, :, None] * x[:, None, :]
    if centred:
        xx, xy = about_means, xy - x[:, :, None] * y[:, None, :]
    start = start.astype(np.float64)
    weights = np.stack([w + _ridge_step(a, b - a @ w, ridge) for a, b, w in zip(xx, xy, start, strict=True)])
    mean = (x[:, None, :] @ weights)[:, 0]
    variance = np.maximum((weights * (about_means @ weights)).sum(1), 0.0)
    return Fit(weights, y, mean, variance)


def _ridge_step(a: np.ndarray, b: np.ndarray, ridge: float) -> np.ndarray:
    size = np.trace(a) / len(a)
    if size <= 0:
        return np.zeros_like(b)
    return solve(a + ridge * size * np.eye(len(a)), b)


def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of a x = b, `a` [n, n] being symmetric and positive definite, `b` [n, m]: by Schur complements."""
    if len(a) <= UNDIVIDED:
        return np.linalg.solve(a, b)
    half = len(a) // 2
    between = a[:half, half:]
    both = solve(a[:half, :half], np.hstack([between, b[:half]]))
    of_between, of_first = np.hsplit(both, [between.shape[1]])
    second = solve(a[half:, half:] - between.T @ of_between, b[half:] - between.T @ of_first)
    return np.vstack([of_first - of_between @ second, second])
