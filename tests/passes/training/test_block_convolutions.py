"""Convolutions in the blocked layout give what the usual ones give, and are taken where they may be alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.base import PassResult
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver
from wootz.passes.training.block_convolutions import BLOCKS, DOMAIN, LEAST_PRODUCTS, BlockConvolutions
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime import session as session_module
from wootz.runtime.session import TrainingSession, WeightedSession, channel_block, evaluate

BLOCK = channel_block()
needs_blocks = pytest.mark.skipif(
    BLOCK not in BLOCKS, reason="ONNX Runtime has no blocked convolutions for this processor"
)


def convolution(x: list[int], w: list[int], attributes: str = "", bias: bool = False) -> Model:
    """One convolution whose weights are an input."""
    sizes = [",".join(map(str, shape)) for shape in (x, w, w[:1])]
    return parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[{sizes[0]}] x, float[{sizes[1]}] w, float[{sizes[2]}] b) => (float[N,M,P,Q] y) {{
      [conv] y = Conv{f"<{attributes}>" if attributes else ""}(x, w{", b" if bias else ""})
    }}""")


def blocked_operators(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes if node.domain == DOMAIN]


def in_blocks(model: Model, channels: int = 16) -> Model:
    result = BlockConvolutions(channels=channels).apply(model)
    assert result.modified == (result.model is not model)
    assert BlockConvolutions(channels=channels).apply(result.model).model is result.model, "it is a fixed point"
    return result.model


def run_twice(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The result with the usual layout and with blocks."""
    random = np.random.default_rng(0)
    feeds = {t.name: random.normal(size=t.shape).astype(np.float32) for t in model.graph.inputs}
    return evaluate(model, feeds)["y"], evaluate(in_blocks(model, BLOCK), feeds)["y"]


@needs_blocks
@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 50),
    filters=st.integers(1, 50),
    kernel=st.tuples(st.integers(1, 4), st.integers(2, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    bias=st.booleans(),
)
def test_equals_the_usual_convolution(channels, filters, kernel, strides, dilations, pads, bias):
    lists = {"strides": strides, "dilations": dilations, "pads": pads}
    attributes = ", ".join(f"{name}={list(values)}" for name, values in lists.items())
    model = convolution([2, channels, 9, 8], [filters, channels, *kernel], attributes, bias)
    usual, blocked = run_twice(model)
    np.testing.assert_allclose(blocked, usual, rtol=1e-4, atol=1e-4)


@needs_blocks
@pytest.mark.parametrize("channels", [1, 3, 4, 16, 18, 40])
def test_depthwise_convolution(channels):
    model = convolution([2, channels, 6, 7], [channels, 1, 3, 3], f"group={channels}, pads=[1,1,1,1], strides=[2,1]")
    usual, blocked = run_twice(model)
    assert usual.shape == (2, channels, 3, 7)
    np.testing.assert_allclose(blocked, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ([1, 32, 4, 4], [32, 32, 3, 3], ""),
        ([1, 32, 4, 4], [32, 32, 1, 2], "strides=[2,2]"),
        ([1, 3, 8, 8], [64, 3, 7, 7], ""),
        ([1, 45, 4, 4], [45, 45, 3, 3], ""),
        ([1, 17, 4, 4], [17, 17, 3, 3], ""),  # not faster, but the usual layout's sums depend on threads
        ([1, 32, 4, 4], [32, 1, 3, 3], "group=32"),
    ],
)
def test_what_is_taken_in_blocks(x, w, attributes):
    blocked = in_blocks(convolution(x, w, attributes))
    assert "Conv" in blocked_operators(blocked)
    assert [t.name for t in blocked.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ([1, 32, 4, 4], [32, 32, 1, 1], ""),  # one tap
        ([1, 3, 4, 4], [16, 3, 3, 3], ""),  # little to compute
        ([1, 17, 4, 4], [17, 17, 1, 3], ""),  # nearly half of two blocks would be padding
        ([1, 32, 4, 4], [32, 16, 3, 3], "group=2"),
        ([1, 32, 8], [32, 32, 3], ""),
        ([1, 32, 4, 4, 4], [32, 32, 3, 3, 3], ""),
        ([1, 32, 4, 4], [32, 32, 3, 3], 'auto_pad="SAME_UPPER"'),
    ],
)
def test_what_stays(x, w, attributes):
    model = convolution(x, w, attributes)
    assert in_blocks(model) is model


def test_few_products_stay():
    channels = (LEAST_PRODUCTS - 1) // 9
    stays = convolution([1, channels, 4, 4], [16, channels, 3, 3])
    pays = convolution([1, channels + 1, 4, 4], [16, channels + 1, 3, 3])
    assert in_blocks(stays) is stays
    assert blocked_operators(in_blocks(pays)) == ["Conv", "ReorderOutput"]


def test_constant_weights_stay():
    """ONNX Runtime itself takes blocks for them."""
    constant = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
    g (float[1,32,4,4] x) => (float[N,M,P,Q] y) {
      size = Constant<value_ints=[32,32,3,3]>()
      w = ConstantOfShape<value=float[1] {0.5}>(size)
      y = Conv(x, w)
    }""")
    constant.graph.fold_constants()
    assert in_blocks(constant) is constant


