"""The loss between a network and the full one: against PyTorch, finite differences and the definition."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Constant, Model, Module, constants
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.lesson import Lesson, TargetLoss
from wootz.passes.plan.solver import Solver
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.distill import DISTILLATION, Distill
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.teacher_student import TEACHER

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 3, 5, 5)).astype(np.float32)
TRAINED = ("w1", "scale", "shift", "w2", "w3")
LABELS = np.array([0, 3, 1, 2, 2, 0])


def network(make_model, width: int, seed: int, tail: str = "y = Softmax<axis=1>(l)") -> Model:
    """Two modules, the first one `width` wide; BatchNormalization behind Relu, which no convolution takes up."""
    text = f"""g (float[N,3,5,5] x) => (y) <
      float[{width},3,3,3] w1, float[{width}] scale, float[{width}] shift, float[{width}] mean,
      float[{width}] variance, float[4,{width},1,1] w2, float[4,4] w3> {{
      a = Conv(x, w1)
      r = Relu(a)
      b = BatchNormalization(r, scale, shift, mean, variance)
      d = Dropout(b)
      c = Conv(d, w2)
      m = Relu(c)
      p = GlobalAveragePool(m)
      f = Flatten(p)
      l = MatMul(f, w3)
      {tail}
    }}"""
    vectors = dict.fromkeys(("scale", "shift", "mean", "variance"), (width,))
    model = make_model(text, seed, w1=(width, 3, 3, 3), w2=(4, width, 1, 1), w3=(4, 4), **vectors)
    return replace(model, modules=(Module("narrow", "x", "b"), Module("whole", "b", "m")))


@pytest.fixture
def teacher(make_model):
    return network(make_model, 8, seed=1)


@pytest.fixture
def student(make_model):
    return network(make_model, 5, seed=2)


def gradients_of(student: Model, distill: Distill, scale: float = 0.0) -> Model:
    """With a labelled loss beside it, where that has a `scale`."""
    model = distill.apply(student).model
    if scale:
        model = AttachLoss(plus=DISTILLATION, scale=scale).apply(model).model
    return BuildGradients(frozen=(TEACHER,)).apply(model).model


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_the_mixed_loss_and_its_gradients_equal_pytorch(student, teacher, temperature, target, run):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    distill = Distill.of(Lesson(distill=0.3, temperature=temperature, features=0.2), teacher)
    found = run(
        Legalize(target=target).apply(gradients_of(student, distill, scale=0.7)).model, {"x": X, "labels": LABELS}
    )

    def forward(w, x):
        r = functional.conv2d(x, w["w1"]).relu()
        b = functional.batch_norm(r, w["mean"], w["variance"], w["scale"], w["shift"])
        m = functional.conv2d(b, w["w2"]).relu()
        return m.mean((2, 3)) @ w["w3"], m

    own, other = ({name: torch.tensor(v) for name, v in constants(model.graph).items()} for model in (student, teacher))
    for name in TRAINED:
        own[name].requires_grad_()
    logits, m = forward(own, torch.tensor(X))
    targets, feature = forward(other, torch.tensor(X))
    divergence = functional.kl_div(
        (logits / temperature).log_softmax(1), (targets / temperature).softmax(1), reduction="batchmean"
    )
    loss = 0.7 * functional.cross_entropy(logits, torch.tensor(LABELS)) + 0.3 * temperature**2 * divergence
    loss = loss + 0.2 * functional.mse_loss(m, feature) / (feature**2).mean()
    loss.backward()
    assert float(found["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    trained = {name.removesuffix(".grad") for name in found if name.endswith(".grad")}
    assert trained == set(TRAINED)
    for name in trained:
        np.testing.assert_allclose(found[f"{name}.grad"], own[name].grad, rtol=1e-4, atol=1e-6, err_msg=name)


TAILS = {
    "softmax": "y = Softmax<axis=1>(l)",
    "log-softmax in another layout": "s = LogSoftmax<axis=1>(l) one = Constant<value_ints=[1]>() y = Unsqueeze(s, one)",
    "sigmoid": "y = Sigmoid(l)",
    "values": "y = Tanh(l)",
}


@pytest.mark.parametrize("tail", TAILS)
def test_gradients_equal_finite_differences(tail, make_model, in_double_precision, check_gradients):
    pair = [network(make_model, width, seed, TAILS[tail]) for width, seed in ((5, 2), (8, 1))]
    student, teacher = (in_double_precision(model) for model in pair)
    lossy = Distill(network=teacher, temperature=2.0, features=0.5).apply(student).model
    check_gradients(lossy, {"x": X.astype(np.float64)}, TRAINED)


def test_the_teacher_gives_what_the_full_network_gives(make_model, run):
    """Also in a graph for training, where a Dropout and a BatchNormalization of the student are switched on."""
    student, teacher = (network(make_model, width, seed, "y = Tanh(l)") for width, seed in ((5, 2), (8, 1)))
    model = TrainingMode().apply(Distill(network=teacher, share=0.5).apply(student).model).model
    model.graph.outputs.append(model.graph.tensors()["teacher/y"])
    (expected,) = run(teacher, {"x": X}).values()
    np.testing.assert_allclose(run(model, {"x": X})["teacher/y"], expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_lost_where_both_are_the_same(teacher, run):
    model = Distill(network=teacher, temperature=3.0, features=1.0).apply(teacher).model
    assert float(run(model, {"x": X})[DISTILLATION]) == pytest.approx(0, abs=1e-5)


def test_all_outputs_of_modules_that_are_whole_are_compared(student, teacher, run):
    tapped = replace(teacher, modules=(replace(teacher.modules[1], more_exits=("l", "d")),))
    found = Distill(network=tapped, share=0.0, features=2.0).apply(replace(student, modules=())).model
    given = {}
    for model in (student, teacher):
        model.graph.outputs = [model.graph.tensors()[name] for name in ("m", "l")]
        given[id(model)] = run(model, {"x": X})
    own, other = given.values()
    expected = [np.mean((own[n] - other[n]) ** 2) / np.mean(other[n] ** 2) for n in ("m", "l")]
    assert float(run(found, {"x": X})[DISTILLATION]) == pytest.approx(2 * np.mean(expected), rel=1e-5)


TWO_OUTPUTS = """g (float[N,3,5,5] x) => (y, z) <float[2,3,5,5] w, float[4,3,5,5] v, float factor> {
  y = Conv(x, w)
  h = Conv(x, v)
  z = Mul(h, factor)
}"""


def test_outputs_of_different_size_count_alike(make_model, run):
    shapes = {"w": (2, 3, 5, 5), "v": (4, 3, 5, 5)}

    def loss(factor):
        pair = [make_model(TWO_OUTPUTS, seed, **shapes, factor=np.array(factor)) for seed in (2, 1)]
        (found,) = run(Distill(network=pair[1]).apply(pair[0]).model, {"x": X}).values()
        student, teacher = (run(model, {"x": X}) for model in pair)
        quotients = [np.mean((student[n] - teacher[n]) ** 2) / np.mean(teacher[n] ** 2) for n in ("y", "z")]
        assert float(found) == pytest.approx(np.mean(quotients), rel=1e-5)
        return float(found)

    assert loss(100.0) == pytest.approx(loss(1.0), rel=1e-5)


def test_a_teacher_that_gives_zeros_leaves_the_loss_finite(make_model, run):
    text = "g (float[N,4] x) => (y) <float[4,3] w> { y = MatMul(x, w) }"
    model = Distill(network=make_model(text, w=np.zeros((4, 3)))).apply(make_model(text, w=(4, 3))).model
    assert np.isfinite(run(model, {"x": np.ones((2, 4), np.float32)})[DISTILLATION])


@pytest.mark.parametrize("scores", [False, True])
def test_logits_are_class_scores_where_that_is_said(scores, make_model, run):
    text = "g (float[N,4] x) => (y) <float[4,3] w> { y = MatMul(x, w) }"
    student, teacher = (make_model(text, seed, w=(4, 3)) for seed in (0, 1))
    model = Distill(network=teacher, scores=scores).apply(student).model
    assert scores == ("LogSoftmax" in [node.op for node in model.graph.nodes])


def test_a_single_score_is_no_class(make_model, run):
    """Its probability is 1 in both networks."""
    text = "g (float[N,4] x) => (y) <float[4,1] w> { y = MatMul(x, w) }"
    student, teacher = (make_model(text, seed, w=(4, 1)) for seed in (0, 1))
    model = Distill(network=teacher, scores=True).apply(student).model
    assert run(model, {"x": np.ones((2, 4), np.float32)})[DISTILLATION] > 0


def test_classes_lie_along_the_axis_of_the_softmax(make_model, run):
    text = "g (float[N,5,4] x) => (y) <float[4,3] w> { h = MatMul(x, w) y = Softmax<axis=-1>(h) }"
    student, teacher = (make_model(text, seed, w=(4, 3)) for seed in (0, 1))
    x = RANDOM.normal(size=(2, 5, 4)).astype(np.float32)
    (found,) = run(Distill(network=teacher).apply(student).model, {"x": x}).values()
    p, q = (run(model, {"x": x})["y"] for model in (teacher, student))
    assert float(found) == pytest.approx(np.sum(p * np.log(p / q), axis=-1).mean(), rel=1e-4)


def test_pipelines_make_what_the_function_makes(student, teacher, tmp_path, run):
    save(teacher, tmp_path / "full.onnx")
    text = (
        f"distillation{{distill.teacher={tmp_path / 'full.onnx'} distill.temperature=2.0 distill.scores=true "
        f"apply-optimizer.momentum=0.9}}"
    )
    by_text = run_pipeline(student, parse_pipeline(text), verify_each=True).model
    distill = Distill.of(Lesson(distill=0.5, temperature=2.0), teacher)
    in_python = build_training_graph(student, Solver(momentum=0.9), distill=distill)
    assert by_text.to_proto() == in_python.to_proto()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
@pytest.mark.parametrize("lesson", [Lesson(distill=0.5, features=0.1), Lesson((), distill=1.0)], ids=["mixed", "alone"])
def test_a_step_in_either_precision(lesson, target, precision, student, teacher, run):
    loss = lesson.losses if lesson.reads_targets else None
    distill = Distill.of(lesson, teacher)
    graph = build_training_graph(
        student, Solver(), loss=loss, distill=distill, target=target, precision=precision, verify_each=True
    )
    verify(graph)
    interface = TrainingInterface.of(graph)
    assert (interface.labels, interface.losses) == (("labels", ("loss",)) if loss else (None, (DISTILLATION,)))
    assert {slot.input for slot in interface.slots if slot.kind == "parameter"} == set(TRAINED)
    found = first_loss(graph, run)
    expected = first_loss(build_training_graph(student, Solver(), loss=loss, distill=distill), run)
    assert found == pytest.approx(expected, rel=1e-5 if precision == "float32" else 0.02)


def first_loss(graph: Model, run) -> float:
    interface = TrainingInterface.of(graph)
    state = {t.name: t.values for t in graph.graph.inputs if isinstance(t, Constant)}
    given = {"x": X, "learning_rate": np.array(0.1, np.float32)} | ({"labels": LABELS} if interface.labels else {})
    return float(run(graph, given | state)[interface.losses[0]])


def refusal(message):
    return pytest.raises(PassError, match=f"^{re.escape(message)}$")


def test_an_extent_that_only_one_network_knows_is_no_other_one(make_model, run):
    """Which columns of c there are, the network leaves to its input: all three, as the full one has them."""
    text = "g (float[{n},4] x) => (y) <float[4,3] w> {{ c = MatMul(x, w) {end} }}"
    full = make_model(text.format(n=2, end="y = Identity(c)"), seed=1, w=(4, 3))
    columns = "s = ReduceSum<keepdims=0>(x, first) there = Abs(s) some = NonZero(there) i = Gather(some, zero)"
    end = f"{columns} j = Slice(i, first, last) y = Gather<axis=1>(c, j)"
    constants = "w, int64 zero = {0}, int64[1] first = {0}, int64[1] last = {3}"
    network = make_model(text.format(n="N", end=end).replace(" w>", f" {constants}>"), w=(4, 3))
    assert not isinstance(infer_shapes(network).graph.outputs[0].shape[1], int)
    given = {"x": X[:2, 0, 0, :4]}
    own, target = (run(model, given)["y"] for model in (network, full))
    found = run(Distill(network=full).apply(network).model, given)[DISTILLATION]
    assert found == pytest.approx(np.square(own - target).mean() / np.square(target).mean(), rel=1e-5)


def test_what_it_refuses(student, teacher, make_model):
    text = "g (float[N,4] x) => (y) <float[4,{n}] w> {{ y = MatMul(x, w) }}"
    narrow, wide = (make_model(text.format(n=n), w=(4, n)) for n in (3, 5))
    other = make_model("g (float[N,4] z) => (y) <float[4,3] w> { y = MatMul(z, w) }", w=(4, 3))
    elsewhere = make_model("g (float[N,4] x) => (q) <float[4,3] w> { q = MatMul(x, w) }", w=(4, 3))
    with refusal("distill: y: it has shape ('N', 3), in the full network ('N', 5)"):
        Distill(network=wide).apply(narrow)
    with refusal("distill: the full network reads an input that the network doesn't have: z"):
        Distill(network=other).apply(narrow)
    with refusal("distill: no output in common: the network has y, the full network q"):
        Distill(network=elsewhere).apply(narrow)
    with refusal("distill: share and features are 0: there is nothing to learn from the teacher"):
        Distill(network=wide, share=0.0).apply(narrow)
    with refusal("distill: features: no module's output has the shape that it has in the full network"):
        Distill(network=replace(teacher, modules=()), features=1.0).apply(replace(student, modules=student.modules[:1]))
    with refusal("distill: teacher/w: there is a tensor whose name begins with teacher/ already"):
        distilled = Distill(network=wide, share=0.5).apply(wide).model
        distilled.graph.outputs = [*distilled.graph.outputs[:1], distilled.graph.tensors()["teacher/y"]]
        Distill(network=wide).apply(distilled)
    with refusal("attach-loss: there is no scalar output named 'distillation' to be added to the loss"):
        AttachLoss(plus=DISTILLATION).apply(narrow)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"distill": 1.5}, "the share of distillation is at least 0 and at most 1, not 1.5"),
        ({"losses": ()}, "without targets all of the loss is distillation, its share is 1, not 0"),
        ({"temperature": 0.0}, "the temperature of distillation is more than 0, not 0"),
        ({"features": float("inf")}, "the weight of the feature loss is at least 0, not inf"),
    ],
)
def test_lessons_that_mean_nothing(settings, reason):
    with pytest.raises(WootzError, match=f"^{reason}$"):
        Lesson(**settings)


def test_the_full_network_learns_from_targets_alone():
    losses = (TargetLoss("mse"),)
    assert Lesson(losses, distill=0.5, features=1.0).without_teacher() == Lesson(losses)
    with pytest.raises(WootzError, match="the full network can't be trained without targets"):
        Lesson((), distill=1.0).without_teacher()
