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
        ("pool: MIN", "takes one of MAX, AVE, STOCHASTIC, not 'MIN'"),
        ("pool: STOCHASTIC kernel_size: 2 pad: 1", "stochastic pooling takes no padding"),
    ],
)
def test_what_makes_no_sense_is_refused(load, fields, message) -> None:
    text = f"""input: "x" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4
        layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {fields} }} }}"""
    with pytest.raises(InputError) as error:
        load(text)
    assert message in str(error.value)
