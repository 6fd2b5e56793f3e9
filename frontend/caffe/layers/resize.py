"""Layers that change the resolution: Interp, Upsample, Reorg, and resizing layers of forks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import Unsigned
from wootz.frontend.caffe.shape import Shape, static, static_shape, text
from wootz.passes.ir.model import Tensor


@dataclass(frozen=True)
class InterpParameter:
    """InterpParameter of DeepLab; 0 and 1 are its defaults for "not given"."""

    height: Unsigned = 0
    width: Unsigned = 0
    zoom_factor: Unsigned = 1
    shrink_factor: Unsigned = 1
    pad_beg: int = 0
    pad_end: int = 0


@dataclass(frozen=True)
class UpsampleParameter:
    """UpsampleParameter of SegNet (with a mask as second bottom) and of the YOLO forks (without)."""

    scale: Unsigned = 2
    scale_h: Unsigned | None = None
    scale_w: Unsigned | None = None
    upsample_h: Unsigned = 0
    upsample_w: Unsigned = 0
    pad_out_h: bool = False
    pad_out_w: bool = False
    stride: Unsigned | None = None
    stride_h: Unsigned | None = None
    stride_w: Unsigned | None = None


@dataclass(frozen=True)
class ReorgParameter:
    """ReorgParameter of the YOLO forks."""

    stride: Unsigned = 2
    reverse: bool = False


class DataFormat(Enum):
    """How a layer that comes from TensorFlow takes its bottom."""

    NHWC = "NHWC"
    NCHW = "NCHW"


@dataclass(frozen=True)
class ResizeBilinearParameter:
    """ResizeBilinearParameter of Synopsys's fork; sizes that are not given are the bottom's times the scales."""

    align_corners: bool = False
    output_height: Unsigned | None = None
    output_width: Unsigned | None = None
    data_format: DataFormat = DataFormat.NHWC
    scale_height: float = 1.0
    scale_width: float = 1.0
    half_pixel_centers: bool = False
    pytorch_half_pixel: bool = False


@dataclass(frozen=True)
class ResizeNearestNeighborParameter:
    """ResizeNearestNeighborParameter of Synopsys's fork."""

    align_corners: bool = False
    output_height: Unsigned | None = None
    output_width: Unsigned | None = None
    data_format: DataFormat = DataFormat.NHWC
    scale_height: float = 1.0
    scale_width: float = 1.0
    half_pixel_centers: bool = False
    half_pixel_onnx: bool = False


def resize_bilinear(site: Site, p: ResizeBilinearParameter) -> Value:
    """Resize, linear, with TensorFlow's coordinates (its corners on the corners if `align_corners`)."""
    chosen = [p.align_corners, p.half_pixel_centers, p.pytorch_half_pixel]
    if sum(chosen) > 1:
        raise site.error("align_corners, half_pixel_centers and pytorch_half_pixel exclude each other")
    modes = ("align_corners", "half_pixel", "pytorch_half_pixel")
    coordinates = next((mode for mode, is_on in zip(modes, chosen, strict=True) if is_on), "asymmetric")
    return _tensorflow_resize(site, p, mode="linear", coordinate_transformation_mode=coordinates)


def resize_nearest_neighbor(site: Site, p: ResizeNearestNeighborParameter) -> Value:
    """Resize, nearest, with TensorFlow's coordinates."""
    if p.half_pixel_onnx:
        coordinates, rounding = "half_pixel", "floor"
    elif p.half_pixel_centers:
        coordinates, rounding = "half_pixel", "round_prefer_ceil"  # the floor of half a pixel further
    elif p.align_corners:
        coordinates, rounding = "align_corners", "round_prefer_ceil"
    else:
        coordinates, rounding = "asymmetric", "floor"
    return _tensorflow_resize(
        site, p, mode="nearest", nearest_mode=rounding, coordinate_transformation_mode=coordinates
    )


def _tensorflow_resize(
    site: Site, p: ResizeBilinearParameter | ResizeNearestNeighborParameter, **attributes: str
) -> Value:
    site.expect_inputs(1)
    x = site.input
    if len(x.shape) != 4:
        raise site.error(f"a blob of shape {text(x.shape)}: it resizes images")
    channels_last = p.data_format is DataFormat.NHWC
    height, width = static_shape(x.shape[1:3] if channels_last else x.shape[2:])
    size = [
        math.floor(height * p.scale_height) if p.output_height is None else int(p.output_height),
        math.floor(width * p.scale_width) if p.output_width is None else int(p.output_width),
    ]
    if min(size) < 1:
        raise site.error(f"a size of {size[0]}×{size[1]}")
    sizes = site.constant(np.array(size, np.int64), "sizes")
    y = site.op("Resize", x.tensor, None, None, sizes, axes=[1, 2] if channels_last else [2, 3], **attributes)
    return Value(y, (x.shape[0], *size, x.shape[3]) if channels_last else (*x.shape[:2], *size))


