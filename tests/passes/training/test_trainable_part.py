"""A detector is pruned and learns without its postprocessing, and keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import PassError
from wootz.passes.ir.files import save
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.distill import Distill
from wootz.passes.training.trainable_part import TrainablePart
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.add_postprocessing import AddPostprocessing
from wootz.passes.transforms.teacher_student import TEACHER, TeacherStudent, parse_blocks, student_loss
from wootz.runtime.session import Device, TrainingSession, evaluate

DETECTOR = """
detector (float[1, 3, 8, 8] x) => (float[M, 4] kept, int64[M] classes, float[1, 80, 4] boxes)
<float low = {0.2}, float half = {0.5}, int64 last = {2}> {
  [conv1] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  [relu1] b = Relu (a)
  [conv2] c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  [conv3] e = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (c, w3)
  [relu3] f = Relu (e)
  [conv4] g = Conv <pads = [1, 1, 1, 1]> (f, w4)
  [scores1] s1 = Conv (c, v1)
  [boxes1] b1 = Conv (c, v2)
  [scores2] s2 = Conv (g, v3)
  [boxes2] b2 = Conv (g, v4)
  [rows1] r1 = Reshape (s1, threes)
  [rows2] r2 = Reshape (s2, threes)
  [fours1] o1 = Reshape (b1, fours)
  [fours2] o2 = Reshape (b2, fours)
  [logits] logits = Concat <axis = 1> (r1, r2)
  [offsets] offsets = Concat <axis = 1> (o1, o2)
  [boxes] boxes = Sigmoid (offsets)
  [softmax] probabilities = Softmax <axis = 2> (logits)
  [turned] scores = Transpose <perm = [0, 2, 1]> (probabilities)
  [nms] chosen = NonMaxSuppression (boxes, scores, most, half, low)
  [which] places = Gather <axis = 1> (chosen, last)
  [list] list = Reshape (boxes, single)
  [kept] kept = Gather <axis = 0> (list, places)
  [best] best = ArgMax <axis = 2, keepdims = 0> (probabilities)
  [flat] flat = Reshape (best, one)
  [class] classes = Gather <axis = 0> (flat, places)
}
"""
WEIGHTS = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "w4": (8, 8, 3, 3)}
HEADS = {"v1": (3, 8, 1, 1), "v2": (4, 8, 1, 1), "v3": (3, 8, 1, 1), "v4": (4, 8, 1, 1)}
SHAPES = {"threes": [1, -1, 3], "fours": [1, -1, 4], "single": [-1, 4], "one": [-1], "most": [5]}
SOLVER = Solver(type=SolverType.ADAM, base_lr=0.01, momentum=0.9)


@pytest.fixture
def detector(make_model: Callable[..., Model]) -> Model:
    model = make_model(DETECTOR, **WEIGHTS, **HEADS, **{name: np.asarray(v) for name, v in SHAPES.items()})
    return replace(model, modules=find_modules(model)[0])


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)


def test_what_is_left_gives_what_the_network_gives_up_to_there(detector: Model, image: np.ndarray) -> None:
    part = TrainablePart().apply(detector).model
    verify(part)
    assert [t.name for t in part.graph.outputs] == ["boxes", "probabilities"]
    assert part.modules == detector.modules
    whole, outputs = evaluate(detector, {"x": image}), evaluate(part, {"x": image})
    np.testing.assert_array_equal(outputs["boxes"], whole["boxes"])
    assert not TrainablePart().apply(part).modified


def test_a_pruned_detector_learns_from_the_full_one_and_is_handed_over_whole(
    detector: Model, image: np.ndarray
) -> None:
    pruner = BlockPruner.of(detector)
    assert [m.entries + m.exits for m in detector.modules] == [("x", "c"), ("c", "g")]
    pruned = pruner.materialize(pruner.plan({m.name: 0.5 for m in detector.modules}))
    graph = build_training_graph(pruned, SOLVER, loss=None, distill=Distill(network=detector))
    session = TrainingSession(graph, Device(threads=1))
    losses = [session.step(image, None, 0.01)[0] for _ in range(25)]
    assert losses[-1] < losses[0] / 4
    learnt = with_weights(pruned, session.weights())
    assert [node.op for node in learnt.graph.nodes].count("NonMaxSuppression") == 1
    before, after, target = (evaluate(model, {"x": image})["boxes"] for model in (pruned, learnt, detector))
    assert np.square(after - target).mean() < np.square(before - target).mean() * 0.7
    given = evaluate(learnt, {"x": image})
    assert given["kept"].shape == (len(given["classes"]), 4)
    assert len(given["classes"])


def test_a_part_that_was_pruned_gets_the_postprocessing_back(
    detector: Model, image: np.ndarray, tmp_path: Path
) -> None:
    """And is the network that was pruned as a whole."""
    pruner, of_part = BlockPruner.of(detector), BlockPruner.of(TrainablePart().apply(detector).model)
    rates = {module.name: 0.5 for module in detector.modules}
    wanted, part = (p.materialize(p.plan(rates)) for p in (pruner, of_part))
    save(detector, tmp_path / "detector.onnx")
    whole = AddPostprocessing(network=tmp_path / "detector.onnx").apply(part).model
    verify(whole)
    given = evaluate(whole, {"x": image})
    for name, values in evaluate(wanted, {"x": image}).items():
        np.testing.assert_array_equal(given[name], values)
    assert not AddPostprocessing(whole=detector).apply(whole).modified


def test_the_postprocessing_reads_what_the_part_has_as_a_constant(make_model: Callable[..., Model]) -> None:
    """The axes of a TopK, which both compute of a constant, are one in a network that was simplified."""
    text = """g (float[N,4] x) => (y, i) {{ c = MatMul(x, w) {axes} m = ReduceMax<keepdims = 0>(c, axes) {rest} }}"""
    rest, computed = "b = Unsqueeze(m, axes) y, i = TopK(b, axes)", "axes = Abs(one)"
    whole = make_model(text.format(axes=computed, rest=rest), w=(4, 3), one=np.array([1]))
    part = make_model(text.format(axes="", rest="").replace("y, i", "m"), w=(4, 3), axes=np.array([1]))
    joined = AddPostprocessing(whole=whole).apply(part).model
    verify(joined)
    assert [node.op for node in joined.graph.nodes] == ["MatMul", "ReduceMax", "Unsqueeze", "TopK"]


def test_the_postprocessing_of_another_network_is_refused(detector: Model, make_model: Callable[..., Model]) -> None:
    other = make_model("g (float[1] z) => (float[1] y) { [relu] y = Relu (z) }")
    with pytest.raises(PassError, match="add-postprocessing: x: the network doesn't compute it"):
        AddPostprocessing(whole=detector).apply(other)


def test_blocks_of_a_detector_are_pre_trained(detector: Model, image: np.ndarray) -> None:
    pruner = BlockPruner.of(detector)
    blocks = parse_blocks(",".join(f"{m.name}@0.5" for m in detector.modules), pruner)
    joint = TeacherStudent().join(pruner, blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    graph = build_training_graph(joint, SOLVER, loss=None, losses=losses, frozen=TEACHER)
    session = TrainingSession(graph, Device(threads=1))
    history = np.array([session.step(image, None, 0.01) for _ in range(25)])
    assert (history[-1] < history[0] / 2).all()


def test_a_layer_without_gradient_is_no_postprocessing(make_model: Callable[..., Model]) -> None:
    text = """g (float[2, 1, 3] x) => (float[2, 1, 1, 4] y) { [gru] y = GRU <hidden_size = 4> (x, w, r) }"""
    model = make_model(text, w=(1, 12, 3), r=(1, 12, 4))
    assert not TrainablePart().apply(model).modified


def test_a_network_that_only_decides_is_refused(make_model: Callable[..., Model]) -> None:
    model = make_model("g (float[2, 3] x) => (int64[2] y) { [best] y = ArgMax <axis = 1, keepdims = 0> (x) }")
    with pytest.raises(PassError, match="there is nothing to train: no layer stands before the postprocessing"):
        TrainablePart().apply(model)


@pytest.mark.parametrize("function", ["Sinh (c)", "com.microsoft.QuickGelu (c)"])
def test_a_function_without_gradient_rule_is_no_postprocessing(make_model: Callable[..., Model], function: str) -> None:
    """It would be left out in silence, with all that makes scores of maps."""
    nodes = f"c = Conv (x, w) t = {function} p = GlobalAveragePool (t) y = Flatten (p)"
    model = make_model(f"g (float[2, 3, 4, 4] x) => (float[2, 2] y) {{ {nodes} }}", w=(2, 3, 1, 1))
    assert not TrainablePart().apply(model).modified


LARGEST = """g (float[N, 3, 4, 4] x) => ({outputs}) <int64[1] k = {{2}}, int64[2] shape = {{0, -1}}> {{
  c = Conv (x, w) flat = Reshape (c, shape) p = Sigmoid (flat)
  v, i = TopK (p, k)
  {rest}
}}"""


@pytest.mark.parametrize(
    ("outputs", "rest", "left"),
    [
        ("v, i", "", ["p"]),
        ("v, boxes", "boxes = GatherElements <axis = 1> (flat, i)", ["flat", "p"]),
        ("i, y", "y = ReduceMean (v)", ["p"]),
    ],
    ids=["indices", "gathered", "values too"],
)
def test_topk_is_postprocessing_where_its_indices_are_used(
    make_model: Callable[..., Model], outputs: str, rest: str, left: list[str]
) -> None:
    model = make_model(LARGEST.format(outputs=outputs, rest=rest), w=(2, 3, 1, 1))
    part = TrainablePart().apply(model).model
    assert [t.name for t in part.graph.outputs] == left
    given = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    whole = evaluate(AddPostprocessing(whole=model).apply(part).model, {"x": given})
    for name, values in evaluate(model, {"x": given}).items():
        np.testing.assert_array_equal(whole[name], values)


@pytest.mark.parametrize(("outputs", "rest"), [("v", ""), ("y", "y = ReduceMean (v)")])
def test_the_largest_values_alone_are_trained(make_model: Callable[..., Model], outputs: str, rest: str) -> None:
    """As the scores of a classifier that are means of the largest values of its maps."""
    model = make_model(LARGEST.format(outputs=outputs, rest=rest), w=(2, 3, 1, 1))
    assert not TrainablePart().apply(model).modified
