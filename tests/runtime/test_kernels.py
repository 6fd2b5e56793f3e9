"""The operators of domain wootz.native against plain formulas in float64, in both layouts, on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.training.functions import gradient_functions
from wootz.passes.training.fuse_elementwise import OPERANDS, OPERATIONS
from wootz.runtime.kernels import library
from wootz.runtime.session import Device, ExactSession

LIBRARY = library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the operators of domain wootz.native were not built")
LANES = LIBRARY.lanes if LIBRARY else 1
RANDOM = np.random.default_rng(0)


def run(operator, operands, count=1, **attributes):
    """The results of one node; they must be the same on more threads."""
    names = [f"x{i}" for i in range(len(operands))]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(count)], domain="wootz.native")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    inputs = [helper.make_tensor_value_info(n, 1, x.shape) for n, x in zip(names, operands, strict=True)]
    outputs = [helper.make_tensor_value_info(f"y{i}", 1, None) for i in range(count)]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("wootz.native", 1)]
    model = Model.from_proto(
        helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=imports, ir_version=8)
    )
    feeds = dict(zip(names, operands, strict=True))
    found = [list(ExactSession(model, Device(threads=t)).run(feeds).values()) for t in (1, 3)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other, "the number of threads changes bits")
    return found[0]


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def in_blocks(x):
    """[N, C, H, W] in blocks of channels, with zeros in what fills the last one."""
    images, channels, *space = x.shape
    filled = np.zeros((images, -(-channels // LANES) * LANES, *space), np.float32)
    filled[:, :channels] = x
    turned = np.moveaxis(filled.reshape(images, -1, LANES, *space), 2, -1)
    return np.ascontiguousarray(turned).reshape(filled.shape)


def out_of_blocks(x, channels):
    images, whole, *space = x.shape
    turned = np.moveaxis(x.reshape(images, whole // LANES, *space, LANES), -1, 2).reshape(x.shape)
    assert not turned[:, channels:].any(), "what fills the last block stays zero"
    return turned[:, :channels]


def assert_near(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


# Weight gradients


def weight_gradient(x, dy, kernel, strides, dilations, pads, group):
    """The sum as it is written, tap by tap, in float64."""
    images, filters, *count = dy.shape
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    dw = np.zeros((filters, x.shape[1] // group, *kernel))
    grouped = dy.astype(np.float64).reshape(images, group, filters // group, *count)
    for i, j in np.ndindex(*kernel):
        starts = i * dilations[0], j * dilations[1]
        rows, columns = (slice(s, s + (n - 1) * t + 1, t) for s, n, t in zip(starts, count, strides, strict=True))
        seen = padded[:, :, rows, columns].reshape(images, group, -1, *count)
        dw[:, :, i, j] = np.einsum("ngmpq,ngcpq->gmc", grouped, seen).reshape(filters, -1)
    return dw


def check_weight_gradient(images, channels, filters, size, kernel, strides, dilations, pads, group, blocked):
    count = [
        (n + pads[a] + pads[a + 2] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a, n in enumerate(size)
    ]
    x, dy = normal(images, channels, *size), normal(images, filters, *count)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads, "group": group}
    expected = weight_gradient(x, dy, kernel, strides, dilations, pads, group)
    if blocked:
        attributes |= {"channels": channels, "filters": filters}
        (found,) = run("BlockedConvWeightGrad", [in_blocks(x), in_blocks(dy)], **attributes)
    else:
        (found,) = run("ConvWeightGrad", [x, dy], **attributes)
    products = weight_gradient(np.abs(x), np.abs(dy), kernel, strides, dilations, pads, group)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 5e-7 * products.max(), "sums may cancel out, their rounding doesn't"


def pairs(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


CONVOLUTIONS = st.fixed_dictionaries(
    {
        "images": st.integers(1, 5),
        "size": pairs(7, 16),
        "kernel": pairs(1, 4),
        "strides": pairs(1, 3),
        "dilations": pairs(1, 2),
        "pads": st.tuples(*[st.integers(0, 3)] * 4),
    }
)


@settings(max_examples=80, deadline=None)
@given(CONVOLUTIONS, st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 1, 2, 3]))
def test_weight_gradient(convolution, channels, filters, group):
    check_weight_gradient(**convolution, channels=channels * group, filters=filters * group, group=group, blocked=False)


@settings(max_examples=80, deadline=None)
@given(CONVOLUTIONS, st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_weight_gradient_in_blocks(convolution, channels, filters, is_depthwise):
    filters, group = (channels, channels) if is_depthwise else (filters, 1)
    check_weight_gradient(**convolution, channels=channels, filters=filters, group=group, blocked=True)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("images", "channels", "filters", "size"),
    [(32, 16, 16, (32, 32)), (3, 160, 200, (9, 8)), (5, 16, 200, (9, 8)), (8, 64, 130, (28, 28))],
)
def test_weight_gradients_of_many_parts(images, channels, filters, size, blocked):
    check_weight_gradient(images, channels, filters, size, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, blocked)


def test_images_do_not_run_into_each_other():
    """Lines and images share their pads: what lies beyond a line must not come in."""
    x, dy = np.zeros((2, 1, 3, 3), np.float32), np.zeros((2, 1, 3, 3), np.float32)
    x[0, 0, 2, 2] = x[1, 0, 0, 0] = 1
    dy[1, 0, 0, 0] = 1
    (dw,) = run("ConvWeightGrad", [x, dy], kernel_shape=[3, 3], strides=[1, 1], dilations=[1, 1], pads=[1] * 4, group=1)
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 1, 1] = 1
    np.testing.assert_array_equal(dw, expected)


# Batch normalization


RELUS = st.sampled_from([None, 0.0, 1.5])
"""None, one without a ceiling, and one with it."""


def batch_normalization(x, scale, bias, added, epsilon, relu):
    axes = (0, *range(2, x.ndim))
    shape = [1, -1, *[1] * (x.ndim - 2)]
    x = x.astype(np.float64)
    mean, variance = x.mean(axes), x.var(axes)
    h = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + epsilon)
    y = h * scale.reshape(shape) + bias.reshape(shape) + added
    return (y if relu is None else np.clip(y, 0, relu or None)), mean, variance


def relu_of(relu):
    return {"relu": int(relu is not None), "ceiling": relu or 0.0}


def check_batch_normalization(shape, relu, blocked, adds):
    x = 3 * normal(*shape) + RANDOM.normal(size=(1, shape[1], *[1] * (len(shape) - 2))).astype(np.float32) * 20
    scale, bias, added = normal(shape[1]), normal(shape[1]), normal(*shape) if adds else np.zeros(shape, np.float32)
    expected = batch_normalization(x, scale, bias, added, 1e-3, relu)
    name = f"{'Blocked' * blocked}BatchNormalization{'Add' * adds}"
    data, *further = (in_blocks(t) if blocked else t for t in (x, added))
    y, mean, variance = run(name, [data, scale, bias, *further[:adds]], 3, **relu_of(relu), epsilon=1e-3)
    assert_near(out_of_blocks(y, shape[1]) if blocked else y, expected[0], 1e-4)
    assert_near(mean, expected[1])
    assert_near(variance, expected[2], 1e-4)


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12)).filter(
    lambda s: s[0] * s[2] * s[3] > 3
)


@settings(max_examples=50, deadline=None)
@given(shape=SHAPES, relu=RELUS, blocked=st.booleans(), adds=st.booleans())
def test_batch_normalization(shape, relu, blocked, adds):
    check_batch_normalization(shape, relu, blocked, adds)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("shape", [(64, 5), (8, 3, 17), (2, 3, 4, 5, 6), (1, 40, 64, 64), (32, 16, 32, 32)])
def test_batch_normalization_of_any_rank_and_size(shape, adds):
    check_batch_normalization(shape, 0.0, blocked=False, adds=adds)
    if len(shape) == 4:
        check_batch_normalization(shape, 0.0, blocked=True, adds=adds)


def test_the_variance_of_numbers_far_from_zero():
    x = (1e4 + RANDOM.normal(size=(4, 2, 8, 8))).astype(np.float32)
    *_, variance = run(
        "BatchNormalization", [x, np.ones(2, np.float32), np.zeros(2, np.float32)], 3, epsilon=0.0, **relu_of(None)
    )
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("first", [-1000, 1e4])
def test_the_variance_where_the_first_number_is_far_from_the_others(first, blocked):
    x = normal(32, 2, 64, 64)
    x[0, 1, 0, 0] = first
    name, data = ("BlockedBatchNormalization", in_blocks(x)) if blocked else ("BatchNormalization", x)
    _, mean, variance = run(
        name, [data, np.ones(2, np.float32), np.zeros(2, np.float32)], 3, epsilon=0.0, **relu_of(None)
    )
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_variance_of_what_has_none(bad, blocked):
    x = normal(2, 3, 4, 4)
    x[1, 1, 2, 3] = bad
    name, data = ("BlockedBatchNormalization", in_blocks(x)) if blocked else ("BatchNormalization", x)
    y, _, variance = run(name, [data, np.ones(3, np.float32), np.zeros(3, np.float32)], 3, epsilon=1e-5, **relu_of(0.0))
    y = out_of_blocks(y, 3) if blocked else y
    np.testing.assert_array_equal(np.isnan(variance), [False, True, False])
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, ::2]).all()


@pytest.mark.parametrize("blocked", [False, True])
def test_a_training_that_has_failed_is_seen(blocked):
    """A ReLU doesn't make zeros of NaN."""
    x = normal(2, 3, 4, 4)
    x[0, 1, 2, 3] = np.nan
    name, data = ("BlockedBatchNormalization", in_blocks(x)) if blocked else ("BatchNormalization", x)
    y, *_ = run(name, [data, np.ones(3, np.float32), np.zeros(3, np.float32)], 3, epsilon=1e-5, **relu_of(0.0))
    y = out_of_blocks(y, 3) if blocked else y
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, ::2]).all()


