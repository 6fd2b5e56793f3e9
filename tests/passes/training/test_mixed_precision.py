"""float16 training: near float32's, steps that overflow are skipped, the teacher is half as large.

The CPU provider computes products of float16 in float32 between casts, some of which it leaves out: what only moves
elements (Flatten) it does in float16.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model, constants
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.legalize import TARGETS, Legalize
from wootz.passes.training.loss_scaling import LARGEST, SMALLEST
from wootz.passes.training.mixed_precision import MixedPrecision
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode

NETWORK = """
g (float[N,3,12,12] x) => (probability) <
  float[8,3,3,3] c1, float[8] s1, float[8] b1, float[8] m1, float[8] v1_variance,
  float[8,1,3,3] c2, float[8] c2_bias, float[6,4,1,1] c3, float[5,14] fc, float[5] fc_bias> {
  y1 = Conv<strides=[2,2], pads=[1,1,1,1]>(x, c1)
  n1 = BatchNormalization(y1, s1, b1, m1, v1_variance)
  r1 = Relu(n1)
  p1 = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r1)
  y2 = Conv<group=8, pads=[1,1,1,1]>(p1, c2, c2_bias)
  total = Add(y2, p1)
  y3 = Conv<group=2>(total, c3)
  r3 = Relu(y3)
  both = Concat<axis=1>(r3, total)
  a = GlobalAveragePool(both)
  f = Flatten(a)
  logits = Gemm<transB=1>(f, fc, fc_bias)
  probability = Softmax<axis=1>(logits)
}"""
CONVOLUTIONS = {"c1": (8, 3, 3, 3), "c2": (8, 1, 3, 3), "c2_bias": (8,), "c3": (6, 4, 1, 1)}
SHAPES = CONVOLUTIONS | dict.fromkeys(("s1", "b1", "m1", "v1_variance"), (8,)) | {"fc": (5, 14), "fc_bias": (5,)}

STUDENTS = """g (float[N,4] x) => (loss0, loss1) <
  float[4,3] "teacher/w", float[4,3] "s0/w", float[4,3] "s1/w", float large> {
  target = MatMul(x, "teacher/w")
  h0 = MatMul(x, "s0/w")
  y0 = Flatten(h0)
  d0 = Sub(y0, target)
  q0 = Mul(d0, d0)
  loss0 = ReduceMean<keepdims=0>(q0)
  h1 = MatMul(x, "s1/w")
  y1 = Flatten(h1)
  d1 = Sub(y1, target)
  q1 = Mul(d1, d1)
  e1 = ReduceMean<keepdims=0>(q1)
  loss1 = Mul(e1, large)
}"""
STUDENT_SHAPES = {"teacher/w": (4, 3), "s0/w": (4, 3), "s1/w": (4, 3)}
RATE = np.array(0.05, np.float32)


@pytest.fixture(scope="module")
def network(make_model) -> Model:
    return make_model(NETWORK, **SHAPES)


@pytest.fixture(scope="module")
def lossy(network) -> Model:
    return AttachLoss().apply(TrainingMode().apply(network).model).model


@pytest.fixture(scope="module")
def students(make_model) -> Model:
    """Two students of one teacher; the loss of the second is multiplied by 4096."""
    return make_model(STUDENTS, **STUDENT_SHAPES, large=np.array(4096.0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(6)
    return {"x": rng.normal(size=(4, 3, 12, 12)).astype(np.float32), "labels": rng.integers(0, 5, 4)}


@pytest.fixture
def steps(run):
    """Runs a training graph on batches; gives the losses of each step, and the state after each."""

    def run_steps(graph, batches, rate=RATE):
        interface = TrainingInterface.of(graph)
        values = constants(graph.graph)
        state = {s.input: values[s.input] for s in interface.slots}
        losses, states = [], []
        for batch in batches:
            outputs = run(graph, {**batch, interface.learning_rate: rate, **state})
            state = {s.input: outputs[s.output] for s in interface.slots}
            losses.append([float(outputs[name]) for name in interface.losses])
            states.append(state)
        return losses, states

    return run_steps


def scaled_graph(model, scale, interval=2000, target="onnx", frozen=(), **settings):
    """The float16 training graph of a model with its losses."""
    graph = BuildGradients(frozen=frozen).apply(MixedPrecision(frozen=frozen).apply(model).model).model
    optimizer = ApplyOptimizer(loss_scale=scale, loss_scale_interval=interval, **settings)
    return Legalize(target=target).apply(optimizer.apply(graph).model).model


SOLVER = {"momentum": 0.9, "weight_decay": 0.01, "clip_gradients": 2.0}


@pytest.mark.parametrize("target", TARGETS)
def test_three_steps_stay_near_those_in_float32(target, network, lossy, batch, steps, skip_unless_run_here):
    """float16 has 11 binary digits: 5e-4 relative; weights change by 0.05 times gradients of size 1."""
    skip_unless_run_here(target)
    expected_losses, expected = steps(build_training_graph(network, Solver(**SOLVER)), [batch] * 3)
    losses, states = steps(scaled_graph(lossy, 1024.0, target=target, **SOLVER), [batch] * 3)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-3)
    for name, value in expected[-1].items():
        assert states[-1][name].dtype == value.dtype
        assert np.abs(states[-1][name] - value).max() <= 2e-3 * max(1.0, np.abs(value).max()), name


def test_what_is_half_and_what_is_not(lossy):
    graph = MixedPrecision().apply(lossy).model
    verify(graph)
    dtypes = {name: np.dtype(t.dtype) for name, t in graph.graph.tensors().items()}
    half = {"y1", "n1", "r1", "p1", "y2", "total", "y3", "r3", "both", "a", "f", "logits"}
    assert {n for n in half if dtypes[n] == np.float16} == half
    for name in ("x", "loss", "n1.batch_mean", "m1.new", "v1_variance.new", *SHAPES):
        assert dtypes[name] == np.float32, name
    (normalisation,) = (n for n in graph.graph.nodes if n.op == "BatchNormalization")
    assert {np.dtype(t.dtype) for t in [*normalisation.inputs, *normalisation.outputs]} == {np.dtype(np.float32)}


def test_a_parameter_is_cast_once(make_model):
    text = """g (float[N,4] x) => (loss) <float[4,4] w> {
      a = MatMul(x, w)
      b = MatMul(a, w)
      loss = ReduceSum<keepdims=0>(b)
    }"""
    graph = MixedPrecision().apply(make_model(text, w=(4, 4))).model.graph
    assert [n.inputs[0].name for n in graph.nodes if n.op == "Cast"] == ["x", "w", "b"]


@pytest.mark.parametrize(("constant", "in_half"), [(1.0, True), (6e4, True), (1e5, False), (1e-12, False)], ids=str)
def test_a_constant_that_float16_lacks_keeps_its_node_in_float32(constant, in_half, make_model):
    text = """g (float[N,4] x) => (loss) <float[4,4] w, float c> {
      a = MatMul(x, w)
      b = Add(a, c)
      loss = ReduceSum<keepdims=0>(b)
    }"""
    model = MixedPrecision().apply(make_model(text, w=(4, 4), c=np.array(constant))).model
    verify(model)
    assert (model.graph.tensors()["b"].dtype == np.float16) == in_half


@pytest.mark.parametrize("bounds", ["", ", low", ', "", high', ", low, high"])
def test_a_clip_without_one_bound_has_none(bounds, make_model, run):
    """ONNX Runtime takes 0 for it in float16."""
    text = f"""g (float[3,4] x) => (float[3,4] y, loss) <float[4,4] w, float low, float high> {{
      a = MatMul(x, w)
      y = Clip(a{bounds})
      loss = ReduceSum<keepdims=0>(y)
    }}"""
    values = {"low": np.array(-3.0), "high": np.array(5.0)}
    weights = {"w": np.eye(4) * 2} | {name: value for name, value in values.items() if name in bounds}
    model = make_model(text, **weights)
    half = MixedPrecision().apply(model).model
    verify(half)
    batch = np.linspace(-8, 8, 12, dtype=np.float32).reshape(3, 4)
    expected, found = (run(m, {"x": batch})["y"] for m in (model, half))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("indices", [np.array(1), np.array([1, 1]), np.array([2, 0])], ids=["scalar", "twice", "once"])
def test_gradients_of_gathered_elements_are_added(indices, make_model, run):
    """ONNX Runtime's ScatterND on CPUs adds no float16."""
    text = f"""g (float[3,4] x) => (loss) <float[4,4] w, int64[{",".join(map(str, indices.shape))}] i> {{
      a = MatMul(x, w)
      y = Gather<axis=1>(a, i)
      loss = ReduceSum<keepdims=0>(y)
    }}"""
    model = make_model(text, w=(4, 4), i=indices)
    batch = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    half = MixedPrecision().apply(model).model
    graphs = (Legalize().apply(BuildGradients().apply(m).model).model for m in (model, half))
    expected, found = (run(graph, batch)["w.grad"] for graph in graphs)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_outputs_beside_the_loss_keep_name_and_type(make_model):
    text = """g (float[N,4] x) => (y, loss) <float[4,4] w> {
      y = MatMul(x, w)
      loss = ReduceSum<keepdims=0>(y)
    }"""
    model = MixedPrecision().apply(make_model(text, w=(4, 4))).model
    verify(model)
    assert [(t.name, np.dtype(t.dtype)) for t in model.graph.outputs] == [("y", np.float32), ("loss", np.float32)]


