"""The same three steps on all targets, a valid model after every pass, and a second opinion on the gradients."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.legalize import TARGETS, Legalize
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode

NETWORK = """
g (float[N,3,12,12] x) => (probability) <
  float[8,3,3,3] c1, float[8] s1, float[8] b1, float[8] m1, float[8] v1_variance,
  float[8,1,3,3] c2, float[8] c2_bias, float[6,8,1,1] c3, float[5,14] fc, float[5] fc_bias> {
  y1 = Conv<strides=[2,2], pads=[1,1,1,1]>(x, c1)
  n1 = BatchNormalization(y1, s1, b1, m1, v1_variance)
  r1 = Relu(n1)
  p1 = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r1)
  l1 = LRN<size=3, alpha=0.1>(p1)
  y2 = Conv<group=8, pads=[1,1,1,1]>(l1, c2, c2_bias)
  total = Add(y2, l1)
  y3 = Conv(total, c3)
  r3 = Relu(y3)
  both = Concat<axis=1>(r3, total)
  a = GlobalAveragePool(both)
  f = Flatten(a)
  logits = Gemm<transB=1>(f, fc, fc_bias)
  probability = Softmax<axis=1>(logits)
}"""
CONVOLUTIONS = {"c1": (8, 3, 3, 3), "c2": (8, 1, 3, 3), "c2_bias": (8,), "c3": (6, 8, 1, 1)}
SHAPES = CONVOLUTIONS | dict.fromkeys(("s1", "b1", "m1", "v1_variance"), (8,)) | {"fc": (5, 14), "fc_bias": (5,)}


@pytest.fixture(scope="module")
def network(make_model) -> Model:
    return make_model(NETWORK, **SHAPES)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(6)
    return {"x": rng.normal(size=(4, 3, 12, 12)).astype(np.float32), "labels": rng.integers(0, 5, 4)}


def three_steps(graph, batch, execute, values_of):
    interface = TrainingInterface.of(graph)
    values = values_of(graph)
    state = {s.input: values[s.input] for s in interface.slots}
    losses = []
    for _ in range(3):
        outputs = execute(graph, {**batch, interface.learning_rate: np.array(0.05, np.float32), **state})
        state = {s.input: outputs[s.output] for s in interface.slots}
        losses.append(float(outputs["loss"]))
    return losses, state


def assert_same_steps(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert np.abs(found[1][name] - value).max() <= 1e-5 * max(1.0, np.abs(value).max()), name


SOLVER = Solver(momentum=0.9, weight_decay=0.01, clip_gradients=2.0)


@pytest.mark.parametrize("target", ["onnx-cuda", "ort-training", "native"])
def test_three_steps_agree(target, network, batch, run, values_of, skip_unless_run_here):
    skip_unless_run_here(target)
    expected = three_steps(build_training_graph(network, SOLVER), batch, run, values_of)
    found = three_steps(build_training_graph(network, SOLVER, target=target), batch, run, values_of)
    assert_same_steps(found, expected)


def test_three_steps_agree_with_the_reference_evaluator(network, batch, run, run_reference, values_of):
    graph = build_training_graph(network, SOLVER)
    assert_same_steps(three_steps(graph, batch, run, values_of), three_steps(graph, batch, run_reference, values_of))


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_portable_targets_have_standard_operators_only(target, network):
    graph = build_training_graph(network, SOLVER, target=target)
    proto = graph.to_proto()
    assert {n.domain for n in proto.graph.node} <= {"", "ai.onnx"}
    assert not proto.functions
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8


def test_the_model_is_valid_after_every_pass(network):
    optimizer = ApplyOptimizer(type="Adam", momentum=0.9, clip_gradients=1.0, iter_size=2, weight_decay=0.1)
    graph = network
    for step in (TrainingMode(), AttachLoss(), BuildGradients(), optimizer):
        graph = step.apply(graph).model
        verify(graph)
    for target in TARGETS:
        verify(Legalize(target=target).apply(graph).model)


@pytest.mark.parametrize("target", TARGETS)
def test_text_and_binary_keep_the_training_graph(target, network):
    graph = build_training_graph(network, SOLVER, target=target)
    text = print_text(graph)
    assert print_text(parse_text(text)) == text
    again = Model.from_proto(graph.to_proto())
    assert [t.name for t in again.graph.inputs] == [t.name for t in graph.graph.inputs]
    assert TrainingInterface.of(again) == TrainingInterface.of(graph)


def test_dropout_keeps_the_expected_value(make_model, run):
    text = """g (float[N,4] x) => (y) <float[4] w, float ratio> {
      scaled = Mul(x, w)
      y = Dropout(scaled, ratio)
    }"""
    network = make_model(text, w=np.ones(4, np.float32), ratio=np.array(0.75, np.float32))
    graph = TrainingMode(seed=3).apply(network).model
    graph = AttachLoss(loss="mse").apply(graph).model
    graph = Legalize().apply(BuildGradients().apply(graph).model).model
    graph.graph.outputs.append(graph.graph.tensors()["y"])
    x = np.ones((500, 4), np.float32)
    outputs = run(graph, {"x": x, "target": np.zeros_like(x)})
    assert set(np.unique(outputs["y"])) == {0.0, 4.0}
    assert outputs["y"].mean() == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(outputs["w.grad"], 2 * (outputs["y"] ** 2).sum(0) / x.size, rtol=1e-5)


def test_gradients_equal_those_of_onnxruntime_training(network, batch, run, run_gradient_graph_builder):
    """Its builder knows no LRN."""
    network = network.copy()
    for node in network.graph.nodes:
        if node.op == "LRN":
            node.op, node.attrs = "Identity", {}
    lossy = AttachLoss().apply(TrainingMode().apply(network).model).model
    outputs = run(Legalize().apply(BuildGradients().apply(lossy).model).model, batch)
    found = {name.removesuffix(".grad"): value for name, value in outputs.items() if name.endswith(".grad")}
    for name, gradient in run_gradient_graph_builder(lossy, set(found), batch).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)
