from __future__ import annotations

import itertools

import numpy as np
import pytest

from wootz.passes.errors import InputError

COMBINATIONS = [
    (size, kernel, stride, pad, up)
    for size, kernel, stride, pad, up in itertools.product(
        [(7, 6), (5, 8)], [(2, 2), (3, 3), (3, 2)], [(1, 1), (2, 2), (3, 2)], [(0, 0), (1, 1), (1, 0)], [True, False]
    )
    if all(p < k for p, k in zip(pad, kernel, strict=True))
]


def pool(reference, x, kernel, stride, pad, up, method):
    size = x.shape[2:]
    out = tuple(reference.pooled_size(n, k, s, p, up) for n, k, s, p in zip(size, kernel, stride, pad, strict=True))
    # Caffe clips the last window of an axis only if either axis is padded.
    if any(pad):
        out = tuple(
            o - 1 if p == 0 and (o - 1) * s >= n else o for o, s, n, p in zip(out, stride, size, pad, strict=True)
        )
    y = np.zeros((*x.shape[:2], *out), np.float32)
    for (i, j), (rows, columns), area in reference.windows(size, kernel, stride, pad, out):
        part = x[:, :, rows, columns]
        y[:, :, i, j] = part.max((2, 3)) if method == "MAX" else part.sum((2, 3)) / area
    return y


COMBINATIONS.append(((6, 5), (2, 1), (2, 3), (1, 0), True))


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad", "up"), COMBINATIONS)
def test_pooling(run_layer, reference, random, close, size, kernel, stride, pad, up, method) -> None:
    x = random.normal(size=(2, 3, *size)).astype(np.float32)
    text = f"""type: "Pooling" pooling_param {{ pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]}
        stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]}
        {"" if up else "round_mode: FLOOR"} }}"""
    close(run_layer(text, x), pool(reference, x, kernel, stride, pad, up, method))


@pytest.mark.parametrize("field", ["round_mode: FLOOR", "ceil_mode: false"])
def test_rounding_down(run_layer, random, field) -> None:
    x = random.normal(size=(1, 1, 6, 6)).astype(np.float32)
    text = f'type: "Pooling" pooling_param {{ pool: MAX kernel_size: 3 stride: 2 {field} }}'
    assert run_layer(text, x).shape == (1, 1, 2, 2)


def test_a_stride_beyond_the_kernel_leaves_the_lowest_number(run_layer) -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5)
    found = run_layer('type: "Pooling" pooling_param { pool: MAX kernel_size: 1 stride: 3 }', x)
    np.testing.assert_array_equal(found, [[[[0, 3, np.finfo(np.float32).min]]]])


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_global_pooling(run_layer, random, close, method) -> None:
    x = random.normal(size=(2, 3, 5, 4)).astype(np.float32)
    text = f'type: "Pooling" pooling_param {{ pool: {method} global_pooling: true }}'
    close(run_layer(text, x), (x.max if method == "MAX" else x.mean)((2, 3), keepdims=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_stochastic_pooling_weighs_each_value_with_itself(run_layer, reference, random, close, stride) -> None:
    x = np.maximum(random.normal(size=(2, 3, 5, 5)), 0).astype(np.float32)
    x[0, 0] = 0
    text = f'type: "Pooling" pooling_param {{ pool: STOCHASTIC kernel_size: 2 stride: {stride} }}'
    out = (reference.pooled_size(5, 2, stride, 0),) * 2
    wanted = np.zeros((2, 3, *out), np.float32)
    for (i, j), (rows, columns), _ in reference.windows((5, 5), (2, 2), (stride,) * 2, (0, 0), out):
        part = x[:, :, rows, columns]
        total = part.sum((2, 3))
        wanted[:, :, i, j] = np.divide((part**2).sum((2, 3)), total, out=np.zeros_like(total), where=total > 0)
    close(run_layer(text, x), wanted)


def test_the_mask_is_the_position_in_the_plane(run_layer, random) -> None:
    x = random.normal(size=(2, 3, 4, 4)).astype(np.float32)
    maxima, mask = run_layer('type: "Pooling" pooling_param { pool: MAX kernel_size: 2 stride: 2 }', x, tops=2)
    found = np.take_along_axis(x.reshape(2, 3, 16), mask.reshape(2, 3, 4).astype(int), 2)
    np.testing.assert_array_equal(found.reshape(2, 3, 2, 2), maxima)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("kernel_size: 2 pad: 2", "a padding of 2 is not smaller than the kernel of 2"),
        ("kernel_size: 9", "a kernel of 9 on 4 + 0 positions leaves no output"),
        ("global_pooling: true kernel_size: 2", "global_pooling takes its kernel from the bottom"),
        ("pool: MIN", "takes one of MAX, AVE, STOCHASTIC, AVE_EXC_PAD, not 'MIN'"),
        ("pool: STOCHASTIC kernel_size: 2 pad: 1", "stochastic pooling takes no padding"),
    ],
)
def test_what_makes_no_sense_is_refused(load, fields, message) -> None:
    text = f"""input: "x" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4
        layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {fields} }} }}"""
    with pytest.raises(InputError) as error:
        load(text)
    assert message in str(error.value)


