"""Pooling, with Caffe's rounding (up, and no window that starts in the padding behind)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from wootz.frontend.caffe.layers.window import Window, read_window
from wootz.frontend.caffe.lowering import Site, Value
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import count, static_shape, total
from wootz.passes.ir.model import Tensor

LOWEST = float(np.finfo(np.float32).min)
HIGHEST_PYRAMID = 8


class PoolMethod(Enum):
    MAX = 0
    AVE = 1
    STOCHASTIC = 2
    AVE_EXC_PAD = 3
    AVE_TF = 3  # noqa: PIE796 - its older name


class RoundMode(Enum):
    CEIL = 0
    FLOOR = 1


@dataclass(frozen=True)
class PoolingParameter:
    """PoolingParameter of caffe.proto; `ceil_mode`, `avg_include_pad` and `pad_l` … `pad_b` are of forks.

    Forks that pool over three dimensions repeat `kernel_size`, `stride` and `pad`, or call them `…_3d`.
    """

    pool: PoolMethod = PoolMethod.MAX
    pad: tuple[Unsigned, ...] = ()
    pad_h: Unsigned | None = None
    pad_w: Unsigned | None = None
    pad_l: Unsigned | None = None
    pad_r: Unsigned | None = None
    pad_t: Unsigned | None = None
    pad_b: Unsigned | None = None
    kernel_size: tuple[Unsigned, ...] = ()
    kernel_h: Unsigned | None = None
    kernel_w: Unsigned | None = None
    stride: tuple[Unsigned, ...] = ()
    stride_h: Unsigned | None = None
    stride_w: Unsigned | None = None
    global_pooling: bool = False
    round_mode: RoundMode = RoundMode.CEIL
    ceil_mode: bool = True
    avg_include_pad: bool = True
    pad_3d: tuple[Unsigned, ...] = ()
    kernel_size_3d: tuple[Unsigned, ...] = ()
    stride_3d: tuple[Unsigned, ...] = ()
    engine: NoEffect | None = None

    @property
    def rounds_up(self) -> bool:
        return self.ceil_mode and self.round_mode is RoundMode.CEIL


class SPPMethod(Enum):
    MAX = 0
    AVE = 1


@dataclass(frozen=True)
class SPPParameter:
    """SPPParameter of caffe.proto; what STOCHASTIC would do in it is not implemented there either."""

    pyramid_height: Unsigned
    pool: SPPMethod = SPPMethod.MAX
    engine: NoEffect | None = None


def pooling(site: Site, p: PoolingParameter) -> list[Value]:
    """MaxPool, AveragePool or their global forms; a second top of MAX is the position of each maximum."""
    site.expect_inputs(1)
    x = site.input
    if len(x.shape) not in (4, 5):
        raise site.error("pooling is over blobs of 4 dimensions, in forks of 5")
    inputs = static_shape(x.shape[2:])
    if p.global_pooling:
        if any((p.kernel_size, p.kernel_size_3d, p.kernel_h, p.kernel_w)):
            raise site.error("global_pooling takes its kernel from the bottom: remove kernel_size")
        ones, zeros = (1,) * len(inputs), (0,) * len(inputs)
        window = Window(inputs, ones, ones, zeros, zeros)
    else:
        kernel, stride, pad = p.kernel_size or p.kernel_size_3d, p.stride or p.stride_3d, p.pad or p.pad_3d
        window = read_window(site, p, len(inputs), kernel, stride, pad)
    method = PoolMethod.AVE_EXC_PAD if p.pool is PoolMethod.AVE and not p.avg_include_pad else p.pool
    if len(site.layer.tops) > 1:
        return _with_mask(site, window, inputs, p.rounds_up, method)
    return [_pooled(site, x, window, method, p.rounds_up)]


def spatial_pyramid(site: Site, p: SPPParameter) -> Value:
    """Pooling into 1, 2², 4², … bins an image, flattened and joined; a pyramid of height 1 is not flattened."""
    site.expect_inputs(1)
    x = site.input
    if len(x.shape) != 4:
        raise site.error("pooling is over blobs of 4 dimensions")
    if not 1 <= p.pyramid_height <= HIGHEST_PYRAMID:
        raise site.error(f"pyramid_height has to be between 1 and {HIGHEST_PYRAMID}")
    sizes = static_shape(x.shape[2:])
    levels = []
    for level in range(p.pyramid_height):
        kernel = tuple(-(-size // 2**level) for size in sizes)
        pads = tuple((k * 2**level - size + 1) // 2 for k, size in zip(kernel, sizes, strict=True))
        window = Window(kernel, kernel, (1, 1), pads, pads)
        levels.append(_pooled(site, x, window, PoolMethod[p.pool.name], rounds_up=True))
    if len(levels) == 1:
        return levels[0]
    flat = [(v.shape[0], count(v.shape[1:])) for v in levels]
    tensors = [site.op("Flatten", v.tensor, axis=1) for v in levels]
    return Value(site.op("Concat", *tensors, axis=1), (x.shape[0], total([shape[1] for shape in flat])))


def _pooled(site: Site, x: Value, window: Window, method: PoolMethod, rounds_up: bool) -> Value:
    inputs = static_shape(x.shape[2:])
    outputs = [_size(site, window, i, size, rounds_up) for i, size in enumerate(inputs)]
    shape = (*x.shape[:2], *outputs)
    if method is PoolMethod.STOCHASTIC:
        return Value(_stochastic(site, x.tensor, window, inputs, outputs), shape)
    if set(outputs) == {1} and window.kernel == inputs and not any(window.pads):
        kind = "GlobalMaxPool" if method is PoolMethod.MAX else "GlobalAveragePool"
        return Value(site.op(kind, x.tensor), shape)
    pool = {PoolMethod.MAX: _maximum, PoolMethod.AVE: _average, PoolMethod.AVE_EXC_PAD: _average_of_inputs}[method]
    return Value(pool(site, x.tensor, window, inputs, outputs), shape)


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


def _ends(window: Window, inputs: tuple[int, ...], outputs: list[int]) -> tuple[int, ...]:
    """The padding behind that lets ONNX, which rounds down, count as many windows as Caffe."""
    return tuple(
        max(0, (output - 1) * window.strides[i] + window.kernel[i] - inputs[i] - window.begins[i])
        for i, output in enumerate(outputs)
    )


def _arguments(window: Window, begins: tuple[int, ...], ends: tuple[int, ...]) -> dict[str, list[int]]:
    return {"kernel_shape": list(window.kernel), "strides": list(window.strides), "pads": [*begins, *ends]}


def _maximum(site: Site, x: Tensor, window: Window, inputs: tuple[int, ...], outputs: list[int]) -> Tensor:
    ends = _ends(window, inputs, outputs)
    if any(e >= k for e, k in zip(ends, window.kernel, strict=True)):
        # A stride beyond the kernel, rounded up: the last window lies outside, where Caffe leaves its lowest number.
        x = _padded(site, x, (0,) * len(ends), ends, LOWEST)
        ends = (0,) * len(ends)
    return site.op("MaxPool", x, **_arguments(window, window.begins, ends))


def _average(site: Site, x: Tensor, window: Window, inputs: tuple[int, ...], outputs: list[int]) -> Tensor:
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
    return site.op("AveragePool", x, **_arguments(window, (0,) * len(behind), behind))


def _average_of_inputs(site: Site, x: Tensor, window: Window, inputs: tuple[int, ...], outputs: list[int]) -> Tensor:
    """What lies in the padding is not counted."""
    ends = _ends(window, inputs, outputs)
    if any(e >= k for e, k in zip(ends, window.kernel, strict=True)):
        raise site.error("its last window lies outside of the input: the average of nothing has no value")
    return site.op("AveragePool", x, **_arguments(window, window.begins, ends))


def _stochastic(site: Site, x: Tensor, window: Window, inputs: tuple[int, ...], outputs: list[int]) -> Tensor:
    """At test time Σx² / Σx over the window, 0 where the sum is 0 (Zeiler and Fergus, 2013)."""
    if any(window.pads):
        raise site.error("stochastic pooling takes no padding")
    squares = _average(site, site.op("Mul", x, x), window, inputs, outputs)
    sums = _average(site, x, window, inputs, outputs)
    smallest = site.constant(float(np.finfo(np.float32).tiny), "smallest")
    return site.op("Div", squares, site.op("Add", sums, smallest))


def _with_mask(site: Site, window: Window, inputs: tuple[int, ...], rounds_up: bool, method: PoolMethod) -> list[Value]:
    if method is not PoolMethod.MAX or len(inputs) != 2:
        raise site.error("only MAX pooling, over two dimensions, has a mask as its second top")
    outputs = [_size(site, window, i, size, rounds_up) for i, size in enumerate(inputs)]
    shape = (*site.input.shape[:2], *outputs)
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
