"""Layers of forks that choose, repeat or reorder elements: Pad, Reverse, DepthToSpace, BatchReindex, Filter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import Unsigned
from wootz.frontend.caffe.shape import Dim, Symbol, static, static_shape, text

FIRST_POSITION = int(np.iinfo(np.int64).min)
"""Where a Slice that goes backwards ends so that the first position is in it."""


@dataclass(frozen=True)
class PadParameter:
    """PadParameter of Synopsys's fork: two paddings an axis, before and behind."""

    paddings: tuple[Unsigned, ...] = ()
    constant_values: float = 0.0


@dataclass(frozen=True)
class ReverseParameter:
    axis: tuple[int, ...] = ()


class DepthFormat(Enum):
    """Where the channels of the bottom are, and how they become pixels (ONNX's modes)."""

    NHWC = "NHWC"
    NCHW = "NCHW"
    DCR = "DCR"
    CRD = "CRD"


@dataclass(frozen=True)
class DepthToSpaceParameter:
    """DepthToSpaceParameter of Synopsys's fork."""

    block_size: Unsigned
    data_format: DepthFormat = DepthFormat.NHWC


@dataclass(frozen=True)
class PixelShuffleParameter:
    upscale_factor: Unsigned


def pad(site: Site, p: PadParameter) -> Value:
    site.expect_inputs(1)
    x = site.input
    if len(p.paddings) != 2 * len(x.shape):
        raise site.error(f"{len(p.paddings)} paddings for {len(x.shape)} axes: two an axis")
    befores, behinds = p.paddings[::2], p.paddings[1::2]
    shape = tuple(
        d if before == behind == 0 else static(d) + before + behind
        for d, before, behind in zip(x.shape, befores, behinds, strict=True)
    )
    if shape == x.shape:
        return x
    pads = site.constant([*map(int, befores), *map(int, behinds)], "paddings")
    return Value(site.op("Pad", x.tensor, pads, site.constant(p.constant_values, "constant")), shape)


def reverse(site: Site, p: ReverseParameter) -> Value:
    """Slice with steps of -1; without `axis` along the first, as in the forks where it is the time."""
    site.expect_inputs(1)
    x = site.input
    axes = sorted({site.axis(axis, len(x.shape)) for axis in p.axis or (0,)})
    y = site.op(
        "Slice",
        x.tensor,
        site.constant([-1] * len(axes), "starts"),
        site.constant([FIRST_POSITION] * len(axes), "ends"),
        site.constant(axes, "axes"),
        site.constant([-1] * len(axes), "steps"),
    )
    return Value(y, x.shape)


def depth_to_space(site: Site, p: DepthToSpaceParameter) -> Value:
    if p.data_format is not DepthFormat.NHWC:
        mode = "CRD" if p.data_format is DepthFormat.CRD else "DCR"
        return shuffled_pixels(site, int(p.block_size), mode)
    site.expect_inputs(1)
    x = site.input
    if len(x.shape) != 4:
        raise site.error(f"a blob of shape {text(x.shape)}: channels become pixels of images")
    last = (x.shape[0], x.shape[3], x.shape[1], x.shape[2])
    first = Value(site.op("Transpose", x.tensor, perm=[0, 3, 1, 2]), last)
    y = _blocks(site, first, int(p.block_size), "DCR")
    images, channels, height, width = y.shape
    return Value(site.op("Transpose", y.tensor, perm=[0, 2, 3, 1]), (images, height, width, channels))


def pixel_shuffle(site: Site, p: PixelShuffleParameter) -> Value:
    """Channel (c, i, j) becomes the pixel (i, j) of each block of channel c (Shi et al. 2016)."""
    return shuffled_pixels(site, int(p.upscale_factor), "CRD")


def shuffled_pixels(site: Site, block: int, mode: str) -> Value:
    """DepthToSpace in one of ONNX's modes."""
    site.expect_inputs(1)
    return _blocks(site, site.input, block, mode)


def _blocks(site: Site, x: Value, block: int, mode: str) -> Value:
    if len(x.shape) != 4:
        raise site.error(f"a blob of shape {text(x.shape)}: channels become pixels of images")
    channels, height, width = static_shape(x.shape[1:])
    if block < 1 or channels % block**2:
        raise site.error(f"{channels} channels can't become blocks of {block}×{block} pixels")
    shape: tuple[Dim, ...] = (x.shape[0], channels // block**2, height * block, width * block)
    return Value(site.op("DepthToSpace", x.tensor, blocksize=block, mode=mode), shape)


def batch_reindex(site: Site, p: None) -> Value:
    """The images that the second bottom numbers."""
    site.expect_inputs(2)
    x, numbers = site.inputs
    if len(numbers.shape) != 1:
        raise site.error(f"the numbers of the images have shape {text(numbers.shape)}: one axis is wanted")
    chosen = site.op("Cast", numbers.tensor, to=np.int64)
    return Value(site.op("Gather", x.tensor, chosen, axis=0), (numbers.shape[0], *x.shape[1:]))


def filter_images(site: Site, p: None) -> list[Value]:
    """Of every bottom but the last the images for which the last one is not 0: their number is known at run time."""
    site.expect_inputs(2, 1000)
    *filtered, selector = site.inputs
    for value in filtered:
        if value.shape[:1] != selector.shape[:1]:
            raise site.error(f"{text(value.shape[:1])} images are chosen by {text(selector.shape[:1])} numbers")
    if any(d != 1 for d in selector.shape[1:]):
        raise site.error(f"the selector has shape {text(selector.shape)}: one number an image is wanted")
    flat = site.op("Reshape", selector.tensor, site.constant([-1], "shape"))
    chosen = site.op("Squeeze", site.op("NonZero", flat), site.constant([0], "axis"))
    images = Symbol(site.lowered.builder.fresh(f"{site.layer.name}.images"))
    return [Value(site.op("Gather", v.tensor, chosen, axis=0), (images, *v.shape[1:])) for v in filtered]