def test_double_precision_stays():
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
    g (double[1,32,4,4] x, double[32,32,3,3] w) => (double[N,M,P,Q] y) { y = Conv(x, w) }""")
    assert in_blocks(model) is model


def test_data_is_reordered_once_for_all_that_read_it():
    model = parse_text("""<ir_version: 8, opset_import: ["" : 18]>
    g (float[1,32,4,4] x, float[32,32,3,3] v, float[32,32,3,3] w) => (float[N,M,P,Q] y, float[N,M,P,Q] z) {
      y = Conv(x, v)
      z = Conv(x, w)
    }""")
    operators = blocked_operators(in_blocks(model))
    assert operators == ["ReorderInput", "Conv", "ReorderOutput", "Conv", "ReorderOutput"]


NETWORK = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 8 dim: 6 dim: 6 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 32 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
        convolution_param { num_output: 32 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "fc" type: "InnerProduct" bottom: "b" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""


@needs_blocks
def test_training_and_evaluation_agree_with_the_usual_layout(monkeypatch, tmp_path):
    (tmp_path / "net.prototxt").write_text(NETWORK)
    model = import_caffe(tmp_path / "net.prototxt").model
    random = np.random.default_rng(0)
    graph = build_training_graph(model, Solver(base_lr=0.01, momentum=0.9))
    images, labels = random.normal(size=(8, 8, 6, 6)).astype(np.float32), np.arange(8) % 4

    def train() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        session = TrainingSession(graph)
        losses = np.array([session.step(images, labels, 0.01) for _ in range(5)])
        weights = session.weights()
        evaluation = WeightedSession(model, list(weights))
        evaluation.set_weights(weights)
        return losses, weights, evaluation.run(images)

    opened = []

    def watched(self: BlockConvolutions, model: Model) -> PassResult:
        opened.append(apply(self, model).model)
        return PassResult(opened[-1], modified=True)

    apply = BlockConvolutions.apply
    monkeypatch.setattr(BlockConvolutions, "apply", watched)
    losses, weights, answers = train()
    assert [blocked_operators(m).count("Conv") for m in opened] == [3, 2]  # both forward, one input gradient
    monkeypatch.setattr(session_module, "channel_block", lambda: 0)
    expected_losses, expected_weights, expected_answers = train()
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(answers, expected_answers, rtol=1e-4, atol=1e-5)
    for name, values in expected_weights.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-4, atol=1e-6)


def test_the_state_of_a_training_graph_is_no_constant(tmp_path):
    """Its inputs have initializers."""
    (tmp_path / "net.prototxt").write_text(NETWORK)
    graph = build_training_graph(import_caffe(tmp_path / "net.prototxt").model, Solver(base_lr=0.01))
    assert blocked_operators(in_blocks(graph)).count("Conv") == 3  # both forward, one input gradient


def test_a_build_without_the_layout_is_known_by_its_refusal(monkeypatch):
    def refuse(*_args, **_options):
        raise session_module.onnxruntime.capi.onnxruntime_pybind11_state.Fail("no such operator")

    monkeypatch.setattr(session_module.onnxruntime, "InferenceSession", refuse)
    assert channel_block.__wrapped__() == 0