def check_batch_normalization_grad(shape, relu, blocked):
    """Against the body of the ONNX function of the same name."""
    x, dy, scale = normal(*shape), normal(*shape), normal(shape[1])
    axes = (0, *range(2, len(shape)))
    mean, variance = x.mean(axes), x.var(axes)
    y = normal(*shape) if relu is None else np.clip(normal(*shape), 0, relu or None)
    seen = dy if relu is None else np.where((y > 0) & (y < (relu or np.inf)), dy, 0)
    function = gradient_functions()["BatchNormalizationGrad"]
    attributes = {"epsilon": 1e-3, "axes": list(axes), "vector_shape": [1, -1, *[1] * (len(shape) - 2)]}
    operands = [a.astype(np.float64) for a in (seen, x, scale, mean, variance)]
    expected = by_function(function, operands, attributes)
    name, ceiling = (
        ("BatchNormalizationGrad", {}) if relu is None else ("BatchNormalizationReluGrad", {"ceiling": relu})
    )
    images = [dy, x] if relu is None else [dy, x, y]
    given_images = [in_blocks(a) for a in images] if blocked else images
    feeds = [*given_images[:2], scale, mean, variance, *given_images[2:]]
    dx, dscale, dbias = run(f"Blocked{name}" if blocked else name, feeds, 3, **ceiling, epsilon=1e-3)
    assert_near(out_of_blocks(dx, shape[1]) if blocked else dx, expected[0], 1e-4)
    assert_near(dscale, expected[1], 1e-4)
    assert_near(dbias, expected[2], 1e-4)


