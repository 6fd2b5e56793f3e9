"""A Siamese network: one trunk, with its BatchNormalizations, for two inputs, which training and pruning leave one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import wootz as library

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
WEIGHTS = {"stem": (8, 3, 1, 1), "a": (8, 8, 1, 1), "b": (8, 8, 3, 3), "c": (8, 8, 1, 1), "d": (8, 8, 3, 3)}
TRUNK = """
    {0}h = Conv({0}, stem)
    {0}a = Conv({0}h, a) {0}n = BatchNormalization({0}a, a_scale, a_bias, a_mean, a_var) {0}r = Relu({0}n)
    {0}b = Conv<pads = [1,1,1,1]>({0}r, b) {0}m = Add({0}b, {0}h)
    {0}c = Conv({0}m, c) {0}o = BatchNormalization({0}c, c_scale, c_bias, c_mean, c_var) {0}s = Relu({0}o)
    {0}d = Conv<pads = [1,1,1,1]>({0}s, d) {0}k = Add({0}d, {0}m)
    {0}p = GlobalAveragePool({0}k) {0}f = Flatten({0}p)
"""
SOLVER = 'base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 8 batch_size: 16'
SAMPLES, TRAINING = 96, 64


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Its scores are those of the left image minus those of the right one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WOOTZ_STORE", str(tmp_path / "store"))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    random = np.random.default_rng(0)
    values = {n: random.normal(size=s, scale=np.sqrt(2 / np.prod(s[1:]))) for n, s in WEIGHTS.items()}
    values["fc"] = random.normal(size=(8, 3))
    for layer in "ac":
        values |= {f"{layer}_{kind}": random.normal(size=8) * 0.2 for kind in ("bias", "mean")}
        values |= {f"{layer}_{kind}": random.uniform(0.5, 1.5, 8) for kind in ("scale", "var")}
    elided = ", ".join(f"float[{','.join(map(str, v.shape))}] {name}" for name, v in values.items())
    body = TRUNK.format("left") + TRUNK.format("right") + "e = Sub(leftf, rightf) scores = MatMul(e, fc)"
    inputs = "float[N,3,8,8] left, float[N,3,8,8] right"
    proto = onnx.parser.parse_model(f"{HEADER} g ({inputs}) => (float[N,3] scores) <{elided}> {{ {body} }}")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items())
    del proto.graph.value_info[:]
    onnx.save(proto, "net.onnx")


def scores(file, left, right):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"left": left, "right": right})[0]


@pytest.mark.usefixtures("network")
def test_both_inputs_go_through_one_pruned_trunk(tmp_path):
    left, right = np.random.default_rng(1).normal(size=(2, SAMPLES, 3, 8, 8)).astype(np.float32)
    labels = scores("net.onnx", left, right).argmax(axis=1)
    data = {
        "train": ({"left": left[:TRAINING], "right": right[:TRAINING]}, labels[:TRAINING]),
        "val": ({"left": left[TRAINING:], "right": right[TRAINING:]}, labels[TRAINING:]),
    }
    (tmp_path / "subspace.json").write_text("[[0.5, 0.25], [0.5, 0.5]]")
    found = library.run(
        "net.onnx", data=data, objective="max Accuracy", out="out", subspace="subspace.json", solver="solver.prototxt",
        pretrain_solver="solver.prototxt", threads=1, show=False, allow_untrained=True,
    )  # fmt: skip
    given = scores(found.best, left[TRAINING:], right[TRAINING:])
    assert found.result.best.quality == np.mean(given.argmax(axis=1) == labels[TRAINING:])
    exchanged = scores(found.best, right[TRAINING:], left[TRAINING:])
    np.testing.assert_allclose(given, -exchanged, rtol=1e-4, atol=1e-5)
    weights = {tuple(t.dims) for t in onnx.load(found.best).graph.initializer}
    assert {(4, 8, 1, 1), (8, 4, 3, 3)} <= weights
    assert any(block.steps for block in found.result.blocks)
