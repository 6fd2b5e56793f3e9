from __future__ import annotations

import itertools

import numpy as np
import pytest

from wootz.passes.errors import InputError

COMBINATIONS = list(
    itertools.product([(1, 1), (3, 3), (2, 3)], [(1, 1), (2, 1)], [(0, 0), (1, 2)], [(1, 1), (2, 2)], [1, 2])
)


@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation", "group"), COMBINATIONS)
def test_convolution(run_layer, reference, random, close, kernel, stride, pad, dilation, group) -> None:
    x = random.normal(size=(2, 4, 7, 8)).astype(np.float32)
    weight, bias = random.normal(size=(6, 4 // group, *kernel)), random.normal(size=6)
    text = f"""type: "Convolution" convolution_param {{ num_output: 6 group: {group}
        kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]}
        pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation[0]} dilation: {dilation[1]} }}"""
    close(run_layer(text, x, [weight, bias]), reference.convolve(x, weight, bias, stride, pad, dilation, group))


@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation", "group"), COMBINATIONS)
def test_deconvolution(run_layer, reference, random, close, kernel, stride, pad, dilation, group) -> None:
    x = random.normal(size=(2, 4, 5, 6)).astype(np.float32)
    weight = random.normal(size=(4, 6 // group, *kernel))
    text = f"""type: "Deconvolution" convolution_param {{ num_output: 6 group: {group} bias_term: false
        kernel_size: {kernel[0]} kernel_size: {kernel[1]} stride: {stride[0]} stride: {stride[1]}
        pad: {pad[0]} pad: {pad[1]} dilation: {dilation[0]} }}"""
    wanted = reference.deconvolve(x, weight, stride, pad, dilation, group)
    if min(wanted.shape[2:]) < 1:
        pytest.skip("the padding leaves nothing")
    close(run_layer(text, x, [weight]), wanted)


@pytest.mark.parametrize("layer_type", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_a_depthwise_convolution_has_one_group_a_channel(run_layer, reference, random, close, layer_type) -> None:
    x, weight = random.normal(size=(1, 4, 5, 5)).astype(np.float32), random.normal(size=(8, 1, 3, 3))
    text = f'type: "{layer_type}" convolution_param {{ num_output: 8 kernel_size: 3 bias_term: false }}'
    close(run_layer(text, x, [weight]), reference.convolve(x, weight, None, group=4))


def test_padding_of_forks_has_four_sides(run_layer, reference, random, close) -> None:
    x, weight = random.normal(size=(1, 2, 5, 5)).astype(np.float32), random.normal(size=(3, 2, 3, 3))
    text = """type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 bias_term: false
        pad_t: 1 pad_b: 2 pad_l: 0 pad_r: 1 }"""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
    close(run_layer(text, x, [weight]), reference.convolve(padded, weight, None))


def test_the_holes_of_deeplab_are_dilation(run_layer, reference, random, close) -> None:
    x, weight = random.normal(size=(1, 2, 7, 7)).astype(np.float32), random.normal(size=(3, 2, 3, 3))
    text = 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 bias_term: false hole: 2 }'
    close(run_layer(text, x, [weight]), reference.convolve(x, weight, None, dilation=(2, 2)))


def test_every_bottom_has_its_top_and_the_same_weights(run_layer, reference, random, close) -> None:
    x, z = (random.normal(size=(2, 2, 4, 4)).astype(np.float32) for _ in range(2))
    weight = random.normal(size=(3, 2, 2, 2))
    text = 'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 bias_term: false }'
    first, second = run_layer(text, [x, z], [weight], tops=2)
    close(first, reference.convolve(x, weight, None))
    close(second, reference.convolve(z, weight, None))


def test_convolution_over_three_dimensions(run_layer, random, close) -> None:
    x, weight = random.normal(size=(1, 2, 3, 4, 5)).astype(np.float32), random.normal(size=(2, 2, 2, 2, 2))
    text = 'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 bias_term: false }'
    views = np.lib.stride_tricks.sliding_window_view(x, (2, 2, 2), axis=(2, 3, 4))
    close(run_layer(text, x, [weight]), np.einsum("ncdhwijk,ocijk->nodhw", views, weight))


@pytest.mark.parametrize(("stride", "pad", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_im2col(run_layer, random, close, stride, pad, dilation) -> None:
    x = random.normal(size=(2, 3, 6, 5)).astype(np.float32)
    text = f"""type: "Im2col" convolution_param {{ kernel_h: 3 kernel_w: 2 stride: {stride} pad: {pad}
        dilation: {dilation} }}"""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = ((n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(padded.shape[2:], (3, 2), strict=True))
    columns = [
        padded[:, c, i * dilation :, j * dilation :][:, ::stride, ::stride][:, :height, :width]
        for c, i, j in itertools.product(range(3), range(3), range(2))
    ]
    close(run_layer(text, x), np.stack(columns, axis=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("num_output: 3 kernel_size: 9", "a kernel that spans 9 on 4 + 0 positions leaves no output"),
        ("num_output: 3 kernel_size: 3 group: 2", "2 channels and num_output 3 can't be split into 2 groups"),
        ("num_output: 3", "kernel_size is missing"),
        ("kernel_size: 3", "num_output is missing"),
        ("num_output: 3 kernel_size: 3 stride: 0", "stride has to be 1 or more"),
        ("num_output: 3 kernel_h: 3", "kernel_h and kernel_w have to be given together"),
        ("num_output: 3 kernel_size: 3 pad: 1 pad: 1 pad: 1", "3 values of pad for 2 dimensions"),
        ("num_output: 3 kernel_size: 3 stride_h: 2 stride_w: 2 stride: 1", "stride_h and stride_w are for two"),
        ("num_output: 3 kernel_size: 3 kernal: 1", "a field 'kernal' that is not understood: did you mean 'kernel_"),
    ],
)
def test_what_makes_no_sense_is_refused(load, fields, message) -> None:
    text = f"""input: "x" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4
        layer {{ name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{ {fields} }} }}"""
    with pytest.raises(InputError) as error:
        load(text)
    assert message in str(error.value)
    assert str(error.value).startswith("net.prototxt:2:")