def test_refuses_a_graph_without_loss(network):
    message = "mixed-precision: no scalar output to minimise: run attach-loss first"
    with pytest.raises(PassError, match=f"^{re.escape(message)}$"):
        MixedPrecision().apply(network)


def test_refuses_control_flow(make_model):
    text = """g (float[4] x, bool c) => (loss) <float[4] w> {
      y = Mul(x, w)
      z = If(c) <then_branch = g1 () => (float[4] a) { a = Identity(y) },
                 else_branch = g2 () => (float[4] b) { b = Neg(y) }>
      loss = ReduceSum<keepdims=0>(z)
    }"""
    with pytest.raises(PassError, match=r"^mixed-precision: .*If has a subgraph, which is not supported$"):
        MixedPrecision().apply(make_model(text, w=(4,)))


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_the_model_is_valid_and_survives_as_text(target, network):
    graph = build_training_graph(network, Solver(**SOLVER), target=target, precision="float16")
    verify(graph)
    again = parse_text(print_text(graph))
    assert print_text(again) == print_text(graph)
    for name, values in constants(graph.graph).items():
        np.testing.assert_array_equal(constants(again.graph)[name], values)
        assert constants(again.graph)[name].dtype == values.dtype
    assert TrainingInterface.of(again) == TrainingInterface.of(graph)


