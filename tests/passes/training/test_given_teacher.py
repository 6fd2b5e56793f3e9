"""What the full network gives as inputs of the training graph: the same losses and steps as with it in the graph."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Constant, Model, Module
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.lesson import Lesson, TargetLoss
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.training.distill import Distill
from wootz.passes.training.embed_batches import EmbedBatches
from wootz.passes.training.interface import EmbeddedBatches, TrainingInterface
from wootz.passes.training.memory import training_memory
from wootz.passes.training.trainable_part import TrainablePart
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import TEACHER

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 3, 5, 5)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2, 2, 0])
NUMBERS = RANDOM.normal(size=(6, 4)).astype(np.float32)
NETWORK = """g (float[{batch},3,5,5] x) => ({outputs}) <
  float[{width},3,3,3] w1, float[{width}] scale, float[{width}] shift, float[{width}] mean, float[{width}] variance,
  float[4,{width},1,1] w2, float[4,4] w3, int64[1] one = {{1}}, int64[3] rows = {{0, 4, -1}}, float half = {{0.5}}> {{
  a = Conv(x, w1)
  r = Relu(a)
  b = BatchNormalization(r, scale, shift, mean, variance)
  m = Conv(b, w2)
  p = GlobalAveragePool(m)
  f = Flatten(p)
  l = MatMul(f, w3)
  {tail}
}}"""
CASES = {
    "softmax": ("y", "y = Softmax<axis=1>(l)", Lesson(distill=0.5)),
    "log-softmax in another layout": (
        "y",
        "s = LogSoftmax<axis=1>(l) y = Unsqueeze(s, one)",
        Lesson((), distill=1.0, temperature=3.0),
    ),
    "values": ("y", "y = Tanh(l)", Lesson((), distill=1.0)),
    "several outputs, unlike weights": (
        "y, z",
        "y = Softmax<axis=1>(l) z = Tanh(m)",
        Lesson((), distill=1.0, output_weights=(("y", 1.0), ("z", 3.0))),
    ),
    "before decoding": (
        "boxes, chances",
        "v = Reshape(m, rows) away = Exp(v) boxes = Mul(away, half) chances = Sigmoid(v)",
        Lesson((), distill=1.0),
    ),
    "before decoding of one": ("y", "v = Reshape(m, rows) y = Sigmoid(v)", Lesson((), distill=1.0)),
    "features": ("y", "y = Softmax<axis=1>(l)", Lesson(distill=0.3, features=0.5)),
    "features, one before another": ("y", "y = Tanh(l)", Lesson((TargetLoss("mse"),), features=0.5)),
}


@pytest.fixture
def pair(make_model):
    """A student and its teacher, which calls its batch otherwise."""

    def of(outputs: str, tail: str) -> tuple[Model, Model]:
        found = []
        for width, seed, batch in ((5, 2, "N"), (8, 1, "batch")):
            text = NETWORK.format(batch=batch, outputs=outputs, width=width, tail=tail)
            vectors = dict.fromkeys(("scale", "shift", "mean", "variance"), (width,))
            shapes = {"w1": (width, 3, 3, 3), "w2": (4, width, 1, 1), "w3": (4, 4)}
            found.append(make_model(text, seed, **shapes, **vectors))
        return with_modules(found[0]), with_modules(found[1])

    return of


def with_modules(model: Model) -> Model:
    return replace(model, modules=(Module("narrow", "x", "b"), Module("whole", "b", "m"), Module("end", "m", "l")))


def graphs(pair, lesson: Lesson, **options) -> tuple[Model, Model, Model]:
    """With the teacher, without it, and what computes its inputs."""
    student, teacher = pair
    distill = Distill.of(lesson, teacher)
    options.setdefault("solver", Solver(momentum=0.9, weight_decay=0.01))
    options["loss"] = lesson.losses if lesson.reads_targets else None
    both = distill, replace(distill, given=True)
    whole, alone = (build_training_graph(student, distill=d, verify_each=True, **options) for d in both)
    return whole, alone, distill.teacher_part(TrainablePart().apply(student).model)


def step_of(graph: Model, run, x: np.ndarray = X, **more: np.ndarray) -> dict[str, np.ndarray]:
    interface = TrainingInterface.of(graph)
    state = {t.name: t.values for t in graph.graph.inputs if isinstance(t, Constant)}
    labels = {name: LABELS if name == "labels" else NUMBERS for name in interface.target_inputs}
    return run(graph, {"x": x, "learning_rate": np.array(0.1, np.float32), **labels, **more, **state})


@pytest.mark.parametrize("target", ["onnx", "onnx-cuda"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_steps_are_those_with_the_teacher_in_the_graph(case, target, pair, run):
    *networks, lesson = CASES[case]
    solver = Solver(type=SolverType.ADAM, momentum=0.9, weight_decay=0.01, iter_size=2)
    for options in ({}, {"solver": solver}):
        whole, alone, part = graphs(pair(*networks), lesson, target=target, **options)
        verify(alone)
        verify(part)
        says = run(part, {"x": X})
        assert tuple(says) == TrainingInterface.of(alone).teacher
        assert not [n.name for n in alone.graph.nodes if n.name.startswith(TEACHER)]
        expected, found = step_of(whole, run), step_of(alone, run, **says)
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-7, err_msg=name)
        others = {name: values[::-1].copy() for name, values in says.items()}
        changed = step_of(alone, run, **others)
        assert changed[TrainingInterface.of(alone).losses[0]] != found[TrainingInterface.of(alone).losses[0]]


def test_in_half_precision_the_inputs_are_whole_numbers_and_the_losses_alike(pair, run):
    *networks, lesson = CASES["softmax"]
    whole, alone, part = graphs(pair(*networks), lesson, precision="float16")
    says = run(part, {"x": X})
    (given,) = (t for t in alone.graph.inputs if t.name in says)
    assert np.dtype(given.dtype) == np.float32
    assert float(step_of(alone, run, **says)["loss"]) == pytest.approx(float(step_of(whole, run)["loss"]), rel=0.02)


def test_a_pipeline_of_text_makes_the_same(pair, tmp_path):
    *networks, lesson = CASES["softmax"]
    student, teacher = pair(*networks)
    save(teacher, tmp_path / "full.onnx")
    settings = "distill.given=true distill.temperature=2.0 distill.scores=true apply-optimizer.momentum=0.9"
    for pipeline, precision in (("distillation", "float32"), ("distillation-float16", "float16")):
        text = f"{pipeline}{{distill.teacher={tmp_path / 'full.onnx'} {settings}}}"
        by_text = run_pipeline(student, parse_pipeline(text), verify_each=True).model
        solver, target = Solver(momentum=0.9), "onnx" if precision == "float32" else "onnx-cuda"
        options = {"solver": solver, "target": target, "precision": precision}
        assert by_text.to_proto() == graphs((student, teacher), lesson, **options)[1].to_proto()


def test_the_batch_is_called_as_the_network_calls_it(pair):
    _, alone, part = graphs(pair(*CASES["softmax"][:2]), CASES["softmax"][2])
    (given,), (computed,) = (
        [t for t in tensors if t.name == "teacher/l"] for tensors in (alone.graph.inputs, part.graph.outputs)
    )
    assert (given.shape, computed.shape) == (["N", 4], ["N", 4])
    assert [t.name for t in part.graph.inputs] == ["x"]


def test_less_memory_is_taken_than_with_the_teacher(pair):
    whole, alone, _ = graphs(pair(*CASES["softmax"][:2]), CASES["softmax"][2])
    assert training_memory(alone, 32).total < training_memory(whole, 32).total


def test_other_graphs_are_described_as_before(pair):
    whole, alone, _ = graphs(pair(*CASES["softmax"][:2]), CASES["softmax"][2])
    of_whole, of_alone = (TrainingInterface.of(graph).to_json() for graph in (whole, alone))
    assert '"teacher": ["teacher/l"]' in of_alone
    assert "teacher" not in of_whole.replace("teacher/", "")


def test_a_network_whose_data_are_called_so_has_them_as_data(make_model):
    model = make_model(
        'g (float[N,4] "teacher/x", float[N,4] z) => (y) <float[4,3] w> { c = Add("teacher/x", z) y = MatMul(c, w) }',
        w=(4, 3),
    )
    interface = TrainingInterface.of(build_training_graph(model, Solver()))
    assert (interface.data, interface.more_data, interface.teacher) == ("teacher/x", ("z",), ())


@pytest.mark.parametrize("mirror", [False, True])
def test_batches_made_in_the_graph_have_what_belongs_to_their_images(mirror, pair, run):
    """As it is, and behind it for the mirrored image."""
    *networks, lesson = CASES["softmax"]
    _, alone, part = graphs(pair(*networks), lesson)
    embedding = EmbedBatches(batch_size=6, window=3, pixels="float32")
    described = with_transform(alone, InputTransform(channel_order="RGB", mirror=mirror))
    graph = embedding.apply(described).model
    verify(graph)
    images = RANDOM.normal(size=(9, 3, 5, 5)).astype(np.float32)
    labels = np.arange(9) % 4
    ways = [images, images[..., ::-1]] if mirror else [images]
    whole = np.stack([run(part, {"x": np.ascontiguousarray(way)})["teacher/l"] for way in ways], axis=1).reshape(-1, 4)
    order, flips = np.array([[0] * 6, [8, 1, 7, 3, 3, 5], [0] * 6]), np.array([[0] * 6, [1, 0, 1, 1, 0, 0], [0] * 6])
    state = {t.name: t.values for t in graph.graph.inputs if isinstance(t, Constant)}
    rates = np.full(3, 0.1, np.float32)
    feeds = {**state, "images": images, "image_labels": labels, "image_teacher/l": whole, "learning_rates": rates}
    feeds |= {"order": order, "position": np.array(1)} | ({"flips": flips} if mirror else {})
    assert EmbeddedBatches.of(graph).flips == ("flips" if mirror else None)
    assert TrainingInterface.of(graph).teacher == ("image_teacher/l",)
    found = run(graph, feeds)
    x = images[order[1]]
    if mirror:
        x[flips[1] == 1] = x[flips[1] == 1, ..., ::-1]
    plain = {t.name: t.values for t in alone.graph.inputs if isinstance(t, Constant)}
    says = run(part, {"x": x})
    expected = run(alone, {**plain, "x": x, "labels": labels[order[1]], "learning_rate": rates[:1].reshape(()), **says})
    for name in ("loss", "w1.new", "w3.new"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def with_transform(model: Model, transform: InputTransform) -> Model:
    return replace(model, metadata={**model.metadata, TRANSFORM_KEY: transform.to_json()})


def refusal(message):
    return pytest.raises(PassError, match=f"^{re.escape(message)}$")


def test_what_it_refuses(pair, make_model):
    *networks, lesson = CASES["softmax"]
    _, alone, _ = graphs(pair(*networks), lesson)
    with refusal("embed-batches: teacher/l: what the full network gives is of whole images, and these are cropped"):
        EmbedBatches(batch_size=6, height=7, width=7).apply(with_transform(alone, InputTransform(crop_size=5)))
    text = "g (float[N,4] x) => (y) <float[4,3] w> { c = MatMul(x, w) y = Transpose<perm=[1,0]>(c) }"
    student, teacher = (make_model(text, seed, w=(4, 3)) for seed in (0, 1))
    reason = "distill: teacher/y: given: it has no batch in front, its shape is (3, 'N')"
    with refusal(reason):
        Distill(network=teacher, given=True).apply(student)
    with refusal(reason):
        Distill(network=teacher).teacher_part(student)