@pytest.mark.parametrize("fields", ["pool: AVE_EXC_PAD", "pool: AVE_TF", "pool: AVE avg_include_pad: false"])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), [((7, 6), 3, 2, 1), ((5, 8), 3, 1, 1), ((6, 6), 2, 2, 0)])
def test_averages_without_the_padding(run_layer, reference, random, close, fields, size, kernel, stride, pad) -> None:
    x = random.normal(size=(2, 3, *size)).astype(np.float32)
    out = tuple(reference.pooled_size(n, kernel, stride, pad) for n in size)
    wanted = np.zeros((2, 3, *out), np.float32)
    for (i, j), (rows, columns), _ in reference.windows(size, (kernel,) * 2, (stride,) * 2, (pad,) * 2, out):
        wanted[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    text = f'type: "Pooling" pooling_param {{ {fields} kernel_size: {kernel} stride: {stride} pad: {pad} }}'
    close(run_layer(text, x), wanted)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    "fields",
    [
        "kernel_size: [2, 3, 3] stride: [1, 2, 2] pad: [0, 1, 1]",
        "kernel_size_3d: [2, 3, 3] stride_3d: [1, 2, 2] pad_3d: [0, 1, 1]",
    ],
)
def test_three_dimensions(run_layer, random, close, method, fields) -> None:
    x = random.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    kernel, stride, pad = (2, 3, 3), (1, 2, 2), (0, 1, 1)
    out = (3, 3, 4)
    wanted = np.zeros((2, 3, *out), np.float32)
    for position in itertools.product(*map(range, out)):
        starts = [p * s - q for p, s, q in zip(position, stride, pad, strict=True)]
        ends = [min(a + k, n + q) for a, k, n, q in zip(starts, kernel, x.shape[2:], pad, strict=True)]
        part = x[(..., *(slice(max(a, 0), min(e, n)) for a, e, n in zip(starts, ends, x.shape[2:], strict=True)))]
        area = np.prod([e - a for a, e in zip(starts, ends, strict=True)])
        wanted[(..., *position)] = part.max((2, 3, 4)) if method == "MAX" else part.sum((2, 3, 4)) / area
    close(run_layer(f'type: "Pooling" pooling_param {{ pool: {method} {fields} }}', x), wanted)


def test_three_dimensions_pooled_whole(run_layer, random, close) -> None:
    x = random.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    found = run_layer('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', x)
    close(found, x.mean((2, 3, 4), keepdims=True))


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(("size", "height"), [((8, 8), 3), ((7, 10), 2), ((13, 13), 3), ((5, 4), 1)])
def test_spatial_pyramid(run_layer, reference, random, close, method, size, height) -> None:
    """Each level is what a Pooling layer of Caffe gives with the kernel and padding of `SPPLayer::GetPoolingParam`."""
    x = random.normal(size=(2, 3, *size)).astype(np.float32)
    levels = []
    for level in range(height):
        bins = 2**level
        kernel = tuple(-(-n // bins) for n in size)
        pad = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, size, strict=True))
        levels.append(pool(reference, x, kernel, kernel, pad, True, method))
    wanted = levels[0] if height == 1 else np.concatenate([v.reshape(2, -1) for v in levels], axis=1)
    close(run_layer(f'type: "SPP" spp_param {{ pyramid_height: {height} pool: {method} }}', x), wanted)


def test_a_pyramid_too_high_for_its_blob_is_refused(load) -> None:
    with pytest.raises(InputError, match="a padding of 1 is not smaller than the kernel of 1"):
        load("""input: "x" input_dim: [1, 2, 3, 3]
            layer { name: "p" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 3 } }""")
