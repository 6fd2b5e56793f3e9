from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


CASES = [
    ('type: "ReLU"', lambda x: np.maximum(x, 0)),
    ('type: "ReLU" relu_param { negative_slope: 0.1 engine: CUDNN }', lambda x: np.where(x > 0, x, 0.1 * x)),
    ('type: "ReLU6"', lambda x: np.clip(x, 0, 6)),
    ('type: "ELU" elu_param { alpha: 0.5 }', lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    ('type: "Sigmoid"', sigmoid),
    ('type: "TanH"', np.tanh),
    ('type: "AbsVal"', np.abs),
    ('type: "BNLL"', lambda x: np.log1p(np.exp(x))),
    ('type: "Threshold" threshold_param { threshold: 0.5 }', lambda x: (x > 0.5).astype(np.float32)),
    ('type: "Clip" clip_param { min: -1 max: 0.5 }', lambda x: np.clip(x, -1, 0.5)),
    ('type: "Swish"', lambda x: x * sigmoid(x)),
    ('type: "Swish" swish_param { beta: 2 }', lambda x: x * sigmoid(2 * x)),
    ('type: "HardSwish"', lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ('type: "Mish"', lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    ('type: "Exp"', np.exp),
    ('type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }', lambda x: 2 ** (0.5 * x + 1)),
    ('type: "Power" power_param { power: 3 scale: -1 shift: 0.5 }', lambda x: (0.5 - x) ** 3),
    ('type: "Power" power_param { power: 2 }', lambda x: x**2),
    ('type: "Power" power_param { scale: 0.00390625 }', lambda x: x / 256),
    ('type: "Power" power_param { power: 0 }', np.ones_like),
    ('type: "Dropout" dropout_param { dropout_ratio: 0.3 }', lambda x: x),
    ('type: "Dropout" dropout_param { dropout_ratio: 0.3 scale_train: false }', lambda x: 0.7 * x),
]


@pytest.mark.parametrize(("text", "function"), CASES)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 7)])
def test_elementwise(run_layer, random, close, text, function, shape) -> None:
    x = random.normal(0, 3, size=shape).astype(np.float32)
    close(run_layer(text, x), function(x).astype(np.float32))


@pytest.mark.parametrize(
    ("parameter", "function"),
    [("", np.log), ("log_param { base: 10 scale: 2 shift: 1 }", lambda x: np.log10(2 * x + 1))],
)
def test_log(run_layer, random, close, parameter, function) -> None:
    x = random.uniform(0.1, 9, size=(2, 3)).astype(np.float32)
    close(run_layer(f'type: "Log" {parameter}', x), function(x))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 3)])
@pytest.mark.parametrize("shared", [True, False])
def test_prelu(run_layer, random, close, shape, shared) -> None:
    x = random.normal(size=shape).astype(np.float32)
    slope = random.uniform(0.05, 0.45, size=() if shared else 3)
    found = run_layer(f'type: "PReLU" prelu_param {{ channel_shared: {str(shared).lower()} }}', x, [slope])
    spread = slope if shared else slope.reshape(3, *(1,) * (len(shape) - 2))
    close(found, np.where(x > 0, x, spread * x).astype(np.float32))


def test_a_base_without_logarithm_is_refused(load) -> None:
    with pytest.raises(InputError, match="a base of -2: it has to be positive and not 1, or -1 for e"):
        load("""input: "x" input_shape { dim: 1 dim: 2 }
            layer { name: "e" type: "Exp" bottom: "x" top: "y" exp_param { base: -2 } }""")


def test_dropout_makes_no_node(load) -> None:
    result = load("""input: "x" input_shape { dim: 1 dim: 2 }
        layer { name: "r" type: "ReLU" bottom: "x" top: "r" }
        layer { name: "d" type: "Dropout" bottom: "r" top: "r" }
        layer { name: "s" type: "Softmax" bottom: "r" top: "y" }""")
    assert [n.op for n in result.model.graph.nodes] == ["Relu", "Softmax"]
    assert "r" in result.model.graph.tensors()


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ("relu6: true", lambda x: np.clip(x, 0, 6)),
        ("maximum: 3", lambda x: np.clip(x, 0, 3)),
        ("relu6: true maximum: 8", lambda x: np.clip(x, 0, 6)),
        ("minimum: 1", lambda x: np.maximum(x, 1)),
        ("minimum: -1", lambda x: np.maximum(x, 0)),
        ("negative_slope: 0.5 maximum: 3 minimum: -1", lambda x: np.clip(np.where(x > 0, x, 0.5 * x), -1, 3)),
    ],
)
def test_bounded_relu(run_layer, random, close, fields, function) -> None:
    x = random.normal(0, 5, size=(2, 3, 4)).astype(np.float32)
    close(run_layer(f'type: "ReLU" relu_param {{ {fields} }}', x), function(x).astype(np.float32))


@pytest.mark.parametrize("spelling", ["SELU", "SeLU", "SeLu"])
@pytest.mark.parametrize(
    ("fields", "factor", "alpha"), [("", 1.050700987, 1.67326324), ("selu_param { lambda: 2 alpha: 0.5 }", 2, 0.5)]
)
def test_selu(run_layer, random, close, spelling, fields, factor, alpha) -> None:
    x = random.normal(size=(2, 3)).astype(np.float32)
    wanted = np.where(x > 0, factor * x, factor * alpha * (np.exp(x) - 1))
    close(run_layer(f'type: "{spelling}" {fields}', x), wanted.astype(np.float32))


@pytest.mark.parametrize("field", ["dropout_param", "spatial_dropout_param"])
def test_spatial_dropout_does_nothing_at_test_time(run_layer, load, random, field) -> None:
    x = random.normal(size=(2, 3, 2, 2)).astype(np.float32)
    layer = f'type: "SpatialDropout" {field} {{ dropout_ratio: 0.1 }}'
    np.testing.assert_array_equal(run_layer(layer, x), x)
    with pytest.raises(InputError, match="it drops whole channels while training"):
        load(f'input: "x" input_dim: [2, 3, 2, 2] layer {{ name: "d" bottom: "x" top: "y" {layer} }}', phase="TRAIN")


def test_alpha_dropout_does_nothing_at_test_time(run_layer, load, random) -> None:
    x = random.normal(size=(2, 3)).astype(np.float32)
    layer = 'type: "SeLuDropout" selu_dropout_param { dropout_ratio: 0.1 }'
    np.testing.assert_array_equal(run_layer(layer, x), x)
    with pytest.raises(InputError, match="alpha dropout has no ONNX operator"):
        load(f'input: "x" input_shape {{ dim: 2 }} layer {{ name: "d" bottom: "x" top: "y" {layer} }}', phase="TRAIN")
