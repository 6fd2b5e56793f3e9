"""Gradients of pooling operators."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from wootz.passes.training.rules.geometry import Window
from wootz.passes.training.rules.rule import Backward, Gradients, NoRule, Rule, like


def max_pool(b: Backward) -> Gradients:
    """dy goes to the first maximum of each window: the one that the operator's second output points at."""
    if b.attribute("storage_order", 0):
        raise NoRule("storage_order=1 is not supported")
    x, y = b.operand(0), b.result()
    try:
        window = Window.of(b.node, x, y, b.attribute("kernel_shape"))
    except NoRule:  # the indices say all there is to know
        return b.gradient().call("MaxPoolGrad", x, y, b.extra_result(1, np.int64))
    _refuse_window_behind(window, b)
    geometry: dict[str, Any] = {"kernel_shape": list(window.kernel), **window.attributes()}
    return b.gradient().call("MaxPoolGrad", x, y, b.extra_result(1, np.int64), **geometry)


def average_pool(b: Backward) -> Gradients:
    """Each dy, divided by the size of its window, goes to all of the window: a transposed convolution with ones.

    Without strides that is an average pooling again, of windows that begin where the others end, which ONNX Runtime
    computes in a tenth of the time. Where it has other pads before an axis than behind it, ONNX Runtime's CUDA provider
    computes it wrong.
    """
    dy, x = b.gradient(), b.operand(0)
    window = Window.of(b.node, x, b.result(), b.attribute("kernel_shape"))
    _refuse_window_behind(window, b)
    counts = _window_counts(window, b)
    if {*window.strides, *window.dilations} == {1} and window.pads_begin == window.pads_end:
        pads = [k - 1 - p for k, p in zip(window.kernel, window.pads_begin, strict=True)]
        of_full = counts / math.prod(window.kernel)
        weighted = dy if (of_full == 1).all() else dy / dy.constant(of_full)
        return [weighted.op("AveragePool", kernel_shape=list(window.kernel), pads=pads * 2, count_include_pad=1)]
    planes = (dy / dy.constant(counts)).reshape([-1, 1, *window.count])
    ones = dy.constant(np.ones((1, 1, *window.kernel)))
    spread = planes.op("ConvTranspose", ones, **window.attributes(), **window.transposed())
    return [spread.reshape(like(x))]


def _refuse_window_behind(window: Window, b: Backward) -> None:
    if b.attribute("ceil_mode", 0) and not window.starts_inside:
        raise NoRule("ceil_mode=1 adds a window that starts behind the operand: versions of ONNX Runtime differ there")


def _window_counts(window: Window, b: Backward) -> np.ndarray:
    """The divisor of each window, of shape [1,1,positions…]: elements inside the operand, or inside its pads too.

    Windows that `ceil_mode` lets reach beyond the padding do not count what lies there.
    """
    axes = len(window.size)
    pads = b.attribute("pads") or [0] * 2 * axes
    pads_end = window.pads_end if b.attribute("auto_pad", "NOTSET") != "NOTSET" else tuple(pads[axes:])
    counts = []
    for axis in range(axes):
        first = window.pads_begin[axis]
        begin, end = first, first + window.size[axis]
        if b.attribute("count_include_pad", 0):
            begin, end = 0, end + pads_end[axis]
        starts = np.arange(window.count[axis])[:, None] * window.strides[axis]
        positions = starts + np.arange(window.kernel[axis])[None, :] * window.dilations[axis]
        counts.append(((positions >= begin) & (positions < end)).sum(axis=1))
    return np.maximum(reduce(np.multiply.outer, counts), 1)[None, None].astype(np.float64)


POOLING: dict[str, Rule] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
}
