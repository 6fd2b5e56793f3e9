"""Kernel, stride, padding and dilation as convolutions and pooling spell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wootz.frontend.caffe.lowering import Site


class SpatialFields(Protocol):
    """The fields that ConvolutionParameter and PoolingParameter have in common. `pad_l` … `pad_b` are of forks."""

    @property
    def pad_h(self) -> int | None: ...
    @property
    def pad_w(self) -> int | None: ...
    @property
    def pad_l(self) -> int | None: ...
    @property
    def pad_r(self) -> int | None: ...
    @property
    def pad_t(self) -> int | None: ...
    @property
    def pad_b(self) -> int | None: ...
    @property
    def kernel_h(self) -> int | None: ...
    @property
    def kernel_w(self) -> int | None: ...
    @property
    def stride_h(self) -> int | None: ...
    @property
    def stride_w(self) -> int | None: ...


@dataclass(frozen=True)
class Window:
    """One value a spatial axis; `begins` and `ends` are the padding before and behind."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        """The order of ONNX: all begins, then all ends."""
        return [*self.begins, *self.ends]

    def extent(self, axis: int) -> int:
        """How many positions the dilated kernel spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1


def read_window(
    site: Site,
    p: SpatialFields,
    rank: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int] = (),
) -> Window:
    """The window of `rank` axes. Raises InputError for contradicting, missing or senseless values."""
    kernels = _per_axis(site, "kernel_size", kernel, (p.kernel_h, p.kernel_w), rank, None)
    strides = _per_axis(site, "stride", stride, (p.stride_h, p.stride_w), rank, 1)
    pads = _per_axis(site, "pad", pad, (p.pad_h, p.pad_w), rank, 0)
    dilations = _per_axis(site, "dilation", dilation, (None, None), rank, 1)
    for name, values in (("kernel_size", kernels), ("stride", strides), ("dilation", dilations)):
        if min(values) < 1:
            raise site.error(f"{name} has to be 1 or more")
    sides = (p.pad_t, p.pad_l, p.pad_b, p.pad_r)
    if any(side is not None for side in sides):
        if rank != 2 or any(pads):
            raise site.error("pad_l, pad_r, pad_t and pad_b are for two dimensions, and exclude pad")
        top, left, bottom, right = (side or 0 for side in sides)
        return Window(kernels, strides, dilations, (top, left), (bottom, right))
    return Window(kernels, strides, dilations, pads, pads)


def _per_axis(
    site: Site, name: str, values: Sequence[int], by_axis: tuple[int | None, int | None], rank: int, default: int | None
) -> tuple[int, ...]:
    if any(v is not None for v in by_axis):
        short = "kernel" if name == "kernel_size" else name
        # Caffe refuses both forms together; files that repeat the same value do exist and are harmless.
        if rank != 2 or (values and tuple(by_axis) not in ((values[0],) * 2, tuple(values))):
            raise site.error(f"{short}_h and {short}_w are for two dimensions, and exclude {name}")
        height, width = by_axis
        if height is None or width is None:
            if default is None:
                raise site.error(f"{short}_h and {short}_w have to be given together")
            height, width = height or default, width or default
        return height, width
    if not values:
        if default is None:
            raise site.error(f"{name} is missing")
        return (default,) * rank
    if len(values) == 1:
        return (values[0],) * rank
    if len(values) != rank:
        raise site.error(f"{len(values)} values of {name} for {rank} dimensions")
    return tuple(values)
