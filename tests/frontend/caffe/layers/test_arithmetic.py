from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("operation", ["PROD", "SUM", "MAX"])
def test_eltwise(run_layer, random, close, number, operation) -> None:
    inputs = [random.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(number)]
    function = {"PROD": np.prod, "SUM": np.sum, "MAX": np.max}[operation]
    close(run_layer(f'type: "Eltwise" eltwise_param {{ operation: {operation} }}', inputs), function(inputs, axis=0))


@pytest.mark.parametrize("coefficients", [(1, -1), (2, 0.5), (-1, 1), (1, 2, 3), (0, 1)])
def test_eltwise_with_coefficients(run_layer, random, close, coefficients) -> None:
    inputs = [random.normal(size=(2, 3)).astype(np.float32) for _ in coefficients]
    text = f'type: "Eltwise" eltwise_param {{ {" ".join(f"coeff: {c}" for c in coefficients)} }}'
    close(run_layer(text, inputs), np.tensordot(np.array(coefficients, np.float32), np.array(inputs), 1))


def test_axpy(run_layer, random, close) -> None:
    scale, x, y = (random.normal(size=s).astype(np.float32) for s in [(2, 3), (2, 3, 4, 5), (2, 3, 4, 5)])
    close(run_layer('type: "Axpy"', [scale, x, y]), scale[..., None, None] * x + y)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("SUM", np.sum),
        ("ASUM", lambda x, a: np.abs(x).sum(a)),
        ("SUMSQ", lambda x, a: (x**2).sum(a)),
        ("MEAN", np.mean),
    ],
)
def test_reduction(run_layer, random, close, operation, function, axis) -> None:
    x = random.normal(size=(3, 4, 5)).astype(np.float32)
    text = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: 2 }}'
    close(run_layer(text, x), np.asarray(2 * function(x, tuple(range(axis % 3, 3))), np.float32))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax(run_layer, random, close, axis) -> None:
    x = random.normal(size=(2, 3, 4)).astype(np.float32)
    e = np.exp(x)
    close(run_layer(f'type: "Softmax" softmax_param {{ axis: {axis} }}', x), e / e.sum(axis, keepdims=True))


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("values", [True, False])
def test_arg_max_of_an_image(run_layer, random, top_k, values) -> None:
    x = random.permutation(2 * 3 * 4).reshape(2, 3, 4).astype(np.float32)
    text = f'type: "ArgMax" argmax_param {{ top_k: {top_k} out_max_val: {str(values).lower()} }}'
    order = np.argsort(-x.reshape(2, -1))[:, :top_k]
    rows = [order] + ([np.take_along_axis(x.reshape(2, -1), order, 1)] if values else [])
    np.testing.assert_array_equal(run_layer(text, x), np.stack(rows, 1))


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("values", [True, False])
def test_arg_max_along_an_axis(run_layer, random, top_k, values) -> None:
    x = random.permutation(2 * 3 * 4).reshape(2, 3, 4).astype(np.float32)
    text = f'type: "ArgMax" argmax_param {{ axis: 1 top_k: {top_k} out_max_val: {str(values).lower()} }}'
    order = np.argsort(-x, axis=1)[:, :top_k]
    np.testing.assert_array_equal(run_layer(text, x), np.take_along_axis(x, order, 1) if values else order)


def test_of_equal_maxima_the_last_is_taken(run_layer) -> None:
    np.testing.assert_array_equal(run_layer('type: "ArgMax"', np.zeros((1, 5), np.float32)), [[[4]]])


@pytest.mark.parametrize(
    ("inputs", "body", "message"),
    [
        ("dim: 2 dim: 3|dim: 2 dim: 4", 'type: "Eltwise"', "its bottoms have shapes N×3 and N×4"),
        ("dim: 2|dim: 2", 'type: "Eltwise" eltwise_param { coeff: 1 }', "1 coefficients for SUM of 2 bottoms"),
        ("dim: 2 dim: 3", 'type: "ArgMax" argmax_param { top_k: 4 }', "top_k 4 of 3 values"),
        ("dim: 2 dim: 3", 'type: "Softmax" softmax_param { axis: 2 }', "axis 2 of a blob with 2 dimensions"),
        ("dim: 2|dim: 2", 'type: "Softmax"', "it has 2 bottoms where 1 are wanted"),
    ],
)
def test_what_makes_no_sense_is_refused(load, inputs, body, message) -> None:
    shapes = inputs.split("|")
    head = "".join(f'input: "{name}" input_shape {{ {s} }} ' for name, s in zip("ab", shapes, strict=False))
    bottoms = " ".join(f'bottom: "{name}"' for name, _ in zip("ab", shapes, strict=False))
    with pytest.raises(InputError) as error:
        load(f'{head} layer {{ name: "l" {bottoms} top: "y" {body} }}')
    assert message.replace("N", "2") in str(error.value)
