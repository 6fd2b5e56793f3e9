"""The graph that measures statistics of batches, against numpy."""

import numpy as np

from wootz.passes.ir.verifier import verify
from wootz.passes.training.batch_statistics import batch_statistics
from wootz.runtime.session import Device, evaluate

TWO_LAYERS = """g (float[N,3,4,4] x) => (float[N,2] y) <
  float[5,3,1,1] w1, float[5] s1, float[5] b1, float[5] m1, float[5] v1_variance,
  float[4,5,1,1] w2, float[4] s2, float[4] b2, float[4] m2, float[4] v2_variance, float[4,2] w3, float ratio = {0.5}> {
  c1 = Conv(x, w1)
  n1 = BatchNormalization<epsilon=0.001>(c1, s1, b1, m1, v1_variance)
  r1 = Relu(n1)
  d1 = Dropout(r1, ratio)
  c2 = Conv(d1, w2)
  n2 = BatchNormalization<epsilon=0.001>(c2, s2, b2, m2, v2_variance)
  p = GlobalAveragePool(n2)
  f = Flatten(p)
  y = MatMul(f, w3)
}"""
SHAPES = {
    "w1": (5, 3, 1, 1), "s1": (5,), "b1": (5,), "m1": (5,), "v1_variance": (5,),
    "w2": (4, 5, 1, 1), "s2": (4,), "b2": (4,), "m2": (4,), "v2_variance": (4,), "w3": (4, 2),
}  # fmt: skip
SPACE = (0, 2, 3)


def convolved(x, weight):
    """By a kernel of one pixel, in float64."""
    return np.einsum("nchw,oc->nohw", x.astype(np.float64), weight[:, :, 0, 0])


def test_each_layer_normalizes_by_the_statistics_that_it_gives(make_model):
    model = make_model(TWO_LAYERS, **SHAPES)
    program = batch_statistics(model)
    verify(program)
    x = np.random.default_rng(1).normal(1, 2, (6, 3, 4, 4)).astype(np.float32)
    found = evaluate(program, {"x": x}, Device(threads=1))
    assert sorted(found) == ["n1.batch_mean", "n1.batch_var", "n2.batch_mean", "n2.batch_var"]
    w = {name: tensor.values for name, tensor in model.graph.tensors().items() if name in SHAPES}
    c1 = convolved(x, w["w1"])
    np.testing.assert_allclose(found["n1.batch_mean"], c1.mean(SPACE), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["n1.batch_var"], c1.var(SPACE), rtol=1e-4)
    columns = (..., None, None)
    normalized = (c1 - c1.mean(SPACE)[columns]) / np.sqrt(c1.var(SPACE) + 0.001)[columns]
    c2 = convolved(np.maximum(normalized * w["s1"][columns] + w["b1"][columns], 0), w["w2"])
    np.testing.assert_allclose(found["n2.batch_mean"], c2.mean(SPACE), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["n2.batch_var"], c2.var(SPACE), rtol=1e-4)
    on_cuda = evaluate(batch_statistics(model, "onnx-cuda"), {"x": x}, Device(threads=1))
    for name, values in found.items():
        np.testing.assert_allclose(on_cuda[name], values, rtol=1e-4, atol=1e-6)


def test_nothing_behind_the_last_layer_and_nothing_of_training_is_left(make_model):
    program = batch_statistics(make_model(TWO_LAYERS, **SHAPES))
    assert not {"Dropout", "GlobalAveragePool", "MatMul", "Mul"} & {node.op for node in program.graph.nodes}


def test_layers_that_share_statistics_have_those_of_what_each_sees(make_model):
    shared = """g (float[N,3,4,4] x) => (float[N,3,4,4] y) <float[3] s, float[3] b, float[3] m, float[3] variance> {
      n = BatchNormalization(x, s, b, m, variance)
      y = BatchNormalization(n, s, b, m, variance)
    }"""
    program = batch_statistics(make_model(shared, s=(3,), b=(3,), m=(3,), variance=(3,)))
    x = np.random.default_rng(1).normal(1, 2, (6, 3, 4, 4)).astype(np.float32)
    found = evaluate(program, {"x": x}, Device(threads=1))
    weights = {name: tensor.values for name, tensor in program.graph.tensors().items() if name in ("s", "b")}
    np.testing.assert_allclose(found["n.batch_mean"], x.mean(SPACE), rtol=1e-4)
    np.testing.assert_allclose(found["y.batch_mean"], weights["b"], rtol=1e-4)
    np.testing.assert_allclose(found["y.batch_var"], weights["s"] ** 2, rtol=1e-4)
