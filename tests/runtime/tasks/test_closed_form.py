"""Layers solved for in closed form: where a solution exists it is found, and nothing gets worse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import wootz.runtime.tasks.closed_form as closed_form_module
from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.model import Module, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.solvable_layers import solvable_layers
from wootz.passes.transforms.teacher_student import (
    TeacherStudent,
    format_blocks,
    parse_blocks,
    student_loss,
    student_prefix,
)
from wootz.runtime.data.dataset import Split
from wootz.runtime.executors.control import Stopped
from wootz.runtime.session import Device, ExactSession, evaluate
from wootz.runtime.tasks.closed_form import ClosedForm

BASIC = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N,3,6,6] data) => (float[N,3,6,6] out)
<float[4,3,3,3] w1, float[4] g1, float[4] b1, float[4] m1, float[4] v1,
 float[3,4,3,3] w2, float[3] g2, float[3] b2, float[3] m2, float[3] v2>
{
  c1 = Conv<pads=[1,1,1,1]>(data, w1)
  n1 = BatchNormalization(c1, g1, b1, m1, v1)
  r1 = Relu(n1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2)
  n2 = BatchNormalization(c2, g2, b2, m2, v2)
  s = Add(n2, data)
  out = Relu(s)
}"""
BOTTLENECK = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N,3,6,6] data) => (float[N,3,6,6] out)
<float[4,3,1,1] w1, float[4] b1, float[4,1,3,3] w2, float[4,4,3,3] w3, float[3,4,1,1] w4, float[3] b4>
{
  c1 = Conv(data, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], group=4>(r1, w2)
  r2 = Relu(c2)
  c3 = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(r2, w3)
  r3 = Relu(c3)
  c4 = Conv(r3, w4, b4)
  pooled = AveragePool<kernel_shape=[2,2], strides=[2,2]>(data)
  out = Add(c4, pooled)
}""".replace("float[N,3,6,6] out", "float[N,3,3,3] out")
GATE = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N,3,6,6] data) => (float[N,3,6,6] out)
<float[4,3,1,1] w1, float[4] b1, float[2,4] w2, float[2] b2, float[2,4] w3, float[4] b3, float[3,4,1,1] w4, float[3] b4>
{
  c1 = Conv(data, w1, b1)
  r1 = Relu(c1)
  p = GlobalAveragePool(r1)
  f = Flatten(p)
  h = Gemm<transB=1>(f, w2, b2)
  hr = Relu(h)
  e = Gemm(hr, w3, b3)
  a = Sigmoid(e)
  axes = Constant<value_ints=[2,3]>()
  u = Unsqueeze(a, axes)
  q = Mul(r1, u)
  c4 = Conv(q, w4, b4)
  out = Add(c4, data)
}"""
TAPS = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N,3,6,6] data) => (float[N,3,6,6] out)
<float[4,3,3,3] w1, float[4] b1, float[3,4,3,3] w2, float[4,3,1,1] w3, float[4] b3, float[3,4,1,1] w4>
{
  c1 = Conv<pads=[1,1,1,1]>(data, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c2)
  c3 = Conv(c2, w3, b3)
  r3 = Relu(c3)
  c4 = Conv(r3, w4)
  g = GlobalAveragePool(p)
  s = Add(c4, g)
  out = Add(s, data)
}"""
NETWORKS = Path(__file__).parents[2] / "passes" / "transforms" / "networks"
COMPUTED_PADS = BASIC.replace(
    "  c2 = Conv<pads=[1,1,1,1]>(r1, w2)",
    """  extent = Shape<start=2, end=3>(r1)
  five = Constant<value_ints=[5]>()
  one = Sub(extent, five)
  zero = Sub(extent, extent)
  pads = Concat<axis=0>(zero, zero, one, one, zero, zero, one, one)
  padded = Pad(r1, pads)
  c2 = Conv(padded, w2)""",
)
TRANSFORM = InputTransform(channel_order="RGB")


def network(text):
    """The network of one module with random weights."""
    model = parse_text(text)
    generator = np.random.default_rng(0)
    for name, tensor in model.graph.tensors().items():
        if name[0] in "wbmgv" and tensor.shape is not None:
            values = (
                generator.uniform(0.5, 1.5, tensor.shape) if name[0] in "gv" else generator.normal(size=tensor.shape)
            )
            tensor.to_constant(values.astype(np.float32))
    return replace(model, modules=(Module("m", "data", "out"),))


def images(count=64, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 3, 6, 6)).astype(np.float32)


def closed_form(model, data=None, **changes):
    data = images() if data is None else data
    fields = {"device": Device(threads=1), "transform": TRANSFORM, "split": Split(data, np.zeros(len(data), np.int64))}
    return ClosedForm(model, **{**fields, **changes})


def students(model, blocks):
    pruner = BlockPruner.of(model)
    return pruner, [pruner.student(block) for block in parse_blocks(blocks, pruner)]


def trained(of_students):
    return [set(constants(student.model.graph)) for student in of_students]


def errors(pruner, blocks, weights, data):
    """The mean square difference between teacher and student of each block."""
    joint = TeacherStudent().join(pruner, parse_blocks(blocks, pruner))
    named = {student_prefix(i) + name: w for i, new in enumerate(weights) for name, w in new.items()}
    found = evaluate(with_weights(joint, named), {"data": data})
    return [float(found[student_loss(i)]) for i in range(len(weights))]


def twins(text):
    """A network in which each filter of the first layer is half of another one: half of them say all."""
    model = network(text)
    weights = constants(model.graph)
    halves = {
        name: np.concatenate([values[:2], values[:2] / 2]).astype(np.float32)
        for name, values in weights.items()
        if name in ("w1", "b1", "g1", "m1")
    }
    if "g1" in halves:  # behind a BatchNormalization, filters of half the size give the same
        halves["g1"], halves["v1"] = np.tile(weights["g1"][:2], 2), np.tile(weights["v1"][:2], 2)
        halves["v1"][2:] = weights["v1"][:2] / 4
    return with_weights(model, halves)


@pytest.mark.parametrize("text", [BASIC, GATE], ids=["basic", "gate"])
def test_what_other_filters_tell_is_found_again(text):
    model = twins(text)
    pruner, of_students = students(model, "m@0.5")
    found = closed_form(model).weights(of_students, trained(of_students))
    (before,), (after,) = (errors(pruner, "m@0.5", weights, images(seed=2)) for weights in ([{}], found))
    assert after < 2e-3 * before


@pytest.mark.parametrize("text", [BASIC, BOTTLENECK, GATE], ids=["basic", "bottleneck", "gate"])
def test_errors_fall_at_all_rates_and_no_student_depends_on_those_beside_it(text):
    model, blocks = network(text), "m@0.25,m@0.5,m@0.75"
    pruner, of_students = students(model, blocks)
    together = closed_form(model).weights(of_students, trained(of_students))
    unseen = images(seed=2)
    before, after = (errors(pruner, blocks, weights, unseen) for weights in ([{}] * 3, together))
    assert all(a < b for a, b in zip(after, before, strict=True))
    for student, expected in zip(of_students, together, strict=True):
        for threads in (1, 3):
            (alone,) = closed_form(model, device=Device(threads=threads)).weights([student], trained([student]))
            assert alone.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(alone[name], values, err_msg=name)


@pytest.mark.parametrize("name", ["lenet", "vgg", "inception", "densenet"])
def test_students_of_chains_and_branches_get_nearer_to_their_teacher(name):
    model = import_caffe(NETWORKS / f"{name}.prototxt").model
    pruner = BlockPruner.of(model)
    rates = [0.5] * len(pruner.modules)
    found = symbols(tuple(rates), pruner.input_sources.of_modules)
    of_students = [pruner.student(TuningBlock((symbol,))) for symbol in found if symbol.is_pruned]
    data = np.random.default_rng(0).normal(size=(60, *model.graph.inputs[0].shape[1:])).astype(np.float32)
    weights = closed_form(model, data).weights(of_students, trained(of_students))
    blocks = format_blocks([TuningBlock((symbol,)) for symbol in found if symbol.is_pruned], pruner)
    feeds = {model.graph.inputs[0].name: data[4::5]}
    joint = TeacherStudent().join(pruner, parse_blocks(blocks, pruner))
    named = {student_prefix(i) + name: w for i, new in enumerate(weights) for name, w in new.items()}
    before, after = evaluate(joint, feeds), evaluate(with_weights(joint, named), feeds)
    assert any(weights)
    for i, new in enumerate(weights):
        loss = student_loss(i)
        assert after[loss] < before[loss] if new else after[loss] == before[loss]


def test_layers_are_solved_behind_those_that_have_lost_channels_in_their_order():
    model = network(BOTTLENECK)
    _, (student,) = students(model, "m@0.5")
    layers = solvable_layers(student, model, *trained([student]))
    assert [(layer.output, layer.level) for layer in layers] == [("c3", 0), ("c4", 1)]
    assert [layer.kept.tolist() for layer in layers] == [np.flatnonzero(student.kept("c3")).tolist(), [0, 1, 2]]


def test_sizes_may_be_computed_from_those_of_the_images():
    """PyTorch exports static padding that way."""
    found = []
    for text in (BASIC, COMPUTED_PADS):
        model = network(text)
        _, of_students = students(model, "m@0.5")
        found += closed_form(model).weights(of_students, trained(of_students))
    assert found[0].keys() == found[1].keys() != set()
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4, atol=1e-6)


def test_nothing_is_solved_where_nothing_is_removed():
    model = network(BASIC)
    _, of_students = students(model, "m@0.0")
    assert closed_form(model).weights(of_students, trained(of_students)) == [{}]


@pytest.mark.parametrize("frozen", ["w2", "g2", "v2"])
def test_what_is_not_trained_stays(frozen):
    model = network(BASIC)
    _, of_students = students(model, "m@0.5")
    assert closed_form(model).weights(of_students, [trained(of_students)[0] - {frozen}]) == [{}]


def test_too_many_features_are_left_alone(monkeypatch):
    model = network(BASIC)
    _, of_students = students(model, "m@0.5")
    monkeypatch.setattr("wootz.passes.training.solvable_layers.MOST_FEATURES", 2 * 9 - 1)
    assert closed_form(model).weights(of_students, trained(of_students)) == [{}]
    monkeypatch.setattr("wootz.passes.training.solvable_layers.MOST_FEATURES", 2 * 9)
    assert closed_form(model).weights(of_students, trained(of_students)) != [{}]


def test_a_student_that_gets_worse_keeps_its_weights(monkeypatch):
    model = network(BASIC)
    _, of_students = students(model, "m@0.5,m@0.75")
    solve, spoilt = closed_form_module._solution, []

    def spoil_the_first(layer, *arguments):
        solution = solve(layer, *arguments)
        spoilt.append(layer)
        return {name: -10 * values for name, values in solution.items()} if len(spoilt) == 1 else solution

    monkeypatch.setattr(closed_form_module, "_solution", spoil_the_first)
    first, second = closed_form(model).weights(of_students, trained(of_students))
    assert not first
    assert second


def test_statistics_are_those_of_what_the_layer_computes_now():
    """All places of the 6×6 maps are looked at, so they are the batch's own."""
    model = network(BASIC)
    _, (student,) = students(model, "m@0.5")
    data = images(50)
    (found,) = closed_form(model, data).weights([student], trained([student]))
    tapped = with_weights(student.model, found)
    tapped.graph.outputs = [tapped.graph.tensors()["c2"]]
    tapped.graph.cleanup()
    seen = ExactSession(replace(tapped, modules=())).run({"data": data[np.arange(50) % 5 != 4]})["c2"]
    np.testing.assert_allclose(found["m2"], seen.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found["v2"], seen.var((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("text", [BASIC, BOTTLENECK, GATE], ids=["basic", "bottleneck", "gate"])
@pytest.mark.parametrize("count", [3, 64])
def test_errors_are_those_of_the_joint_graph_on_the_images_held_out(text, count):
    model, blocks, data = network(text), "m@0.25,m@0.5,m@0.75", images(count)
    pruner, of_students = students(model, blocks)
    solver = closed_form(model, data)
    new = closed_form(model).weights(of_students, trained(of_students))
    found = solver.errors(of_students, [({}, new[0]), (), ({}, new[2])])
    seen = data if count < 5 else data[4::5]
    before, after = (errors(pruner, blocks, weights, seen) for weights in ([{}] * 3, new))
    assert [len(of_student) for of_student in found] == [2, 0, 2]
    np.testing.assert_allclose(found[0] + found[2], [before[0], after[0], before[2], after[2]], rtol=1e-5)


def test_students_of_several_entries_and_exits_are_solved_for_and_judged_by_all_of_them():
    model = replace(network(TAPS), modules=(Module("m", "data", "p", (), ("c2",)), Module("n", "p", "s", ("c2",))))
    blocks, data = "m@0.5,n@0.5,m@0.5+n@0.5", images()
    pruner, of_students = students(model, blocks)
    assert [len(student.model.graph.inputs) for student in of_students] == [1, 2, 1]
    assert [len(student.model.graph.outputs) for student in of_students] == [2, 1, 1]
    solver = closed_form(model, data)
    new = solver.weights(of_students, trained(of_students))
    assert all(new)
    found = solver.errors(of_students, [({}, weights) for weights in new])
    for given, column in (([{}] * 3, 0), (new, 1)):
        expected = errors(pruner, blocks, given, data[4::5])
        np.testing.assert_allclose([of_student[column] for of_student in found], expected, rtol=1e-5)
    assert all(after < before for before, after in found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", [BASIC, BOTTLENECK, GATE], ids=["basic", "bottleneck", "gate"])
@pytest.mark.parametrize("scale", [1e19, 1e30, 1e37, 3e38])
def test_what_float32_does_not_hold_is_not_taken(text, scale):
    with np.errstate(over="ignore"):
        data = images() * np.float32(scale)
    model = network(text)
    _, of_students = students(model, "m@0.25,m@0.5")
    for new in closed_form(model, data).weights(of_students, trained(of_students)):
        assert all(np.isfinite(values).all() for values in new.values())


@pytest.mark.parametrize("count", [1, 4, 5])
def test_with_few_images_there_may_be_none_to_check_with(count):
    model = network(BASIC)
    _, of_students = students(model, "m@0.5")
    (found,) = closed_form(model, images(count)).weights(of_students, trained(of_students))
    assert found == {} if count < 5 else all(np.isfinite(w).all() for w in found.values())


def test_it_ends_when_it_is_to_stop():
    model = network(BASIC)
    _, of_students = students(model, "m@0.5")

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        closed_form(model, check=stop).weights(of_students, trained(of_students))
