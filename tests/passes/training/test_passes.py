"""What the training passes refuse, whom they train and what they leave alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.model import MULTIPLIERS_KEY, Constant, Model
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import Slot, TrainingInterface
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.mixed_precision import MixedPrecision
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.fold_constants import FoldConstants
from wootz.passes.transforms.to_float32 import ToFloat32

LINEAR = """g (float[N,4] x) => (y) <float[4,3] w, float[3] b> {
  h = MatMul(x, w)
  y = Add(h, b)
}"""
TWO_STUDENTS = """g (float[N,4] x) => (loss0, loss1) <
  float[4,3] "teacher/w", float[4,3] "s0/w", float[4,3] "s1/w", float two> {
  t = MatMul(x, "teacher/w")
  target = Mod<fmod=1>(t, two)
  y0 = MatMul(x, "s0/w")
  d0 = Sub(y0, target)
  q0 = Mul(d0, d0)
  loss0 = ReduceMean<keepdims=0>(q0)
  y1 = MatMul(x, "s1/w")
  d1 = Sub(y1, target)
  q1 = Mul(d1, d1)
  loss1 = ReduceMean<keepdims=0>(q1)
}"""
STUDENT_SHAPES = {"teacher/w": (4, 3), "s0/w": (4, 3), "s1/w": (4, 3), "two": np.array(2.0)}


@pytest.fixture
def linear(make_model):
    return make_model(LINEAR, w=(4, 3), b=(3,))


@pytest.fixture
def two_students(make_model):
    return make_model(TWO_STUDENTS, **STUDENT_SHAPES)


def refusal(message):
    return pytest.raises(PassError, match=f"^{re.escape(message)}$")


def test_attach_loss_refuses_an_output_that_is_not_there(linear):
    with refusal("attach-loss: no output named 'z' (outputs: y)"):
        AttachLoss(output="z").apply(linear)


def test_attach_loss_refuses_an_open_choice(two_students):
    with refusal("attach-loss: the model has 2 outputs (loss0, loss1): choose one with output=NAME"):
        AttachLoss().apply(two_students)


def test_attach_loss_refuses_weights_for_other_classes(linear):
    with refusal("attach-loss: y: 2 class-weights for 3 classes"):
        AttachLoss(class_weights=(1.0, 2.0)).apply(linear)


SOFTMAX_TAILS = {
    "Identity": "p = Softmax<axis=1>(a)  y = Identity(p)",
    "Flatten": "p = Softmax<axis=1>(a)  y = Flatten(p)",
    "Reshape": "p = Softmax<axis=-3>(a)  y = Reshape(p, flat)",
    "Squeeze": "p = Softmax<axis=1>(a)  y = Squeeze(p, space)",
    "Transpose": "t = Transpose<perm=[0,2,3,1]>(a)  p = Softmax(t)  y = Transpose<perm=[0,3,1,2]>(p)",
    "two": "p = Softmax<axis=1>(a)  s = Squeeze(p, space)  y = Identity(s)",
}


def behind_an_addition(body, make_model):
    used = {"flat": np.array([0, -1]), "space": np.array([2, 3])}
    declared = ", ".join(f"int64[2] {name}" for name in used if name in body)
    text = f"g (float[N,4,1,1] x) => (y) <float[4,1,1] w{declared and ', ' + declared}> {{ a = Add(x, w)  {body} }}"
    return make_model(text, w=(4, 1, 1), **{n: v for n, v in used.items() if n in body})


@pytest.mark.parametrize("loss", ["softmax-cross-entropy", "distillation"])
@pytest.mark.parametrize("tail", SOFTMAX_TAILS)
def test_attach_loss_finds_the_logits_behind_a_change_of_layout(tail, loss, make_model, run):
    x = np.random.default_rng(0).normal(size=(3, 4, 1, 1)).astype(np.float32)
    found, expected = [], []
    for body, results in ((SOFTMAX_TAILS[tail], found), ("y = Flatten(a)", expected)):
        graph = BuildGradients().apply(AttachLoss(loss=loss).apply(behind_an_addition(body, make_model)).model).model
        (given,) = graph.graph.inputs[1:]
        values = np.array([0, 3, 1]) if given.dtype == np.int64 else np.arange(12, dtype=np.float32).reshape(3, 4)
        shape = [3, *given.shape[1:]]
        results += run(Legalize().apply(graph).model, {"x": x, given.name: np.resize(values, shape)}).values()
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)


def test_attach_loss_keeps_a_softmax_over_another_axis(make_model):
    model = behind_an_addition("p = Softmax<axis=2>(a)  y = Identity(p)", make_model)
    assert "Softmax" in [n.op for n in AttachLoss().apply(model).model.graph.nodes]


@pytest.mark.parametrize("activation", ["Softmax<axis=1>", "LogSoftmax<axis=1>", "Sigmoid"])
def test_attach_loss_takes_the_logits_behind_any_activation(activation, make_model):
    model = behind_an_addition(f"p = {activation}(a)  y = Transpose<perm=[0,1,2,3]>(p)", make_model)
    graph = AttachLoss().apply(model).model.graph
    assert [n.op for n in graph.nodes] == ["Add", "Transpose", "SoftmaxCrossEntropyLoss"]


def test_attach_loss_keeps_probabilities_that_another_output_needs(make_model):
    text = "g (float[N,4] x) => (y, q) <float[4] w> { a = Add(x, w)  p = Softmax(a)  y = Identity(p)  q = Neg(p) }"
    model = AttachLoss(output="y").apply(make_model(text, w=(4,))).model
    assert [n.op for n in model.graph.nodes if n.op in ("Softmax", "Neg")] == ["Softmax", "Neg"]


def test_attach_loss_refuses_a_softmax_whose_axis_is_lost(make_model):
    text = "g (float[N,4,3] x) => (y) <float[3] w> { a = Add(x, w)  p = Softmax<axis=2>(a)  [all] y = Flatten(p) }"
    reason = "the classes of the Softmax before it can't be followed through Flatten: remove the Softmax"
    with refusal(f"attach-loss: all: {reason}"):
        AttachLoss().apply(make_model(text, w=(3,)))


REFUSED_SETTINGS = {
    "class-weights of zero": (
        {"class_weights": (0.0, 0.0, 0.0)},
        "class-weights have to be at least 0, and one of them more",
    ),
    "a negative class-weight": (
        {"class_weights": (1.0, -1.0, 1.0)},
        "class-weights have to be at least 0, and one of them more",
    ),
    "no temperature": (
        {"loss": "distillation", "temperature": 0.0},
        "temperature has to be more than 0, not 0.0",
    ),
    "label-smoothing": ({"label_smoothing": 1.5}, "label-smoothing has to be at least 0 and at most 1, not 1.5"),
    "scale": ({"scale": float("nan")}, "scale has to be finite, not nan"),
}


@pytest.mark.parametrize("case", REFUSED_SETTINGS)
def test_attach_loss_refuses_settings_that_mean_nothing(case, linear):
    settings, reason = REFUSED_SETTINGS[case]
    with refusal(f"attach-loss: {reason}"):
        AttachLoss(**settings).apply(linear)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_class_weights_are_not_trained(precision, linear):
    lossy = AttachLoss(class_weights=(1.0, 2.0, 3.0), label_smoothing=0.1).apply(linear).model
    graph = build_training_graph(lossy, Solver(), loss=None, precision=precision)
    assert [s.input for s in TrainingInterface.of(graph).slots if s.kind == "parameter"] == ["w", "b"]


def test_build_gradients_refuses_a_network_without_loss(linear):
    with refusal("build-gradients: no scalar output to minimise: run attach-loss first"):
        BuildGradients().apply(linear)


def test_build_gradients_refuses_a_loss_that_is_not_a_scalar(linear):
    with refusal("build-gradients: y: a loss must be a scalar, this output has shape ['N', 3]"):
        BuildGradients(losses=("y",)).apply(linear)


def test_build_gradients_names_node_and_operator_without_a_rule(make_model):
    text = """g (float[N,4] x) => (loss) <float[4,3] w> {
      h = MatMul(x, w)
      [angle] a = Tan(h)
      loss = ReduceSum<keepdims=0>(a)
    }"""
    with refusal("build-gradients: angle: there is no gradient rule for Tan"):
        BuildGradients().apply(make_model(text, w=(4, 3)))


def test_build_gradients_sees_what_a_subgraph_reads(make_model):
    text = """g (float[2,3] x, bool b) => (loss) <float[3] w> {
      h = Mul(x, w)
      [choice] c = If (b) <then_branch = t () => (float[2,3] d) { d = Neg(h) },
                           else_branch = e () => (float[2,3] d) { d = Abs(h) }>
      s = Add(h, c)
      loss = ReduceSum<keepdims=0>(s)
    }"""
    with refusal("build-gradients: choice: there is no gradient through the subgraphs of If"):
        BuildGradients().apply(make_model(text, w=(3,)))


REFUSED_FORMS = {
    "AveragePool": (
        'y = AveragePool<kernel_shape=[1,1], strides=[4,4], auto_pad="SAME_UPPER">(a)',
        "auto_pad=SAME_UPPER leaves out more than one element: versions of ONNX Runtime differ there",
    ),
    "BatchNormalization": (
        "y, m, v = BatchNormalization<training_mode=1>(a, s, s, s, s)",
        "training_mode=1 needs momentum 0 and its outputs 2 and 3: apply strip-training, then training-mode",
    ),
    "ConvTranspose": (
        "y = ConvTranspose<output_shape=[10,10], strides=[2,2]>(a, w)",
        "an output_padding or output_shape that leaves room for another position is not supported",
    ),
    "Einsum": ('y = Einsum<equation="nchw->nhw">(a)', "operand 0 is summed over c alone: use ReduceSum before"),
    "Einsum-ellipsis": (
        'y = Einsum<equation="n...,n->n...">(a, n)',
        "the equation n...,n->n... is not supported: without ... and repeated indices, and with -> it is",
    ),
    "GatherND": ("y = GatherND<batch_dims=1>(a, i)", "batch_dims are not supported"),
    "MatMul": ("y = MatMul(a, four)", "a vector as operand is not supported: unsqueeze it"),
    "MaxPool": ("y, m = MaxPool<kernel_shape=[2,2], storage_order=1>(a)", "storage_order=1 is not supported"),
    "Pad": ('y = Pad<mode="reflect">(a, pads)', "negative pads are not supported with mode=reflect: slice"),
    "ReduceMean": ("y = ReduceMean<noop_with_empty_axes=1>(a)", "noop_with_empty_axes=1 without axes is not supported"),
    "Resize": (
        'y = Resize<keep_aspect_ratio_policy="not_larger">(a, , , sizes)',
        "keep_aspect_ratio_policy is not supported: give the sizes or scales themselves",
    ),
    "Resize-crop": (
        'y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(a, roi, , sizes)',
        "coordinate_transformation_mode=tf_crop_and_resize is not supported",
    ),
    "Slice": ("y = Slice(a, start, start)", "operand 1 must be constant"),
    "SoftmaxCrossEntropyLoss": (
        'y = SoftmaxCrossEntropyLoss<reduction="sum">(a, labels)',
        "only reduction='mean' without ignore_index is supported",
    ),
}
CONSTANTS = {
    "p": (3, 1, 1),
    "s": (3,),
    "w": (3, 2, 2, 2),
    "n": (2,),
    "four": (4,),
    "i": np.array([[0], [1]]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, -1]),
    "sizes": np.array([2, 3, 2, 2]),
    "roi": np.array([0, 0, 0, 0, 1, 1, 1, 1.0]),
}


@pytest.mark.parametrize("form", REFUSED_FORMS)
def test_build_gradients_says_what_form_of_an_operator_is_not_covered(form, make_model):
    body, reason = REFUSED_FORMS[form]
    used = {n: c for n, c in CONSTANTS.items() if n == "p" or re.search(rf"\b{n}\b", body[body.index("(") :])}
    kinds = {n: "int64" if isinstance(c, np.ndarray) and c.dtype.kind == "i" else "float" for n, c in used.items()}
    shapes = {n: c.shape if isinstance(c, np.ndarray) else c for n, c in used.items()}
    declared = ", ".join(f"{kinds[n]}[{','.join(map(str, shapes[n]))}] {n}" for n in used)
    inputs = "float[2,3,4,4] x, int64[1] start, int64[2,4,4] labels"
    text = f"g ({inputs}) => (loss) <{declared}> {{ a = Mul(x, p) [it] {body} loss = ReduceSum<keepdims=0>(y) }}"
    with refusal(f"build-gradients: it: {form.partition('-')[0]}: {reason}"):
        BuildGradients(losses=("loss",)).apply(make_model(text, **used))


def test_parameters_as_inputs_are_for_a_program_with_an_optimizer_of_its_own(linear, run, values_of):
    lossy = AttachLoss().apply(linear).model
    graph = Legalize().apply(BuildGradients(parameters_as_inputs=True).apply(lossy).model).model
    assert [t.name for t in graph.graph.inputs] == ["x", "labels", "w", "b"]
    batch = {"x": np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32), "labels": np.array([0, 2])}
    w = values_of(linear)["w"] * 2
    moved = linear.copy()
    moved.graph.tensors()["w"].values = w
    expected = run(Legalize().apply(BuildGradients().apply(AttachLoss().apply(moved).model).model).model, batch)
    found = run(graph, batch | {"w": w})
    assert found.keys() == expected.keys() == {"loss", "w.grad", "b.grad"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


def test_build_gradients_refuses_to_train_nothing(linear):
    lossy = AttachLoss().apply(linear).model
    message = "there is nothing to train: no loss depends on a parameter that is not frozen"
    with refusal(f"build-gradients: {message}"):
        BuildGradients(frozen=("w", "b")).apply(lossy)


def test_build_gradients_refuses_a_frozen_name_that_is_not_there(linear):
    lossy = AttachLoss().apply(linear).model
    with refusal("build-gradients: frozen=wieght names no constant (a prefix ends in / or *)"):
        BuildGradients(frozen=("w", "wieght")).apply(lossy)
    with refusal("mixed-precision: frozen=wieght names no constant (a prefix ends in / or *)"):
        MixedPrecision(frozen=("wieght",)).apply(lossy)


def test_build_gradients_refuses_a_frozen_prefix_of_no_constant(linear):
    with refusal("build-gradients: frozen=teacher/ names no constant (a prefix ends in / or *)"):
        BuildGradients(frozen=("teacher/",)).apply(AttachLoss().apply(linear).model)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_frozen_by_name_or_multiplier_stays_so_in_float16(precision, make_model):
    text = "g (float[N,4] x) => (y) <float[4,4] w, float[4,4] v> { h = MatMul(x, w)  y = MatMul(h, v) }"
    network = make_model(text, w=(4, 4), v=(4, 4))
    still = Model(network.graph, metadata={MULTIPLIERS_KEY: '{"w": [0, 0]}'})
    for model, frozen in ((network, "w"), (still, ())):
        graph = build_training_graph(model, Solver(), frozen=frozen, precision=precision)
        assert [s.input for s in TrainingInterface.of(graph).slots if s.kind == "parameter"] == ["v"]


def test_gradients_are_built_once(linear):
    graph = BuildGradients().apply(AttachLoss().apply(linear).model).model
    with refusal("build-gradients: w.grad: the graph has its gradients already"):
        BuildGradients().apply(graph)


STANDARDISED = """g (float[N,3,4,4] x) => (y) <float[2,3,1,1] w, float[2] b, int64[3] axes> {
  mean = ReduceMean(w, axes)
  centred = Sub(w, mean)
  [conv] y = Conv(x, centred, b)
}"""
STANDARDISED_WEIGHTS = {"w": (2, 3, 1, 1), "b": (2,), "axes": np.array([1, 2, 3])}


def test_build_gradients_refuses_weights_that_would_silently_stay_as_they_are(make_model):
    lossy = AttachLoss(loss="mse").apply(make_model(STANDARDISED, **STANDARDISED_WEIGHTS)).model
    reason = "Conv computes its weights from w, which isn't trained: run fold-constants before, or freeze w"
    for step in (BuildGradients(), MixedPrecision()):
        with refusal(f"{step.name}: conv: {reason}"):
            step.apply(lossy)
    folded = BuildGradients().apply(FoldConstants().apply(lossy).model).model
    assert [t.name for t in folded.graph.outputs] == ["loss", "centred.grad", "b.grad"]
    frozen = BuildGradients(frozen=("w",)).apply(lossy).model
    assert [t.name for t in frozen.graph.outputs] == ["loss", "b.grad"]


def test_computed_weights_that_no_loss_reaches_are_not_refused(make_model):
    text = """g (float[N,4] x) => (y, z) <float[4,4] w, float[4,4] v> {
      root = Exp(w)
      y = MatMul(x, root)
      z = MatMul(x, v)
    }"""
    lossy = AttachLoss(output="z").apply(make_model(text, w=(4, 4), v=(4, 4))).model
    assert [t.name for t in BuildGradients().apply(lossy).model.graph.outputs] == ["y", "loss", "v.grad"]


def test_weights_that_are_computed_from_trained_parameters_are_trained(make_model):
    """A layout that changes, and a product of parameters."""
    text = """g (float[N,4] x) => (y) <float[3,4] v, float[3,1] g> {
      scaled = Mul(v, g)
      w = Transpose(scaled)
      y = MatMul(x, w)
    }"""
    graph = BuildGradients().apply(AttachLoss().apply(make_model(text, v=(3, 4), g=(3, 1))).model).model
    assert [t.name for t in graph.graph.outputs] == ["loss", "v.grad", "g.grad"]


def test_a_mask_and_a_factor_from_single_numbers_are_no_weights(make_model):
    text = """g (float[N,2,4] x) => (y) <bool[2,4] hidden, float[4,4] w, float least, float zero, float[1] size> {
      mask = Where(hidden, least, zero)
      root = Sqrt(size)
      h = MatMul(x, w)
      s = Mul(h, root)
      y = Add(s, mask)
    }"""
    single = {"hidden": np.eye(2, 4) > 0, "least": np.array(-9.0), "zero": np.array(0.0), "size": np.array([4.0])}
    lossy = AttachLoss(loss="mse").apply(make_model(text, w=(4, 4), **single)).model
    assert [t.name for t in BuildGradients().apply(lossy).model.graph.outputs] == ["loss", "w.grad"]


def test_apply_optimizer_refuses_a_graph_without_gradients(linear):
    with refusal("apply-optimizer: there are no gradients: run build-gradients first"):
        ApplyOptimizer().apply(AttachLoss().apply(linear).model)


WRONG_SETTINGS = {
    "momentum has to be at least 0 and less than 1": {"type": "Adam", "momentum": 1.0},
    "momentum2 has to be at least 0 and less than 1": {"type": "Adam", "momentum2": float("nan")},
    "delta can't be negative": {"delta": -1.0},
    "weight-decay has to be finite": {"weight_decay": float("inf")},
    "clip-gradients has to be finite": {"clip_gradients": float("nan")},
    "iter-size has to be 1 or more": {"iter_size": 0},
    "loss-scale must not be negative, and loss-scale-interval at least 1": {"loss_scale": float("nan")},
}


@pytest.mark.parametrize("reason", WRONG_SETTINGS)
def test_apply_optimizer_refuses_settings_that_no_solver_may_have(reason, linear):
    gradients = BuildGradients().apply(AttachLoss().apply(linear).model).model
    with refusal(f"apply-optimizer: {reason}"):
        ApplyOptimizer(**WRONG_SETTINGS[reason]).apply(gradients)


def test_the_gradient_of_an_exponent_is_zero_where_the_base_is(make_model, run):
    model = make_model("g (float[2] x) => (y) <float[2] w> { b = Relu(x)  v = Mul(w, w)  y = Pow(b, v) }", w=(2,))
    model.graph.tensors()["w"].values = np.array([2.0, 1.0], np.float32)
    graph = Legalize().apply(BuildGradients().apply(AttachLoss(loss="mse").apply(model).model).model).model
    outputs = run(graph, {"x": np.array([0, 3], np.float32), "target": np.zeros(2, np.float32)})
    np.testing.assert_allclose(outputs["w.grad"], [0, 3 * 3 * np.log(3) * 2], rtol=1e-5)


def test_the_gradient_at_the_bounds_of_a_clip_is_zero(make_model, run):
    text = "g (float[4] x) => (y) <float[4] w, float low, float high> { a = Mul(x, w)  y = Clip(a, low, high) }"
    model = make_model(text, w=np.ones(4, np.float32), low=np.array(-1.0), high=np.array(1.0))
    graph = Legalize().apply(BuildGradients().apply(AttachLoss(loss="mse").apply(model).model).model).model
    outputs = run(graph, {"x": np.array([-1, -0.5, 0.5, 1], np.float32), "target": np.zeros(4, np.float32)})
    np.testing.assert_allclose(outputs["w.grad"], [0, 0.125, 0.125, 0])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = ReduceMax<keepdims=0>(a)", [0, 1.5, 1.5]),
        ("y = ReduceMin<keepdims=0>(a)", [1, 0, 0]),
        ("c = Max(a, three) y = ReduceSum<keepdims=0>(c)", [0, 1.5, 1.5]),
    ],
)
def test_equal_extrema_share_their_gradient(body, expected, make_model, run):
    text = f"g (float[3] x) => (y) <float[3] w, float three = {{3}}> {{ a = Mul(x, w)  {body} }}"
    model = make_model(text, w=np.ones(3, np.float32))
    model.graph.outputs[0].dtype, model.graph.outputs[0].shape = np.dtype(np.float32), ()
    graph = Legalize().apply(BuildGradients(losses=("y",)).apply(model).model).model
    found = run(graph, {"x": np.array([1, 3, 3], np.float32)})["w.grad"]
    np.testing.assert_allclose(found, expected)


def test_each_dropout_has_a_seed_of_its_own(make_model):
    text = "g (float[N,4] x) => (y) <float ratio> { h = Dropout(x, ratio)  y = Dropout(h, ratio) }"
    graph = TrainingMode(seed=5).apply(make_model(text, ratio=np.array(0.5))).model.graph
    assert [n.attrs["seed"] for n in graph.nodes] == [5, 6]


@pytest.mark.parametrize(("mode", "kept"), [(TrainingMode(), 0.9), (TrainingMode(momentum=0.75), 0.75)])
def test_running_statistics_keep_the_share_that_momentum_says(mode, kept, make_model, run, values_of):
    """Against the definition, over three steps: new = momentum · old + (1 - momentum) · batch."""
    text = """g (float[N,2,3,3] x) => (y) <float[2] s, float[2] b, float[2] mean, float[2] variance, float[2,2,1,1] w> {
      n = BatchNormalization(x, s, b, mean, variance)
      y = Conv(n, w)
    }"""
    shapes = {"s": (2,), "b": (2,), "mean": (2,), "variance": (2,), "w": (2, 2, 1, 1)}
    model = make_model(text, **shapes)
    training = AttachLoss(loss="mse").apply(mode.apply(model).model).model
    graph = Legalize().apply(ApplyOptimizer().apply(BuildGradients().apply(training).model).model).model
    state, rng = values_of(graph), np.random.default_rng(0)
    expected = {name: values_of(model)[name] for name in ("mean", "variance")}
    for step in range(3):
        x = (rng.normal(size=(4, 2, 3, 3)) * 3 + step).astype(np.float32)
        feeds = {"x": x, "target": np.zeros((4, 2, 3, 3), np.float32), "learning_rate": np.array(0.01, np.float32)}
        slots = TrainingInterface.of(graph).slots
        outputs = run(graph, feeds | {slot.input: state[slot.input] for slot in slots})
        state |= {slot.input: outputs[slot.output] for slot in slots}
        batch = {"mean": x.mean((0, 2, 3)), "variance": x.var((0, 2, 3))}
        expected = {name: kept * old + (1 - kept) * batch[name] for name, old in expected.items()}
        for name, value in expected.items():
            np.testing.assert_allclose(state[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("loss", ["mse", "distillation"])
def test_apply_optimizer_finds_the_target(loss, linear):
    graph = build_training_graph(linear, Solver(), loss=loss)
    interface = TrainingInterface.of(graph)
    assert (interface.data, interface.labels) == ("x", "target")
    assert graph.graph.tensors()["target"].dtype == np.float32


def test_apply_optimizer_refuses_parameters_of_float16(linear):
    """Adam divides by the root of numbers that are 0 in float16."""
    half = linear.copy()
    for tensor in half.graph.tensors().values():
        if isinstance(tensor, Constant):
            tensor.values = tensor.values.astype(np.float16)
        else:
            tensor.dtype = np.dtype(np.float16) if tensor.dtype is not None else None
    gradients = BuildGradients().apply(AttachLoss(loss="mse").apply(half).model).model
    with pytest.raises(
        PassError, match=r"float16 is too narrow for a parameter that is trained .* run to-float32 first"
    ):
        ApplyOptimizer().apply(gradients)
    with pytest.raises(PassError, match="this one is float16: run to-float32 first"):
        MixedPrecision().apply(AttachLoss(loss="mse").apply(half).model)
    wide = ToFloat32().apply(half).model
    verify(wide)
    assert {np.dtype(t.dtype) for t in (*wide.graph.inputs, *wide.graph.outputs)} == {np.dtype(np.float32)}
    build_training_graph(wide, Solver(), loss="mse")


def test_apply_optimizer_asks_for_labels_of_another_name(linear):
    gradients = BuildGradients().apply(AttachLoss(loss="mse", target="height").apply(linear).model).model
    with refusal(
        "apply-optimizer: a training graph has one input beside its labels and targets, this one has: x, height; "
        "labels=NAME,NAME names all inputs with labels or targets, and data=NAME,NAME those of a network of several "
        "inputs"
    ):
        ApplyOptimizer().apply(gradients)
    named = ApplyOptimizer(labels=("height",)).apply(gradients).model
    assert (TrainingInterface.of(named).data, TrainingInterface.of(named).labels) == ("x", "height")


def test_two_losses_with_targets_of_their_own(make_model, run, values_of):
    text = """g (float[N,4] x) => (y, z) <float[4,3] w, float[3,2] v> {
      y = MatMul(x, w)
      z = MatMul(y, v)
    }"""
    model = make_model(text, w=(4, 3), v=(3, 2))
    classes = AttachLoss(output="y", loss_name="classes").apply(model).model
    both = AttachLoss(loss="mse", output="z", loss_name="heights").apply(classes).model
    graph = Legalize().apply(ApplyOptimizer().apply(BuildGradients().apply(both).model).model).model
    interface = TrainingInterface.of(graph)
    assert (interface.data, interface.labels, interface.targets) == ("x", "labels", ("target",))
    assert interface.losses == ("classes", "heights")
    rng, labels = np.random.default_rng(0), np.array([2, 0, 1])
    x, target = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    feeds = {"x": x, "labels": labels, "target": target, "learning_rate": np.array(0.1, np.float32)}
    found = run(graph, feeds)
    w, v = (values_of(model)[n] for n in ("w", "v"))
    exponents = np.exp(x @ w)
    into_y = (exponents / exponents.sum(1, keepdims=True) - np.eye(3)[labels]) / 3
    into_z = 2 * (x @ w @ v - target) / target.size
    np.testing.assert_allclose(found["w.new"], w - 0.1 * x.T @ (into_y + into_z @ v.T), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["v.new"], v - 0.1 * (x @ w).T @ into_z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1024.0])
def test_legalize_keeps_equal_parameters_apart(scale, make_model, run):
    """Where it runs before apply-optimizer. The slope is also a scalar beside an axis of size 1, and one constant is 1
    as what gradients begin with is."""
    text = """g (float[N,3] x) => (y) <float[3] a, float[3] b, float slope, float one, int64[2] shape, int64[2] back> {
      h = Mul(x, a)
      p = PRelu(h, slope)
      q = Mul(p, b)
      r = Reshape(q, shape)
      s = Mul(r, slope)
      e = Reshape(s, back)
      y = Sub(one, e)
    }"""
    weights = {"a": np.ones(3), "b": np.ones(3), "slope": np.array(0.25), "one": np.array(1.0)}
    network = make_model(text, **weights, shape=np.array([-1, 1]), back=np.array([-1, 3]))
    built = BuildGradients().apply(AttachLoss().apply(network).model).model
    optimizer = ApplyOptimizer(momentum=0.5, loss_scale=scale)
    early = optimizer.apply(Legalize().apply(built).model).model
    usual = Legalize().apply(optimizer.apply(built).model).model
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    feeds = {"x": x, "labels": np.array([0, 1, 2, 0]), "learning_rate": np.array(0.1, np.float32)}
    feeds |= {"a": np.full(3, 0.5, np.float32), "b": np.full(3, 2.0, np.float32), "slope": np.array(0.1, np.float32)}
    found, expected = run(early, feeds), run(usual, feeds)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7)


def test_shared_statistics_are_updated_once_for_each_node_in_order(make_model, run):
    text = """g (float[4,3] x) => (y) <float[3] s, float[3] b, float[3] m, float[3] v_variance> {
      [one] h = BatchNormalization(x, s, b, m, v_variance)
      [two] y = BatchNormalization(h, s, b, m, v_variance)
    }"""
    weights = {name: np.float32(values) for name, values in
               {"s": [2, 3, 0.5], "b": [1, 0, -1], "m": [5, 6, 7], "v_variance": [1, 2, 3]}.items()}  # fmt: skip
    model = make_model(text, **weights)
    x = np.random.default_rng(0).normal(3, 2, (4, 3)).astype(np.float32)
    found = run(Legalize().apply(TrainingMode(momentum=0.75).apply(model).model).model, {"x": x})
    h = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * weights["s"] + weights["b"]
    old = {name: values.values for name, values in model.graph.tensors().items() if name in weights}
    for name, first, second in (("m", x.mean(0), h.mean(0)), ("v_variance", x.var(0), h.var(0))):
        once = 0.75 * old[name] + 0.25 * first
        np.testing.assert_allclose(found[f"{name}.new"], 0.75 * once + 0.25 * second, rtol=1e-5)


def test_parameters_that_an_exporter_merged_are_trained_apart(make_model):
    text = """g (float[N,3] x) => (y) <float[3] first> {
      second = Identity(first)
      h = Mul(x, first)
      y = Mul(h, second)
    }"""
    graph = build_training_graph(make_model(text, first=np.ones(3, np.float32)), Solver())
    assert [s.input for s in TrainingInterface.of(graph).slots] == ["first", "second"]


def test_an_identity_of_weights_that_are_not_equal_by_accident_is_shared(make_model):
    text = """g (float[N,3] x) => (y) <float[3] first> {
      second = Identity(first)
      h = Mul(x, first)
      y = Mul(h, second)
    }"""
    graph = build_training_graph(make_model(text, first=np.float32([1, 2, 3])), Solver())
    assert [s.input for s in TrainingInterface.of(graph).slots] == ["first"]


def test_a_frozen_teacher_gets_no_gradient_and_needs_no_rule(two_students):
    """The teacher contains an operator without a rule."""
    graph = BuildGradients(frozen=("teacher/",)).apply(two_students).model
    gradients = [t.name for t in graph.graph.outputs if t.name.endswith(".grad")]
    assert gradients == ["s0/w.grad", "s1/w.grad"]
    new = graph.graph.nodes[len(two_students.graph.nodes) :]
    assert not any("teacher/w" in [t.name for t in node.inputs] for node in new)


def test_each_student_is_clipped_on_its_own(two_students, run, values_of):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    gradients = run(Legalize().apply(BuildGradients(frozen=("teacher/",)).apply(two_students).model).model, {"x": x})
    norms = {s: float(np.linalg.norm(gradients[f"{s}/w.grad"])) for s in ("s0", "s1")}
    clip = sum(norms.values()) / 2  # between the two norms: one student is clipped, the other is not
    solver = Solver(clip_gradients=clip)
    graph = build_training_graph(two_students, solver, loss=None, losses=("loss0", "loss1"), frozen="teacher/")
    assert TrainingInterface.of(graph).slots == (
        Slot("s0/w", "s0/w.new", "parameter", "loss0"),
        Slot("s1/w", "s1/w.new", "parameter", "loss1"),
    )
    outputs = run(graph, {"x": x, "learning_rate": np.array(1.0, np.float32)})
    for student, norm in norms.items():
        moved = values_of(two_students)[f"{student}/w"] - outputs[f"{student}/w.new"]
        np.testing.assert_allclose(moved, gradients[f"{student}/w.grad"] * min(1.0, clip / norm), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_weight_decay(kind, linear, run, values_of):
    solver = Solver(weight_decay=0.5, regularization_type=kind)
    network = Model(linear.graph, metadata={MULTIPLIERS_KEY: '{"b": [1, 0]}'})
    x, labels = np.zeros((2, 4), np.float32), np.array([0, 2])
    feeds = {"x": x, "labels": labels, "learning_rate": np.array(0.1, np.float32)}
    outputs = run(build_training_graph(network, solver), feeds)
    plain = run(build_training_graph(network, Solver()), feeds)
    w = values_of(linear)["w"]
    np.testing.assert_allclose(outputs["w.new"], w - 0.05 * (w if kind == "L2" else np.sign(w)), rtol=1e-5)
    np.testing.assert_array_equal(outputs["b.new"], plain["b.new"])


def test_rate_of_zero_changes_nothing_but_statistics_and_momentum(linear, run, values_of):
    graph = build_training_graph(linear, Solver(momentum=0.9))
    x, labels = np.ones((2, 4), np.float32), np.array([0, 2])
    outputs = run(graph, {"x": x, "labels": labels, "learning_rate": np.array(0.0, np.float32)})
    for name in ("w", "b"):
        np.testing.assert_array_equal(outputs[f"{name}.new"], values_of(linear)[name])
