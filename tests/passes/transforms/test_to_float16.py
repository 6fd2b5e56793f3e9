"""Networks in float16 beside themselves in float32, in ONNX Runtime."""

import numpy as np
import pytest

from wootz.passes.ir.model import Constant, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.transforms.to_float16 import ToFloat16
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["": 18]>'
OF_FLOAT16 = 2.0**-11
"""The relative error of one rounding."""


@pytest.mark.parametrize("name", ["squeezenet.torchscript", "mobilenet_v3.dynamo", "unet.torchscript", "yolo.dynamo"])
def test_scores_are_those_of_float32_within_rounding(exported, name):
    model = run_pipeline(exported(name), parse_pipeline("eliminate-dead,fold-constants,fold-batchnorm")).model
    result = ToFloat16().apply(model)
    (image,) = model.graph.inputs
    feeds = {image.name: np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)}
    before, after = evaluate(model, feeds), evaluate(result.model, feeds)
    for key, expected in before.items():
        assert after[key].dtype == np.float32
        assert np.abs(after[key] - expected).max() <= 64 * OF_FLOAT16 * np.abs(expected).max()
        assert np.any(after[key] != expected)
    wide = [t for t in constants(result.model.graph).values() if t.dtype == np.float32 and t.size > 16]
    assert not wide, "no weight is left in float32"


def test_nodes_and_operators_that_are_named_stay_in_float32():
    model = parse_text(f"""{HEADER} g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {{1,2,3,4}}> {{
        [first] a = MatMul(x, w) [second] b = MatMul(a, w) [third] y = Relu(b) }}""")
    result = ToFloat16(keep=("second", "Relu")).apply(model)
    types = {n.name: n.inputs[0].dtype for n in result.model.graph.nodes if n.op != "Cast"}
    assert types == {"first": np.float16, "second": np.float32, "third": np.float32}
    weights = {n.name: n.inputs[1] for n in result.model.graph.nodes if n.op == "MatMul"}
    assert all(isinstance(w, Constant) for w in weights.values())
    assert [weights[name].dtype for name in ("first", "second")] == [np.float16, np.float32]
    x = np.array([[1, -2]], np.float32)
    np.testing.assert_array_equal(evaluate(result.model, {"x": x})["y"], evaluate(model, {"x": x})["y"])
    with pytest.raises(Exception, match=r"^to-float16: keep names 'fourth', and there is no such node or operator$"):
        ToFloat16(keep=("fourth",)).apply(model)


@pytest.mark.parametrize(("half_io", "dtype"), [(False, np.float32), (True, np.float16)])
def test_a_constant_may_be_an_output(half_io, dtype):
    model = parse_text(f"""{HEADER} g (float[N,2] x) => (float[N,2] y, float[2,2] w) <float[2,2] w = {{1,2,3,4}}> {{
        y = MatMul(x, w) }}""")
    result = ToFloat16(half_io=half_io).apply(model)
    assert [(t.name, t.dtype) for t in result.model.graph.outputs] == [("y", dtype), ("w", dtype)]
    found = evaluate(result.model, {"x": np.array([[1, -2]], dtype)})
    np.testing.assert_array_equal(found["y"], [[-5, -6]])
    np.testing.assert_array_equal(found["w"], [[1, 2], [3, 4]])


def test_a_training_graph_is_refused():
    model = parse_text(f"""{HEADER} g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {{1,2,3,4}}> {{
        a = MatMul(x, w) y = Softmax(a) }}""")
    training = run_pipeline(model, parse_pipeline("training")).model
    with pytest.raises(Exception, match=r"^to-float16: a training graph is written in float16 by mixed-precision$"):
        ToFloat16().apply(training)