def by_function(function, operands, attributes):
    """What a function of domain wootz gives, by onnx's reference evaluator."""
    names = [f"x{i}" for i in range(len(operands))]
    outputs = [t.name for t in function.outputs]
    call = helper.make_node(function.name, names, outputs, domain="wootz", **attributes)
    inputs = [helper.make_tensor_value_info(n, 11, x.shape) for n, x in zip(names, operands, strict=True)]
    values = [helper.make_tensor_value_info(n, 11, None) for n in outputs]
    library_model = Model(function_graph(function)).to_proto()
    model = helper.make_model(
        helper.make_graph([call], "g", inputs, values),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("wootz", 1)],
        functions=list(library_model.functions),
    )
    return ReferenceEvaluator(model).run(None, dict(zip(names, operands, strict=True)))


def function_graph(function):
    graph = parse_text('<ir_version: 8, opset_import: ["" : 18, "wootz" : 1]> g () => () {}').graph
    graph.functions = [function.copy()]
    return graph


@settings(max_examples=50, deadline=None)
@given(shape=SHAPES, relu=RELUS, blocked=st.booleans())
def test_batch_normalization_grad(shape, relu, blocked):
    check_batch_normalization_grad(shape, relu, blocked)


@pytest.mark.parametrize("relu", [None, 0.0, 1.5])
@pytest.mark.parametrize("shape", [(64, 5), (8, 3, 17), (2, 3, 4, 5, 6), (32, 16, 32, 32)])
def test_batch_normalization_grad_of_any_rank_and_size(shape, relu):
    check_batch_normalization_grad(shape, relu, blocked=False)
    if len(shape) == 4:
        check_batch_normalization_grad(shape, relu, blocked=True)


