"""Classifiers with a new last layer: what comes before it computes what it did, and the scores are its own."""

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import constants
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import CLASSES_KEY
from wootz.passes.transforms.replace_head import ReplaceHead, replace_head
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
HEADS = {
    "matrix, decomposed softmax": """(float[N,3,4,4] x) => (float[N,5] y)
        <float[3,5] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}, float[5] b = {1,2,3,4,5}, int64[1] axis = {-1}>
        { p = GlobalAveragePool(x) f = Flatten(p) a = MatMul(f, w) l = Add(a, b)
          m = ReduceMax(l, axis) s = Sub(l, m) e = Exp(s) t = ReduceSum(e, axis) y = Div(e, t) }""",
    "softmax before the view": """(float[N,3,4,4] x) => (float[N,5] y)
        <float[5,3,1,1] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}, float[5] b = {1,2,3,4,5}, int64[2] shape = {-1,5}>
        { f = GlobalAveragePool(x) l = Conv(f, w, b) p = Softmax<axis = 1>(l) y = Reshape(p, shape) }""",
    "a transposed weight": """(float[N,3,4,4] x) => (float[N,5] y) <float[5,3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}>
        { p = GlobalAveragePool(x) f = Flatten(p) t = Transpose<perm = [1,0]>(w) l = MatMul(f, t) y = Softmax(l) }""",
    "a weight of two layers": """(float[N,5,1,1] x) => (float[N,5] y) <float[5,5] w>
        { f0 = Flatten(x) f = MatMul(f0, w) l = MatMul(f, w) y = Softmax(l) }""",
}


def network(name):
    return parse_text(f"{HEADER} g {HEADS[name]}".replace("w>", "w = {" + ",".join("1" * 25) + "}>"))


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("name", HEADS)
def test_scores_are_the_softmax_of_features_times_new_weights(name, tmp_path):
    model = network(name)
    head = replace_head(model, 7, "xavier", seed=3)
    verify(head.model)
    save(head.model, tmp_path / "net.onnx")
    replaced = load(tmp_path / "net.onnx")
    tensors = replaced.graph.tensors()
    (layer,) = [n for n in replaced.graph.nodes if n.inputs[0].name == "f" and n.op in ("Gemm", "MatMul", "Conv")]
    weight = constants(replaced.graph)[layer.inputs[1].name]
    matrix = weight.reshape(7, -1).T if layer.op == "Conv" else weight
    (image,) = replaced.graph.inputs
    data = np.random.default_rng(0).normal(size=(2, *image.shape[1:])).astype(np.float32)
    replaced.graph.outputs = [*replaced.graph.outputs, tensors["f"]]
    found = evaluate(replaced, {"x": data})
    assert found["y"].shape == (2, 7)
    np.testing.assert_allclose(found["y"], softmax(found["f"].reshape(2, -1) @ matrix), rtol=1e-5)
    assert 0 < np.abs(matrix).max() <= np.sqrt(3 / len(matrix))
    original = model.copy()
    original.graph.outputs = [original.graph.tensors()["f"]]
    np.testing.assert_array_equal(evaluate(original, {"x": data})["f"], found["f"])
    again = constants(replace_head(model, 7, "xavier", seed=3).model.graph)
    assert all(np.array_equal(values, again[n]) for n, values in constants(head.model.graph).items())


@pytest.mark.parametrize(
    "name",
    ["resnet18.torchscript", "resnet18.dynamo", "squeezenet.torchscript", "squeezenet.dynamo", "mobilenet_v3.dynamo"],
)
def test_networks_of_an_exporter(name, exported):
    model = exported(name)
    head = replace_head(model, 7, "constant")
    assert head.before == 1000
    verify(head.model)
    feeds = {model.graph.inputs[0].name: np.zeros((1, *model.graph.inputs[0].shape[1:]), np.float32)}
    (scores,) = evaluate(head.model, feeds).values()
    np.testing.assert_array_equal(scores, np.zeros((1, 7)))


def test_names_of_classes_go_and_only_they():
    model = network("softmax before the view")
    named = type(model)(model.graph, metadata={CLASSES_KEY: '["a"]', "other": "stays"})
    assert dict(replace_head(named, 2).model.metadata) == {"other": "stays"}


def test_a_detector_is_refused(exported):
    with pytest.raises(WootzError, match=r"^replace-head: the network has 3 outputs"):
        ReplaceHead(classes=2).apply(exported("yolo.dynamo"))


def test_without_a_number_of_classes_it_is_refused():
    with pytest.raises(WootzError, match="classes has to be the number of classes, 1 or more, not 0"):
        ReplaceHead().apply(network("softmax before the view"))
