"""Convolution, Deconvolution and their depthwise forms, Im2col."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wootz.frontend.caffe.layers.window import Window, read_window
from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Dim, Shape, static, static_shape, text
from wootz.passes.fillers import ZERO, Filler
from wootz.passes.ir.model import Constant

LARGEST_ONE_HOT = 2**26
"""Elements of the kernels that stand for Im2col."""


@dataclass(frozen=True)
class ConvolutionParameter:
    """ConvolutionParameter of caffe.proto; `pad_l` … `pad_b` are of forks, `hole` (dilation) of DeepLab's."""

    num_output: Unsigned = 0
    bias_term: bool = True
    pad: tuple[Unsigned, ...] = ()
    kernel_size: tuple[Unsigned, ...] = ()
    stride: tuple[Unsigned, ...] = ()
    dilation: tuple[Unsigned, ...] = ()
    pad_h: Unsigned | None = None
    pad_w: Unsigned | None = None
    pad_l: Unsigned | None = None
    pad_r: Unsigned | None = None
    pad_t: Unsigned | None = None
    pad_b: Unsigned | None = None
    kernel_h: Unsigned | None = None
    kernel_w: Unsigned | None = None
    stride_h: Unsigned | None = None
    stride_w: Unsigned | None = None
    hole: tuple[Unsigned, ...] = ()
    group: Unsigned = 1
    weight_filler: Filler = ZERO
    bias_filler: Filler = ZERO
    axis: int = 1
    engine: NoEffect | None = None
    force_nd_im2col: NoEffect | None = None
    conv_algorithm: NoEffect | None = None


def convolution(site: Site, p: ConvolutionParameter) -> list[Value]:
    """Conv. Each bottom has a top, and all of them the same weights."""
    return _convolutions(site, p, p.group, transposed=False)


def depthwise_convolution(site: Site, p: ConvolutionParameter) -> list[Value]:
    """Conv with one group a channel, whatever `group` says."""
    return _convolutions(site, p, _channels(site, p), transposed=False)


def deconvolution(site: Site, p: ConvolutionParameter) -> list[Value]:
    """ConvTranspose. Caffe's weights have ONNX's layout: input channels × output channels of a group × kernel."""
    return _convolutions(site, p, p.group, transposed=True)


def im2col(site: Site, p: ConvolutionParameter) -> Value:
    """Conv with constant one-hot kernels: each output channel is one position of the window of one channel."""
    channels = _channels(site, p)
    window = read_window(site, p, len(site.input.shape) - 2, p.kernel_size, p.stride, p.pad, p.dilation or p.hole)
    positions = math.prod(window.kernel)
    if channels * positions**2 > LARGEST_ONE_HOT:
        raise site.error(f"{channels} windows of {positions} positions: too large to be written as a convolution")
    one_hot = np.tile(np.eye(positions, dtype=np.float32).reshape(positions, 1, *window.kernel), (channels, 1, 1, 1))
    weight = site.constant(one_hot, "window")
    return _apply(site, site.input, [weight], window, channels, channels * positions, transposed=False)


def _convolutions(site: Site, p: ConvolutionParameter, group: int, transposed: bool) -> list[Value]:
    channels = _channels(site, p)
    for x in site.inputs[1:]:
        if len(x.shape) != len(site.input.shape) or x.shape[1] != channels:
            raise site.error(
                f"its bottoms have shapes {text(site.input.shape)} and {text(x.shape)}: they share weights"
            )
    if p.num_output < 1:
        raise site.error("num_output is missing")
    if group < 1 or channels % group or p.num_output % group:
        raise site.error(f"{channels} channels and num_output {p.num_output} can't be split into {group} groups")
    window = read_window(site, p, len(site.input.shape) - 2, p.kernel_size, p.stride, p.pad, p.dilation or p.hole)
    shape: Shape = (channels, p.num_output // group) if transposed else (p.num_output, channels // group)
    expected = [filled(0, "weight", (*shape, *window.kernel), p.weight_filler)]
    if p.bias_term:
        expected.append(filled(1, "bias", (p.num_output,), p.bias_filler))
    parameters = site.parameters(*expected)
    return [_apply(site, x, parameters, window, group, p.num_output, transposed) for x in site.inputs]


def _apply(
    site: Site, x: Value, parameters: list[Constant], window: Window, group: int, channels: int, transposed: bool
) -> Value:
    sizes = [_size(site, window, i, static(d), transposed) for i, d in enumerate(x.shape[2:])]
    y = site.op(
        "ConvTranspose" if transposed else "Conv",
        x.tensor,
        *parameters,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=window.pads,
        group=group,
    )
    return Value(y, (x.shape[0], channels, *sizes))


def _size(site: Site, window: Window, axis: int, size: int, transposed: bool) -> int:
    padding = window.begins[axis] + window.ends[axis]
    if transposed:
        result = window.strides[axis] * (size - 1) + window.extent(axis) - padding
    else:
        result = (size + padding - window.extent(axis)) // window.strides[axis] + 1
    if result < 1:
        raise site.error(f"a kernel that spans {window.extent(axis)} on {size} + {padding} positions leaves no output")
    return result


def _channels(site: Site, p: ConvolutionParameter) -> int:
    shape: tuple[Dim, ...] = site.input.shape
    if len(shape) < 3 or p.axis % len(shape) != 1:
        raise site.error(f"a convolution over axis {p.axis} of a blob of shape {text(shape)} has no ONNX operator")
    return static_shape(shape[1:])[0]