# Weights, masks, programs


def max_pooling(x, kernel, strides, dilations, pads):
    """Each window's largest number, and its first place: [N, C, P, Q, 2]."""
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=-np.inf)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    flat = windows.reshape(*windows.shape[:4], -1)
    tap = np.stack(np.unravel_index(flat.argmax(-1), kernel), -1) * dilations
    first = np.stack(np.indices(flat.shape[2:4]), -1) * strides
    return flat.max(-1), first + tap - pads[:2]


def check_max_pool_grad(images, channels, size, kernel, strides, dilations, pads, blocked):
    x = RANDOM.integers(-2, 3, (images, channels, *size)).astype(np.float32)
    y, places = max_pooling(x, kernel, strides, dilations, pads)
    dy, expected = normal(*y.shape), np.zeros(x.shape)
    for n, c, p, q in np.ndindex(*y.shape):
        expected[n, c, *places[n, c, p, q]] += dy[n, c, p, q]
    operands = [in_blocks(t) for t in (dy, x, y)] if blocked else [dy, x, y]
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads_begin": pads[:2]}
    (dx,) = run("BlockedMaxPoolGrad" if blocked else "MaxPoolGrad", operands, **attributes)
    assert_near(out_of_blocks(dx, channels) if blocked else dx, expected)


