from __future__ import annotations

import itertools

import numpy as np
import pytest

from wootz.passes.errors import InputError


def interpolate(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, corners on corners (`interp.cpp` of DeepLab)."""
    y = np.zeros((*x.shape[:2], height, width), np.float32)
    for i, j in itertools.product(range(height), range(width)):
        row = i * (x.shape[2] - 1) / (height - 1) if height > 1 else 0
        column = j * (x.shape[3] - 1) / (width - 1) if width > 1 else 0
        top, left = min(int(row), x.shape[2] - 1), min(int(column), x.shape[3] - 1)
        bottom, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
        a, b = row - top, column - left
        y[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, top, left] + b * x[:, :, top, right]) + a * (
            (1 - b) * x[:, :, bottom, left] + b * x[:, :, bottom, right]
        )
    return y


@pytest.mark.parametrize(
    ("fields", "size", "crop"),
    [
        ("height: 9 width: 4", (9, 4), 0),
        ("zoom_factor: 3", (16, 13), 0),
        ("shrink_factor: 2", (3, 3), 0),
        ("shrink_factor: 2 zoom_factor: 4", (9, 9), 0),
        ("height: 7 width: 7 pad_beg: -1 pad_end: -1", (7, 7), 1),
        ("height: 1 width: 1", (1, 1), 0),
    ],
)
def test_interp(run_layer, random, close, fields, size, crop) -> None:
    x = random.normal(size=(2, 3, 6, 5)).astype(np.float32)
    inner = x[:, :, crop : 6 - crop, crop : 5 - crop]
    close(run_layer(f'type: "Interp" interp_param {{ {fields} }}', x), interpolate(inner, *size))


def test_interp_to_the_size_of_another_blob(run_layer, random, close) -> None:
    x, other = (random.normal(size=s).astype(np.float32) for s in [(1, 2, 4, 4), (1, 1, 7, 9)])
    close(run_layer('type: "Interp"', [x, other]), interpolate(x, 7, 9))


@pytest.mark.parametrize("fields", ["scale: 2", "scale: 1 stride: 2"])
def test_upsample_repeats(run_layer, random, fields) -> None:
    x = random.normal(size=(2, 3, 2, 4)).astype(np.float32)
    found = run_layer(f'type: "Upsample" upsample_param {{ {fields} }}', x)
    np.testing.assert_array_equal(found, x.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize(("size", "fields"), [(4, "scale: 2"), (5, "scale: 2 upsample_h: 5 upsample_w: 5")])
def test_upsample_with_a_mask_puts_maxima_back(load, run, random, size, fields) -> None:
    text = f"""input: "x" input_dim: 1 input_dim: 2 input_dim: {size} input_dim: {size}
        layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" top: "mask"
                pooling_param {{ kernel_size: 2 stride: 2 }} }}
        layer {{ name: "u" type: "Upsample" bottom: "p" bottom: "mask" top: "y" upsample_param {{ {fields} }} }}"""
    result = load(text)
    assert "Mod" not in [n.op for n in result.model.graph.nodes]
    x = random.normal(size=(3, 2, size, size)).astype(np.float32)
    (y,) = run(result, {"x": x}).values()
    assert y.shape == x.shape
    np.testing.assert_array_equal(y[y != 0], x[y != 0])
    step = np.add.reduceat(np.add.reduceat((y != 0).astype(int), range(0, size, 2), 2), range(0, size, 2), 3)
    assert (step == 1).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_reorg_moves_as_darknet_does(run_layer, reverse) -> None:
    stride, channels, height, width = 2, 8, 4, 6
    x = np.arange(channels * height * width, dtype=np.float32).reshape(1, channels, height, width)
    wanted = np.zeros(x.size, np.float32)
    few = channels // stride**2
    for k, j, i in itertools.product(range(channels), range(height), range(width)):
        c2, offset = k % few, k // few
        w2, h2 = i * stride + offset % stride, j * stride + offset // stride
        near = i + width * (j + height * k)
        far = w2 + width * stride * (h2 + height * stride * c2)
        source, target = (near, far) if reverse else (far, near)
        wanted[target] = x.reshape(-1)[source]
    found = run_layer(f'type: "Reorg" reorg_param {{ stride: 2 reverse: {str(reverse).lower()} }}', x)
    shape = (1, 2, 8, 12) if reverse else (1, 32, 2, 3)
    np.testing.assert_array_equal(found, wanted.reshape(shape))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('type: "Interp" interp_param { height: 3 }', "height and width have to be given together"),
        ('type: "Interp" interp_param { pad_beg: 1 }', "pad_beg and pad_end can only be 0 or negative"),
        ('type: "Upsample" bottom: "x"', "has to be the mask of a MAX pooling layer"),
        ('type: "Reorg" reorg_param { stride: 3 }', "can't be reorganised by 3"),
    ],
)
def test_what_makes_no_sense_is_refused(load, body, message) -> None:
    text = 'input: "x" input_dim: 1 input_dim: 8 input_dim: 4 input_dim: 4'
    with pytest.raises(InputError, match=message):
        load(f'{text} layer {{ name: "l" bottom: "x" top: "y" {body} }}')


def coordinate(i: int, size: int, out: int, mode: str) -> float:
    """Where output position `i` lies in the input, as `ResizeBilinearLayer` and TensorFlow have it."""
    if mode == "align_corners" and out > 1:
        return i * (size - 1) / (out - 1)
    if mode in ("half_pixel_centers", "pytorch_half_pixel"):
        return (i + 0.5) * size / out - 0.5
    return i * size / out


def bilinear(x: np.ndarray, out: tuple[int, int], mode: str) -> np.ndarray:
    """[…, H, W] interpolated along one axis, then along the other."""
    for axis, target in zip((-2, -1), out, strict=True):
        size = x.shape[axis]
        rows = []
        for i in range(target):
            at = coordinate(i, size, target, mode)
            low = int(np.floor(at))
            a = np.take(x, max(low, 0), axis)
            b = np.take(x, min(int(np.ceil(at)), size - 1), axis)
            rows.append(a + (b - a) * (at - low))
        x = np.stack(rows, axis)
    return x


@pytest.mark.parametrize("mode", ["", "align_corners", "half_pixel_centers", "pytorch_half_pixel"])
@pytest.mark.parametrize("out", [(7, 9), (2, 3), (4, 5)])
def test_resize_bilinear(run_layer, random, close, mode, out) -> None:
    x = random.normal(size=(2, 3, 4, 5)).astype(np.float32)
    flag = f"{mode}: true" if mode else ""
    fields = f'output_height: {out[0]} output_width: {out[1]} data_format: "NCHW" {flag}'
    close(run_layer(f'type: "ResizeBilinear" resize_bilinear_param {{ {fields} }}', x), bilinear(x, out, mode))


def test_resize_bilinear_with_channels_last(run_layer, random, close) -> None:
    x = random.normal(size=(2, 4, 5, 3)).astype(np.float32)
    found = run_layer('type: "ResizeBilinear" resize_bilinear_param { scale_height: 1.5 scale_width: 2 }', x)
    close(found, bilinear(x.transpose(0, 3, 1, 2), (6, 10), "").transpose(0, 2, 3, 1))


@pytest.mark.parametrize("mode", ["", "align_corners", "half_pixel_centers", "half_pixel_onnx"])
@pytest.mark.parametrize("out", [(7, 9), (2, 3), (8, 10)])
def test_resize_nearest_neighbor(run_layer, random, mode, out) -> None:
    x = random.normal(size=(2, 3, 4, 5)).astype(np.float32)

    def source(i: int, size: int, target: int) -> int:
        if mode == "half_pixel_onnx":
            at = np.floor((i + 0.5) * size / target - 0.5)
        elif mode == "half_pixel_centers":
            at = np.floor((i + 0.5) * size / target)
        elif mode == "align_corners":
            at = np.floor(i * (size - 1) / (target - 1) + 0.5)
        else:
            at = np.floor(i * size / target)
        return int(np.clip(at, 0, size - 1))

    rows, columns = ([source(i, n, o) for i in range(o)] for n, o in zip((4, 5), out, strict=True))
    fields = f'output_height: {out[0]} output_width: {out[1]} data_format: "NCHW" {f"{mode}: true" if mode else ""}'
    found = run_layer(f'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{ {fields} }}', x)
    np.testing.assert_array_equal(found, x[:, :, rows][..., columns])