def interp(site: Site, p: InterpParameter) -> Value:
    """Bilinear Resize whose corners lie on the corners of the input; negative padding crops first."""
    site.expect_inputs(1, 2)
    x = site.input
    if p.pad_beg > 0 or p.pad_end > 0:
        raise site.error("pad_beg and pad_end can only be 0 or negative")
    begin, end = -p.pad_beg, -p.pad_end
    sizes = [size - begin - end for size in static_shape(x.shape[2:])]
    if min(sizes) < 1:
        raise site.error(f"cropping by {begin} and {end} leaves nothing")
    tensor = x.tensor
    if begin or end:
        tensor = _cropped(site, tensor, begin, sizes)
    reference = static_shape(site.inputs[1].shape[2:]) if len(site.inputs) == 2 else None
    target = list(reference) if reference else _interp_size(site, p, sizes)
    shape = (*x.shape[:2], *target)
    if target == sizes:
        return Value(tensor, shape)
    return Value(_resized(site, tensor, shape, "linear", "align_corners"), shape)


def _interp_size(site: Site, p: InterpParameter, sizes: list[int]) -> list[int]:
    if p.height and p.width:
        return [p.height, p.width]
    if p.height or p.width:
        raise site.error("height and width have to be given together")
    if p.zoom_factor < 1 or p.shrink_factor < 1:
        raise site.error("zoom_factor and shrink_factor have to be 1 or more")
    shrunk = [(size - 1) // p.shrink_factor + 1 for size in sizes]
    return [size + (size - 1) * (p.zoom_factor - 1) for size in shrunk]


def upsample(site: Site, p: UpsampleParameter) -> Value:
    """With a mask MaxUnpool; otherwise each pixel `scale` times."""
    site.expect_inputs(1, 2)
    if len(site.inputs) == 2:
        return _unpooled(site, p)
    if p.upsample_h or p.upsample_w or p.pad_out_h or p.pad_out_w:
        raise site.error("upsample_h, upsample_w, pad_out_h and pad_out_w are for an Upsample layer with a mask")
    factor_h = p.scale_h or p.stride_h or p.stride or p.scale
    factor_w = p.scale_w or p.stride_w or p.stride or p.scale
    return _repeated(site, factor_h, factor_w)


def _repeated(site: Site, factor_h: int, factor_w: int) -> Value:
    x = site.input
    if factor_h < 1 or factor_w < 1:
        raise site.error("the scale has to be 1 or more")
    shape = (*x.shape[:2], static(x.shape[2]) * factor_h, static(x.shape[3]) * factor_w)
    scales = site.constant([1.0, 1.0, float(factor_h), float(factor_w)], "scales")
    y = site.op(
        "Resize",
        x.tensor,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return Value(y, shape)


def _unpooled(site: Site, p: UpsampleParameter) -> Value:
    x, mask = site.inputs
    indices = site.lowered.pooling_indices.get(id(mask.tensor))
    if indices is None:
        raise site.error("its second bottom has to be the mask of a MAX pooling layer")
    height, width = static_shape(x.shape[2:])
    height = p.upsample_h or height * (p.scale_h or p.scale) - p.pad_out_h
    width = p.upsample_w or width * (p.scale_w or p.scale) - p.pad_out_w
    pooled = site.lowered.pooled_shapes[id(mask.tensor)]
    if (height, width) != pooled[2:]:
        raise site.error(f"it restores {height}×{width} where the pooling layer had {pooled[2]}×{pooled[3]}")
    shape: Shape = (*x.shape[:2], height, width)
    # MaxUnpool's own shape would come from the kernel: with explicit sizes the indices alone say where to.
    sizes = site.op(
        "Concat",
        site.op("Slice", site.op("Shape", x.tensor), site.constant([0], "start"), site.constant([2], "end")),
        site.constant([height, width], "sizes"),
        axis=0,
    )
    y = site.op("MaxUnpool", x.tensor, indices, sizes, kernel_shape=[1, 1], strides=[1, 1])
    return Value(y, shape)


def reorg(site: Site, p: ReorgParameter) -> Value:
    """Darknet's reorg, as YOLOv2's forks of Caffe have it: not SpaceToDepth, since it reads channels as pixels."""
    site.expect_inputs(1)
    x = site.input
    stride = int(p.stride)
    images, (channels, height, width) = x.shape[0], static_shape(x.shape[1:])
    if channels % stride**2 or (not p.reverse and (height % stride or width % stride)):
        raise site.error(f"a blob of {channels}×{height}×{width} can't be reorganised by {stride}")
    few = channels // stride**2
    split: Shape
    if p.reverse:
        split, order = (images, stride, stride, few, height, width), [0, 3, 4, 1, 5, 2]
        shape: Shape = (images, few, height * stride, width * stride)
    else:
        split, order = (images, few, height, stride, width, stride), [0, 3, 5, 1, 2, 4]
        shape = (images, channels * stride**2, height // stride, width // stride)
    moved = site.op("Transpose", site.reshape(x.tensor, x.shape, split), perm=order)
    return Value(site.reshape(moved, tuple(split[i] for i in order), shape), shape)


def _cropped(site: Site, x: Tensor, begin: int, sizes: list[int]) -> Tensor:
    return site.op(
        "Slice",
        x,
        site.constant([begin] * 2, "starts"),
        site.constant([begin + size for size in sizes], "ends"),
        site.constant([2, 3], "axes"),
    )


def _resized(site: Site, x: Tensor, shape: Shape, mode: str, coordinates: str) -> Tensor:
    """Resize of the last two dimensions to `shape`."""
    sizes = site.constant(np.array(static_shape(shape[2:]), np.int64), "sizes")
    return site.op("Resize", x, None, None, sizes, mode=mode, coordinate_transformation_mode=coordinates, axes=[2, 3])
