"""Layers written from their definitions, as loops over NumPy arrays: slow, and independent of the lowerings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest


def windows(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], out: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], int]]:
    """For each output position the part of the input in its window, and how many padded positions it covers."""
    for y, x in itertools.product(range(out[0]), range(out[1])):
        slices, area = [], 1
        for axis, position in enumerate((y, x)):
            start = position * stride[axis] - pad[axis]
            end = min(start + kernel[axis], size[axis] + pad[axis])
            area *= end - start
            slices.append(slice(max(start, 0), max(0, min(end, size[axis]))))
        yield (y, x), (slices[0], slices[1]), area


def pooled_size(size: int, kernel: int, stride: int, pad: int, rounds_up: bool = True) -> int:
    """`PoolingLayer::Reshape`."""
    result = int((math.ceil if rounds_up else math.floor)((size + 2 * pad - kernel) / stride)) + 1
    if pad and (result - 1) * stride >= size + pad:
        result -= 1
    return result


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    group: int = 1,
) -> np.ndarray:
    """The sum over a dilated window of each group's channels."""
    images, channels = x.shape[:2]
    outputs, per_group, *kernel = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [(n - e) // s + 1 for n, e, s in zip(padded.shape[2:], extent, stride, strict=True)]
    y = np.zeros((images, outputs, *size))
    for o, i, j in itertools.product(range(outputs), range(size[0]), range(size[1])):
        first = o // (outputs // group) * per_group
        rows = slice(i * stride[0], i * stride[0] + extent[0], dilation[0])
        columns = slice(j * stride[1], j * stride[1] + extent[1], dilation[1])
        y[:, o, i, j] = (padded[:, first : first + per_group, rows, columns] * weight[o]).sum((1, 2, 3))
    assert channels == group * per_group
    return y if bias is None else y + bias[:, None, None]


def deconvolve(
    x: np.ndarray,
    weight: np.ndarray,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    group: int,
) -> np.ndarray:
    """Each input position adds its multiple of the kernel to the output; then the padding is cut off."""
    images, channels, height, width = x.shape
    _, per_group, *kernel = weight.shape
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    full = [s * (n - 1) + e for s, n, e in zip(stride, (height, width), extent, strict=True)]
    y = np.zeros((images, per_group * group, *full))
    for c, i, j in itertools.product(range(channels), range(height), range(width)):
        first = c // (channels // group) * per_group
        rows = slice(i * stride[0], i * stride[0] + extent[0], dilation[0])
        columns = slice(j * stride[1], j * stride[1] + extent[1], dilation[1])
        y[:, first : first + per_group, rows, columns] += x[:, c, i, j, None, None, None] * weight[c]
    return y[:, :, pad[0] : full[0] - pad[0], pad[1] : full[1] - pad[1]]


class Reference:
    """The definitions, for tests."""

    windows = staticmethod(windows)
    pooled_size = staticmethod(pooled_size)
    convolve = staticmethod(convolve)
    deconvolve = staticmethod(deconvolve)


@pytest.fixture
def reference() -> type[Reference]:
    return Reference


@pytest.fixture
def close() -> Callable[[np.ndarray, np.ndarray], None]:
    """Fails unless the largest difference is below 1e-5 of the largest value."""

    def check(found: np.ndarray, wanted: np.ndarray) -> None:
        assert found.shape == wanted.shape
        scale = max(1e-6, float(np.abs(wanted).max(initial=0)))
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=1e-5)

    return check