ADAM = {"type": "Adam", "momentum": 0.9}


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
@pytest.mark.parametrize("settings", [SOLVER, ADAM], ids=["SGD", "Adam"])
def test_an_overflow_changes_nothing_but_the_scale(settings, target, lossy, batch, steps):
    """With a scale of 2²⁴ float16 gradients are infinite."""
    graph = scaled_graph(lossy, 2.0**24, target=target, **settings)
    initial = constants(graph.graph)
    (losses,), (state,) = steps(graph, [batch])
    assert np.isfinite(losses).all()
    assert state["loss.scale"] == 2.0**23
    assert state["loss.steps_at_scale"] == 0
    assert ("loss.steps" in state) == (settings is ADAM)
    for name in state.keys() - {"loss.scale"}:
        np.testing.assert_array_equal(state[name], initial[name], err_msg=name)


def test_after_skipped_steps_training_goes_on_as_if_they_had_not_been(lossy, batch, steps):
    """Adam's correction depends on the number of steps that were made."""
    losses, states = steps(scaled_graph(lossy, 2.0**24, **ADAM), [batch] * 24)
    skipped = sum(s["loss.steps_at_scale"] == 0 for s in states)
    assert 0 < skipped < 20
    made = len(states) - skipped
    assert states[-1]["loss.steps"] == made
    scale = float(states[-1]["loss.scale"])
    assert scale == 2.0 ** (24 - skipped)
    expected_losses, expected = steps(scaled_graph(lossy, scale, **ADAM), [batch] * made)
    np.testing.assert_array_equal(losses[skipped:], expected_losses)
    for name, value in expected[-1].items():
        np.testing.assert_array_equal(states[-1][name], value, err_msg=name)


def test_the_scale_doubles_after_the_interval(lossy, batch, steps):
    _, states = steps(scaled_graph(lossy, 8.0, interval=2), [batch] * 5)
    assert [float(s["loss.scale"]) for s in states] == [8, 16, 16, 32, 32]
    assert [int(s["loss.steps_at_scale"]) for s in states] == [1, 0, 1, 0, 1]