def check_depthwise_input_grad(images, channels, size, kernel, strides, dilations, pads, blocked):
    count = [
        (n + pads[a] + pads[a + 2] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a, n in enumerate(size)
    ]
    dy, w = normal(images, channels, *count), normal(channels, 1, *kernel)
    padded = np.zeros((images, channels, size[0] + pads[0] + pads[2], size[1] + pads[1] + pads[3]))
    for i, j in np.ndindex(*kernel):
        starts = i * dilations[0], j * dilations[1]
        rows, columns = (slice(s, s + (n - 1) * t + 1, t) for s, n, t in zip(starts, count, strides, strict=True))
        padded[:, :, rows, columns] += dy.astype(np.float64) * w[None, :, 0, i, j, None, None]
    expected = padded[:, :, pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]
    attributes = {"size": size, "strides": strides, "dilations": dilations, "pads_begin": pads[:2]}
    name, given = ("BlockedDepthwiseInputGrad", in_blocks(dy)) if blocked else ("DepthwiseInputGrad", dy)
    (dx,) = run(name, [given, w], **attributes)
    assert_near(out_of_blocks(dx, channels) if blocked else dx, expected)


@settings(max_examples=60, deadline=None)
@given(CONVOLUTIONS, st.integers(1, 20), st.booleans())
def test_depthwise_input_grad(convolution, channels, blocked):
    check_depthwise_input_grad(**convolution, channels=channels, blocked=blocked)


@settings(max_examples=60, deadline=None)
@given(CONVOLUTIONS, st.integers(1, 20), st.booleans())
def test_max_pool_grad(convolution, channels, blocked):
    """Numbers of few values: the first maximum of several counts."""
    kernel, pads = convolution["kernel"], convolution["pads"]
    within = tuple(min(p, k - 1) for p, k in zip(pads, kernel * 2, strict=True))
    check_max_pool_grad(**convolution | {"pads": within}, channels=channels, blocked=blocked)


def test_relu_grad_is_zero_where_y_is():
    y = np.array([[-1, 0, 1e-45, 3, np.inf, np.nan] * 7000], np.float32)
    dy = np.full_like(y, 2)
    np.testing.assert_array_equal(run("ReluGrad", [dy, y], ceiling=0.0)[0], np.where(y <= 0, 0, dy))
    below = np.where((y <= 0) | (y >= 3), 0, dy)
    np.testing.assert_array_equal(run("ReluGrad", [dy, y], ceiling=3.0)[0], below)


@pytest.mark.parametrize(("shape", "group"), [((5, 7, 3, 2), 1), ((6, 4, 3, 3), 2), ((8, 1, 3, 3), 8)])
def test_turned_weights(shape, group):
    w = normal(*shape)
    filters, channels, *kernel = shape
    turned = w[:, :, ::-1, ::-1].reshape(group, filters // group, channels, *kernel).swapaxes(1, 2)
    expected = turned.reshape(group * channels, filters // group, *kernel)
    np.testing.assert_array_equal(run("TurnWeights", [w], group=group)[0], expected)


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("shape", [(16, 16, 3, 3), (5, 20, 1, 1), (33, 8, 3, 2), (40, 37, 3, 3), (35, 48, 1, 1)])
@pytest.mark.parametrize(("block", "together"), [(16, 16), (8, 8), (16, 1)])
def test_ordered_weights(shape, block, together, turned):
    w = normal(*shape)
    logical = w[:, :, ::-1, ::-1].swapaxes(0, 1) if turned else w
    filters, channels, *kernel = logical.shape
    padded = np.pad(logical, [(0, -filters % block), (0, -channels % together), (0, 0), (0, 0)])
    split = padded.reshape(-1, block, padded.shape[1] // together, together, *kernel)
    expected = split.transpose(0, 2, 4, 5, 3, 1).reshape(padded.shape)
    found = run("OrderWeights", [w], block=block, together=together, turned=turned)[0]
    np.testing.assert_array_equal(found, expected)


ARITHMETIC = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, np.float32(0)),
    "Greater": lambda x, y: (x > y).astype(np.float32),
    "Less": lambda x, y: (x < y).astype(np.float32),
    "LessOrEqual": lambda x, y: (x <= y).astype(np.float32),
    "GreaterOrEqual": lambda x, y: (x >= y).astype(np.float32),
    "Where": lambda c, x, y: np.where(c != 0, x, y),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), length=st.sampled_from([1, 3, 255, 256, 257, 40000]))
def test_programs_round_as_single_operators_do(data, length):
    sizes = data.draw(st.lists(st.sampled_from([1, length]), min_size=1, max_size=5))
    operands = [np.abs(normal(n)) + np.float32(0.5) for n in sizes]
    constants = data.draw(st.lists(st.floats(0.5, 2, width=32), min_size=1, max_size=3))
    values = [*operands, *(np.float32(c) for c in constants)]
    program = []
    for _ in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from(sorted(OPERATIONS)))
        places = [data.draw(st.integers(0, len(values) - 1)) for _ in range(3)]
        program += [OPERATIONS[name], *places]
        with np.errstate(all="ignore"):
            values.append(ARITHMETIC[name](*(values[p] for p in places[: OPERANDS[name]])))
    first = len(operands) + len(constants)
    results = data.draw(st.lists(st.integers(first, len(values) - 1), min_size=1, max_size=3, unique=True))
    found = run(
        "Elementwise",
        operands,
        len(results),
        inputs=len(operands),
        constants=constants,
        program=program,
        results=results,
    )
    for place, result in zip(results, found, strict=True):
        expected = np.broadcast_to(values[place], result.shape)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        np.testing.assert_array_equal(result[~np.isnan(result)], expected[~np.isnan(expected)])


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_not_a_number_is_the_largest_and_the_smallest(operator):
    x = np.array([np.nan, 1, np.nan, 2, np.inf, -np.inf] * 50, np.float32)
    y = np.array([1, np.nan, np.nan, 3, np.nan, 0] * 50, np.float32)
    program = [OPERATIONS[operator], 0, 1, 0]
    (found,) = run("Elementwise", [x, y], inputs=2, constants=[0.0], program=program, results=[3])
    np.testing.assert_array_equal(found, {"Max": np.maximum, "Min": np.minimum}[operator](x, y))


# Refusals, and other processors


