"""Pooling, with Caffe's rounding (up, and no window that starts in the padding behind)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.layers.window import Window, read_window
from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Shape, static_shape
from wootz.passes.ir.model import Tensor

LOWEST = float(np.finfo(np.float32).min)


class PoolMethod(Enum):
    MAX = 0
    AVE = 1
    STOCHASTIC = 2


class RoundMode(Enum):
    CEIL = 0
    FLOOR = 1


@dataclass(frozen=True)
class PoolingParameter:
    """PoolingParameter of caffe.proto; `ceil_mode`, `torch_pooling` and `pad_l` … `pad_b` are of forks."""

    pool: PoolMethod = PoolMethod.MAX
    pad: Unsigned | None = None
    pad_h: Unsigned | None = None
    pad_w: Unsigned | None = None
    pad_l: Unsigned | None = None
    pad_r: Unsigned | None = None
    pad_t: Unsigned | None = None
    pad_b: Unsigned | None = None
    kernel_size: Unsigned | None = None
    kernel_h: Unsigned | None = None
    kernel_w: Unsigned | None = None
    stride: Unsigned | None = None
    stride_h: Unsigned | None = None
    stride_w: Unsigned | None = None
    global_pooling: bool = False
    round_mode: RoundMode = RoundMode.CEIL
    ceil_mode: bool = True
    engine: NoEffect | None = None

    @property
    def rounds_up(self) -> bool:
        return self.ceil_mode and self.round_mode is RoundMode.CEIL


def pooling(site: Site, p: PoolingParameter) -> list[Value]:
    """MaxPool, AveragePool or their global forms; a second top of MAX is the position of each maximum."""
    site.expect_inputs(1)
    x = site.input
    if len(x.shape) != 4:
        raise site.error("pooling is over blobs of 4 dimensions")
    height, width = static_shape(x.shape[2:])
    if p.global_pooling:
        if any((p.kernel_size, p.kernel_h, p.kernel_w)):
            raise site.error("global_pooling takes its kernel from the bottom: remove kernel_size")
        window = Window((height, width), (1, 1), (1, 1), (0, 0), (0, 0))
    else:
        window = read_window(site, p, 2, _given(p.kernel_size), _given(p.stride), _given(p.pad))
    sizes = [_size(site, window, i, size, p.rounds_up) for i, size in enumerate((height, width))]
    shape = (*x.shape[:2], *sizes)
    if p.pool is PoolMethod.STOCHASTIC:
        return [Value(_stochastic(site, x.tensor, window, (height, width), sizes), shape)]
    if len(site.layer.tops) > 1:
        return _with_mask(site, window, (height, width), sizes, shape, p.pool)
    if sizes == [1, 1] and window.kernel == (height, width) and not any(window.pads):
        kind = "GlobalMaxPool" if p.pool is PoolMethod.MAX else "GlobalAveragePool"
        return [Value(site.op(kind, x.tensor), shape)]
    if p.pool is PoolMethod.MAX:
        return [Value(_maximum(site, x.tensor, window, (height, width), sizes), shape)]
    return [Value(_average(site, x.tensor, window, (height, width), sizes), shape)]


def _size(site: Site, window: Window, axis: int, size: int, rounds_up: bool) -> int:
    begin, end = window.begins[axis], window.ends[axis]
    kernel, stride = window.kernel[axis], window.strides[axis]
    if max(begin, end) >= kernel:
        raise site.error(f"a padding of {max(begin, end)} is not smaller than the kernel of {kernel}")
    span = size + begin + end - kernel
    result = (-(-span // stride) if rounds_up else span // stride) + 1
    # Padding on either axis makes Caffe drop a last window that starts behind the input, on both axes.
    if any(window.pads) and (result - 1) * stride >= size + begin:
        result -= 1
    if result < 1:
        raise site.error(f"a kernel of {kernel} on {size} + {begin + end} positions leaves no output")
    return result


def _ends(window: Window, inputs: tuple[int, int], outputs: list[int]) -> tuple[int, int]:
    """The padding behind that lets ONNX, which rounds down, count as many windows as Caffe."""
    height, width = (
        max(0, (outputs[i] - 1) * window.strides[i] + window.kernel[i] - inputs[i] - window.begins[i]) for i in (0, 1)
    )
    return height, width


def _arguments(window: Window, begins: tuple[int, ...], ends: tuple[int, ...]) -> dict[str, list[int]]:
    return {"kernel_shape": list(window.kernel), "strides": list(window.strides), "pads": [*begins, *ends]}


def _maximum(site: Site, x: Tensor, window: Window, inputs: tuple[int, int], outputs: list[int]) -> Tensor:
    ends = _ends(window, inputs, outputs)
    if any(e >= k for e, k in zip(ends, window.kernel, strict=True)):
        # A stride beyond the kernel, rounded up: the last window lies outside, where Caffe leaves its lowest number.
        x = _padded(site, x, (0, 0), ends, LOWEST)
        ends = (0, 0)
    return site.op("MaxPool", x, **_arguments(window, window.begins, ends))


def _average(site: Site, x: Tensor, window: Window, inputs: tuple[int, int], outputs: list[int]) -> Tensor:
    """Caffe divides by the part of the window that lies in the input and its padding, not what hangs over."""
    ends = _ends(window, inputs, outputs)
    overhang = any(e > declared for e, declared in zip(ends, window.ends, strict=True))
    if not overhang:
        return site.op(
            "AveragePool",
            x,
            count_include_pad=1 if any(window.begins) or any(ends) else None,
            **_arguments(window, window.begins, ends),
        )
    if any(window.pads):
        x = _padded(site, x, window.begins, window.ends, 0.0)
    behind = tuple(max(0, e - declared) for e, declared in zip(ends, window.ends, strict=True))
    if any(b >= k for b, k in zip(behind, window.kernel, strict=True)):
        raise site.error("its last window lies outside of the input: the average of nothing has no value")
    return site.op("AveragePool", x, **_arguments(window, (0, 0), behind))


def _stochastic(site: Site, x: Tensor, window: Window, inputs: tuple[int, int], outputs: list[int]) -> Tensor:
    """At test time Σx² / Σx over the window, 0 where the sum is 0 (Zeiler and Fergus, 2013)."""
    if any(window.pads):
        raise site.error("stochastic pooling takes no padding")
    squares = _average(site, site.op("Mul", x, x), window, inputs, outputs)
    sums = _average(site, x, window, inputs, outputs)
    smallest = site.constant(float(np.finfo(np.float32).tiny), "smallest")
    return site.op("Div", squares, site.op("Add", sums, smallest))


def _with_mask(
    site: Site,
    window: Window,
    inputs: tuple[int, int],
    outputs: list[int],
    shape: Shape,
    method: PoolMethod,
) -> list[Value]:
    if method is not PoolMethod.MAX:
        raise site.error("only MAX pooling has a mask as its second top")
    ends = _ends(window, inputs, outputs)
    maxima, indices = site.ops("MaxPool", site.input.tensor, count=2, **_arguments(window, window.begins, ends))
    plane = site.constant(inputs[0] * inputs[1], "plane")
    mask = site.op("Cast", site.op("Mod", indices, plane), to=np.float32)
    site.lowered.pooling_indices[id(mask)] = indices
    site.lowered.pooled_shapes[id(mask)] = site.input.shape
    return [Value(maxima, shape), Value(mask, shape)]


def _padded(site: Site, x: Tensor, begins: tuple[int, ...], ends: tuple[int, ...], value: float) -> Tensor:
    pads = site.constant([0, 0, *begins, 0, 0, *ends], "pads")
    return site.op("Pad", x, pads, site.constant(value, "padding") if value else None)


def _given(value: int | None) -> tuple[int, ...]:
    return () if value is None else (value,)
