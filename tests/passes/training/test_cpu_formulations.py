"""What the CPU target puts in the place of gradient functions computes what their bodies do, for each formulation."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import TARGETS, Legalize
from wootz.passes.training.lowerings.cpu import CPU
from wootz.passes.training.training_mode import TrainingMode

TOLERANCE = 1e-5
IMAGES = 3

CONVOLUTIONS = {
    "of one tap": ([8, 6, 6], [4, 8, 1, 1], ""),
    "heavy, of one tap": ([64, 2, 2], [32, 64, 1, 1], ""),
    "heavy, of one tap, strided": ([64, 4, 4], [32, 64, 1, 1], "strides=[2,2]"),
    "of one tap, strided": ([4, 6, 6], [3, 4, 1, 1], "strides=[3,2]"),
    "of one tap, strided, not to the end": ([4, 5, 6], [3, 4, 1, 1], "strides=[2,2]"),
    "of one tap, strided, wide": ([2, 40, 40], [3, 2, 1, 1], "strides=[2,2]"),
    "of one tap, padded": ([4, 5, 5], [3, 4, 1, 1], "pads=[1,1,1,1]"),
    "of one tap, in groups": ([4, 5, 5], [6, 2, 1, 1], "group=2"),
    "heavy": ([32, 2, 2], [64, 32, 3, 3], "pads=[1,1,1,1]"),
    "heavy, strided": ([64, 4, 4], [64, 64, 3, 3], "pads=[1,1,1,1], strides=[2,2]"),
    "light": ([3, 9, 9], [4, 3, 3, 3], "pads=[1,1,1,1]"),
    "narrow": ([16, 16, 16], [16, 16, 3, 3], "pads=[1,1,1,1]"),
    "narrow on few pixels": ([64, 8, 8], [64, 64, 3, 3], "pads=[1,1,1,1]"),
    "strided": ([16, 9, 9], [16, 16, 3, 3], "pads=[1,1,1,1], strides=[2,2]"),
    "wide": ([16, 4, 40], [16, 16, 3, 3], "pads=[1,1,1,1]"),
    "of one row": ([16, 6, 6], [16, 16, 1, 3], "pads=[0,1,0,1]"),
    "of one column, wide": ([16, 6, 40], [16, 16, 3, 1], "pads=[1,0,1,0]"),
    "with a smaller result": ([16, 8, 8], [16, 16, 3, 3], ""),
    "with a larger result": ([16, 6, 6], [16, 16, 3, 3], "pads=[2,3,4,2]"),
    "wide, with a larger result": ([16, 6, 40], [16, 16, 3, 3], "pads=[2,3,4,2]"),
    "larger than the image": ([16, 2, 2], [16, 16, 5, 5], "pads=[2,2,2,2]"),
    "strided in one direction": ([16, 9, 9], [16, 16, 3, 3], "pads=[1,1,1,1], strides=[1,2]"),
    "strided in the other direction": ([16, 9, 8], [16, 16, 3, 2], "pads=[1,1,1,1], strides=[3,1]"),
    "strided, wide": ([16, 9, 40], [16, 16, 3, 3], "pads=[1,1,1,1], strides=[2,2]"),
    "strided and dilated": ([16, 12, 12], [16, 16, 3, 3], "pads=[2,2,2,2], dilations=[2,2], strides=[2,2]"),
    "strided beyond its kernel": ([16, 12, 12], [16, 16, 2, 2], "strides=[5,5]"),
    "depthwise": ([8, 6, 6], [8, 1, 3, 3], "group=8, pads=[1,1,1,1]"),
    "depthwise, strided": ([8, 9, 9], [8, 1, 3, 3], "group=8, pads=[1,1,1,1], strides=[2,2]"),
    "depthwise, strided, wide": ([4, 5, 40], [4, 1, 3, 3], "group=4, pads=[1,1,1,1], strides=[2,2]"),
    "depthwise, larger than the image": ([4, 2, 2], [4, 1, 5, 5], "group=4, pads=[2,2,2,2]"),
    "dilated": ([16, 12, 12], [16, 16, 3, 3], "pads=[2,2,2,2], dilations=[2,2]"),
}


@pytest.fixture
def assert_as_bodies(run, monkeypatch):
    """Compares one step with that of a graph in which the functions have their own bodies."""
    monkeypatch.setitem(TARGETS, "bodies", {"BatchNormalization": CPU["BatchNormalization"]})

    def check(model, shape):
        built = BuildGradients().apply(TrainingMode().apply(model).model).model
        graph = ApplyOptimizer(type="SGD", momentum=0.9, weight_decay=0.1).apply(built).model
        random = np.random.default_rng(1)
        feeds = {
            "x": random.normal(size=[IMAGES, *shape]).astype(np.float32),
            "learning_rate": np.asarray(0.1, np.float32),
        }
        expected = run(Legalize(target="bodies").apply(graph).model, feeds)
        found = run(Legalize(target="onnx").apply(graph).model, feeds)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert np.abs(found[name] - values).max() <= TOLERANCE * max(1e-2, np.abs(values).max()), name

    return check


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, make_model, assert_as_bodies):
    shape, weights, attributes = CONVOLUTIONS[name]
    before = [shape[0], shape[0], 1, 1]
    text = f"""g (float[N,{",".join(map(str, shape))}] x) => (loss)
    <float[{",".join(map(str, before))}] v, float[{",".join(map(str, weights))}] w> {{
      h = Conv(x, v)
      y = Conv<{attributes or "group=1"}>(h, w)
      squares = Mul(y, y)
      loss = ReduceMean<keepdims=0>(squares)
    }}"""
    assert_as_bodies(make_model(text, v=before, w=weights), shape)


@pytest.mark.parametrize("batch", ["N", str(IMAGES)])
@pytest.mark.parametrize("shape", [[4, 3, 3], [4, 28, 28], [4, 30, 28], [4]])
def test_batch_normalization(shape, batch, make_model, assert_as_bodies):
    axes = ",".join(map(str, shape))
    vectors = ("scale", "bias", "mean", "variance")
    text = f"""g (float[{batch},{axes}] x) => (loss) <{", ".join(f"float[4] {v}" for v in vectors)}> {{
      y = BatchNormalization(x, scale, bias, mean, variance)
      squares = Mul(y, y)
      loss = ReduceMean<keepdims=0>(squares)
    }}"""
    assert_as_bodies(make_model(text, **{v: [4] for v in vectors}), shape)