def test_every_student_has_a_scale_of_its_own(students, steps):
    rng = np.random.default_rng(0)
    graph = scaled_graph(students, 2.0**16, frozen=("teacher/",), **ADAM)
    slots = TrainingInterface.of(graph).slots
    assert {s.input: s.loss for s in slots if s.input.endswith(".scale")} == {
        "loss0.scale": "loss0",
        "loss1.scale": "loss1",
    }
    (losses,), (state,) = steps(graph, [{"x": rng.normal(size=(8, 4)).astype(np.float32)}])
    assert np.isfinite(losses).all()
    initial = constants(graph.graph)
    assert (state["loss0.scale"], state["loss1.scale"]) == (2.0**16, 2.0**15)
    assert (state["loss0.steps"], state["loss1.steps"]) == (1, 0)
    assert (state["s0/w"] != initial["s0/w"]).all()
    np.testing.assert_array_equal(state["s1/w"], initial["s1/w"])


def test_the_teacher_is_half_and_constant(students):
    graph = scaled_graph(students, 1.0, frozen=("teacher/",))
    assert "teacher/w" not in constants(graph.graph)
    teacher = constants(graph.graph)["teacher/w.float16"]
    assert teacher.dtype == np.float16
    np.testing.assert_array_equal(teacher, constants(students.graph)["teacher/w"].astype(np.float16))
    assert not any("teacher" in s.input for s in TrainingInterface.of(graph).slots)


def test_with_iter_size_the_step_is_skipped_and_the_sum_forgotten(lossy, batch, steps):
    graph = scaled_graph(lossy, 2.0**24, iter_size=2)
    initial = constants(graph.graph)
    _, (first, second) = steps(graph, [batch] * 2)
    assert (first["loss.scale"], second["loss.scale"]) == (2.0**24, 2.0**23)
    np.testing.assert_array_equal(second["fc"], initial["fc"])
    assert not second["fc.accumulated"].any()
    assert int(second["optimizer.iteration"]) == 2


@pytest.mark.parametrize("solver", [Solver(momentum=0.9), Solver(type=SolverType.ADAM, momentum=0.9)], ids=str)
def test_training_lowers_the_loss(solver, network, batch, steps):
    rate = np.array(0.02, np.float32)
    losses, states = steps(build_training_graph(network, solver, precision="float16"), [batch] * 40, rate)
    assert losses[-1][0] < 0.2 * losses[0][0]
    assert float(states[-1]["loss.scale"]) >= 2.0**8


def test_scaling_needs_gradients_that_begin_with_a_constant(lossy):
    graph = BuildGradients().apply(lossy).model
    (seed,) = (t for t in graph.graph.tensors().values() if t.name == "grad/loss")
    seed.name = "other"
    message = "apply-optimizer: loss: its gradients don't begin with a constant of build-gradients"
    with pytest.raises(PassError, match=f"^{re.escape(message)}$"):
        ApplyOptimizer(loss_scale=2.0).apply(graph)


@pytest.mark.parametrize(("bound", "value"), [(LARGEST, 0.0), (SMALLEST, np.inf)], ids=["largest", "smallest"])
def test_the_scale_stays_within_its_bounds(bound, value, steps):
    """Gradients that always are zero double it, infinite ones halve it."""
    text = (
        '<ir_version: 8, opset_import: ["" : 18]> g (float[N,1] x) => (y) <float[1,2] w = {1, 2}> { y = MatMul(x, w) }'
    )
    gradients = BuildGradients().apply(AttachLoss(loss="mse").apply(parse_text(text)).model).model
    scaled = ApplyOptimizer(loss_scale=bound, loss_scale_interval=1).apply(gradients).model
    batch = {"x": np.full((2, 1), value, np.float32), "target": np.zeros((2, 2), np.float32)}
    _, states = steps(Legalize().apply(scaled).model, [batch] * 2)
    assert [float(state["loss.scale"]) for state in states] == [bound, bound]


@pytest.mark.parametrize("settings", [{"loss_scale": -1.0}, {"loss_scale_interval": 0}], ids=str)
def test_refuses_scales_without_meaning(settings, network):
    with pytest.raises(PassError, match="loss-scale must not be negative, and loss-scale-interval at least 1"):
        ApplyOptimizer(**settings).apply(network)
