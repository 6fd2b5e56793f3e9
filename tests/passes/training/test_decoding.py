"""What outputs are decoded from, and the loss that compares that: against the formulas, in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.solver import Solver
from wootz.passes.training.decoding import Decoding
from wootz.passes.training.distill import DISTILLATION, Distill
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.training_graph import build_training_graph

HEADS = """
  s = Conv(h, v1) rows = Reshape(s, nine)
  b = Conv(h, v2) r4 = Reshape(b, four) across = Transpose<perm=[0,2,1]>(r4)
"""
DETECTOR = f"""g (float[N,2,3,3] x) => (boxes, chances) <
  float[5,2,1,1] w, float[4,5,1,1] v1, float[4,5,1,1] v2,
  int64[3] nine = {{0, 4, 9}}, int64[3] four = {{0, 4, 9}}, float[9,2] grid, float stride = {{8}}, float half = {{4}},
  int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] last = {{4}}, int64[1] axis = {{1}}> {{
  a = Conv(x, w) h = Relu(a)
{HEADS}
  moved, enlarged = Split<axis=2, num_outputs=2>(across)
  away = Mul(moved, stride) middle = Add(away, grid)
  size = Exp(enlarged) extent = Mul(size, half)
  low = Sub(middle, extent) high = Add(middle, extent)
  boxes = Concat<axis=2>(low, high)
  [of_object] first = Slice(rows, zero, one, axis) object = Sigmoid(first)
  [of_classes] others = Slice(rows, one, last, axis) classes = Softmax<axis=1>(others)
  chances = Mul(object, classes)
}}"""
SHAPES = {"v1": (4, 5, 1, 1), "v2": (4, 5, 1, 1), "grid": np.zeros((9, 2))}
X = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)


@pytest.fixture
def pair(make_model):
    """A student and its teacher."""
    return [make_model(DETECTOR, seed, w=(5, 2, 1, 1), **SHAPES) for seed in (2, 1)]


def sources_of(model):
    decoding = Decoding(model.graph)
    return {
        output.name: [(s.tensor.name, s.activation and s.activation.op) for s in decoding.sources(output)]
        for output in model.graph.outputs
    }


def test_boxes_and_chances_are_decoded_from_offsets_and_logits(pair):
    assert sources_of(pair[0]) == {
        "boxes": [("moved", None), ("enlarged", None)],
        "chances": [("first", "Sigmoid"), ("others", "Softmax")],
    }


ENDS = {
    "a sigmoid": ("y = Sigmoid(c)", [("c", "Sigmoid")]),
    "one that something else reads, too": ("s = Sigmoid(c) y = Mul(s, c)", [("c", None)]),
    "two sigmoids of one": ("s = Sigmoid(c) t = Sigmoid(c) y = Mul(s, t)", [("c", None)]),
    "other layouts": ("t = Transpose<perm=[0,2,3,1]>(c) y = Exp(t)", [("t", None)]),
    "scales side by side": ("d = Conv(h, v) j = Concat<axis=1>(c, d) y = Sigmoid(j)", [("j", "Sigmoid")]),
    "arithmetic alone": ("d = Mul(c, c) y = Add(d, c)", []),
    "nothing": ("y = Identity(c)", []),
    "an operator that is none of decoding": ("s = Sigmoid(c) y = Relu(s)", []),
    "a gate of the network's inside": ("s = Sigmoid(c) y = Mul(s, h)", []),
    "a layer that reads it, too": ("e = Conv(c, u) t = Exp(c) y = Add(t, e)", []),
    "the image beside it": ("s = Sigmoid(c) m = Mul(s, x) y = Concat<axis=1>(m, x)", [("c", "Sigmoid")]),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_are_decoded_from(end, make_model):
    tail, expected = ENDS[end]
    text = f"""g (float[N,2,3,3] x, float[2,2,1,1] w, float[2,2,1,1] v, float[2,2,1,1] u) => (y) {{
      a = Conv(x, w) h = Relu(a) c = Conv(h, v) {tail}
    }}"""
    assert sources_of(make_model(text)) == {"y": expected}


def heads(model, run):
    """By the names of what outputs are decoded from."""
    model = model.copy()
    model.graph.outputs = [model.graph.tensors()[name] for name in ("moved", "enlarged", "first", "others")]
    return {name: values.astype(np.float64) for name, values in run(model, {"x": X}).items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def expected_losses(student, teacher, temperature):
    """Of the boxes and of the chances."""
    errors = [
        np.mean((student[n] - teacher[n]) ** 2) / np.sqrt(np.mean(teacher[n] ** 2)) for n in ("moved", "enlarged")
    ]
    q, p = (sigmoid(values["first"] / temperature) for values in (student, teacher))
    of_object = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    q, p = (softmax(values["others"] / temperature) for values in (student, teacher))
    of_classes = np.sum(p * np.log(p / q), axis=1).mean()
    return np.mean(errors), temperature**2 * np.mean([of_object, of_classes])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weights", [(), (("boxes", 3.0), ("chances", 1.0)), (("boxes", 0.0), ("chances", 2.0))])
def test_the_loss_is_that_of_what_is_decoded(pair, run, temperature, weights):
    student, teacher = pair
    lesson = Lesson((), distill=1.0, temperature=temperature, output_weights=weights)
    found = run(Distill.of(lesson, teacher).apply(student).model, {"x": X})[DISTILLATION]
    losses = expected_losses(heads(student, run), heads(teacher, run), temperature)
    expected = np.average(losses, weights=[weight for _, weight in weights] or None)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_gradients_equal_finite_differences(pair, in_double_precision, check_gradients):
    student, teacher = (in_double_precision(model) for model in pair)
    lossy = Distill(network=teacher, temperature=2.0).apply(student).model
    check_gradients(lossy, {"x": X.astype(np.float64)}, ("w", "v1", "v2"))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
def test_a_training_graph_trains_layers_and_not_the_grid(pair, precision, target):
    student, teacher = pair
    graph = build_training_graph(
        student, Solver(), loss=None, distill=Distill(network=teacher), target=target, precision=precision,
        verify_each=True,
    )  # fmt: skip
    slots = TrainingInterface.of(graph).slots
    assert {slot.input for slot in slots if slot.kind == "parameter"} == {"w", "v1", "v2"}


@pytest.mark.parametrize("decoded", [True, False])
def test_outputs_are_compared_as_they_are_where_that_is_said_or_there_is_nothing_else_in_both(pair, run, decoded):
    student, teacher = pair
    if not decoded:
        for name in ("moved", "first"):
            student.graph.tensors()[name].name = f"{name} elsewhere"
    found = run(Distill(network=teacher, decoded=decoded).apply(student).model, {"x": X})[DISTILLATION]
    own, full = (run(model, {"x": X}) for model in pair)
    errors = [np.mean((own[n] - full[n]) ** 2) / np.mean(full[n] ** 2) for n in ("boxes", "chances")]
    assert float(found) == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("outputs", "weights", "reason"),
    [
        (("boxes",), (1.0, 2.0), "weights are one for each of the outputs, and more than 0"),
        (("boxes", "chances"), (1.0, 0.0), "weights are one for each of the outputs, and more than 0"),
        (("scores",), (), "no output scores in both networks: there are boxes, chances"),
    ],
)
def test_outputs_and_weights_that_mean_nothing(pair, outputs, weights, reason):
    student, teacher = pair
    with pytest.raises(PassError, match=f"^distill: {reason}$"):
        Distill(network=teacher, outputs=outputs, weights=weights).apply(student)