WEIGHT_GRADIENT = {"kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [1] * 4, "group": 1}


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "message"),
    [
        ("ConvWeightGrad", [(1, 2, 4, 4), (1, 2, 3, 4)], WEIGHT_GRADIENT, "don't belong to one convolution"),
        ("ConvWeightGrad", [(1, 2, 4, 4), (2, 2, 4, 4)], WEIGHT_GRADIENT, r"not \[N, C, H, W\]"),
        ("ConvWeightGrad", [(1, 3, 4, 4), (1, 2, 4, 4)], {**WEIGHT_GRADIENT, "group": 2}, "multiple of group"),
        (
            "BlockedConvWeightGrad",
            [(1, LANES + 1, 4, 4), (1, LANES, 4, 4)],
            {**WEIGHT_GRADIENT, "channels": 3, "filters": 3},
            "aren't in blocks",
        ),
        (
            "BlockedBatchNormalization",
            [(1, LANES + 1, 4, 4), (3,), (3,)],
            {"epsilon": 0.0, "relu": 0, "ceiling": 0.0},
            "in blocks",
        ),
        (
            "BatchNormalization",
            [(2, 3, 4), (2,), (3,)],
            {"epsilon": 0.0, "relu": 0, "ceiling": 0.0},
            "of different shapes",
        ),
        ("BatchNormalizationGrad", [(2, 3, 4), (2, 3, 3), (3,), (3,), (3,)], {"epsilon": 0.0}, "of different shapes"),
        ("ReluGrad", [(5,), (4,)], {"ceiling": 0.0}, "of different shapes"),
        ("BatchNormalization", [(3,), (3,), (3,)], {"epsilon": 0.0, "relu": 0, "ceiling": 0.0}, r"not \[N, C"),
        ("BatchNormalization", [(0, 3, 4), (3,), (3,)], {"epsilon": 0.0, "relu": 0, "ceiling": 0.0}, "empty"),
        (
            "Elementwise",
            [(3,), (4,)],
            {"inputs": 2, "constants": [0.0], "program": [0, 0, 1, 0], "results": [3]},
            "different shapes",
        ),
        (
            "Elementwise",
            [(3,)],
            {"inputs": 1, "constants": [0.0], "program": [0, 0, 7, 0], "results": [2]},
            "isn't there yet",
        ),
        (
            "Elementwise",
            [(3,)],
            {"inputs": 1, "constants": [0.0], "program": [99, 0, 0, 0], "results": [2]},
            "that there isn't",
        ),
        (
            "Elementwise",
            [(3,)],
            {"inputs": 1, "constants": [0.0], "program": [0, 0, 1, 0], "results": [1]},
            "no instruction gives",
        ),
    ],
)
def test_what_does_not_fit_is_refused(operator, shapes, attributes, message):
    count = 3 if "Normalization" in operator else 1
    with pytest.raises(WootzError, match=message):
        run(operator, [normal(*shape) for shape in shapes], count, **attributes)


def test_on_this_processor():
    """A little of everything, which the next test repeats with other vector instructions."""
    for blocked in (False, True):
        check_weight_gradient(3, 19, 21, (9, 11), (3, 2), (1, 2), (2, 1), (1, 0, 2, 1), 1, blocked)
        check_weight_gradient(2, 19, 19, (9, 11), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 19, blocked)
        for relu in (None, 0.0, 1.5):
            check_batch_normalization((3, 19, 7, 9), relu, blocked, adds=False)
            check_batch_normalization((3, 19, 7, 9), relu, blocked, adds=True)
            check_batch_normalization_grad((3, 19, 7, 9), relu, blocked)
            check_depthwise_input_grad(2, 19, (9, 8), (3, 2), (2, 1), (1, 2), (1, 0, 1, 1), blocked)
            check_max_pool_grad(2, 19, (9, 8), (3, 2), (2, 1), (1, 2), (1, 0, 1, 1), blocked)
            test_ordered_weights((3 * LANES, 2 * LANES + 1, 3, 3), LANES, LANES, turned=blocked)


@pytest.mark.parametrize("instructions", ["baseline", "avx2", "avx512"])
def test_with_other_vector_instructions(instructions):
    code = "from wootz.runtime.kernels import library; print(library().instructions)"
    environment = {**os.environ, "WOOTZ_KERNELS": instructions}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if said.stdout.strip() != instructions:
        pytest.skip(f"this processor has no {instructions}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_on_this_processor"]
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert ran.returncode == 0, ran.stdout


def test_numerics_name_instructions_and_program():
    instructions, program = LIBRARY.numerics.split()
    assert instructions == LIBRARY.instructions
    assert len(program) == 12
