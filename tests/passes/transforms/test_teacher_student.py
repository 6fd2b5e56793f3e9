import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.blocks.identifier import symbols
from wootz.passes.errors import PassError
from wootz.passes.ir.model import Module, constants
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.subspace import SKIP
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.teacher_student import (
    TEACHER,
    TeacherStudent,
    format_blocks,
    parse_blocks,
    student_loss,
    student_prefix,
)
from wootz.runtime.session import Device, TrainingSession, evaluate

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"
BLOCKS = "res2a@0.5,res2b@0.5+res3a@0.75,res3a@0.25,res3b@0"


@pytest.fixture(scope="module")
def pruner():
    """The digits network, with running statistics that are not those of an untrained one."""
    model = import_caffe(DIGITS).model
    generator = np.random.default_rng(0)
    for name, tensor in model.graph.tensors().items():
        if name.endswith(".mean"):
            tensor.values = generator.normal(0, 0.2, tensor.shape).astype(np.float32)
        elif name.endswith(".variance"):
            tensor.values = generator.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
    return BlockPruner.of(model, "l1")


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(1).normal(0, 1, (6, 1, 8, 8)).astype(np.float32)


def activations(model, names, data):
    tapped = model.copy()
    tensors = tapped.graph.tensors()
    tapped.graph.outputs = [tensors[name] for name in names]
    tapped.graph.cleanup()
    return evaluate(tapped, {model.graph.inputs[0].name: data})


def test_each_loss_is_the_students_distance_to_the_teacher(pruner, data):
    blocks = parse_blocks(BLOCKS, pruner)
    joint = TeacherStudent().join(pruner, blocks)
    verify(joint)
    losses = evaluate(joint, {"data": data})
    assert list(losses) == [student_loss(i) for i in range(4)]
    for index, (block, student) in enumerate(zip(blocks, map(pruner.student, blocks), strict=True)):
        entry, exit_ = pruner.modules[block.modules[0]].entry, pruner.modules[block.modules[-1]].exit
        teacher = activations(pruner.model, [entry, exit_], data)
        output = evaluate(student.model, {entry: teacher[entry]})[exit_]
        expected = np.mean((teacher[exit_] - output) ** 2)
        assert losses[student_loss(index)] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_student_is_carved_once_with_the_arrays_of_its_pruner_and_no_joint_graph_changes_it(pruner):
    blocks = parse_blocks(BLOCKS, pruner)
    students = [pruner.student(block) for block in blocks]
    before = [student.model.to_proto().SerializeToString() for student in students]
    one, other = (TeacherStudent().join(pruner, blocks).to_proto().SerializeToString() for _ in range(2))
    assert one == other
    assert [pruner.student(block) for block in blocks] == students
    assert [student.model.to_proto().SerializeToString() for student in students] == before
    pruned = (pruner.materialize(pruner.plan(pruner.rates_of(block))) for block in blocks)
    for student, network in zip(students, pruned, strict=True):
        shared = constants(network.graph)
        assert all(values is shared[name] for name, values in constants(student.model.graph).items())
    assert pruner.with_weights({}).student(blocks[0]) is not students[0]


def test_an_unpruned_student_has_no_error(pruner, data):
    joint = TeacherStudent().join(pruner, parse_blocks("res3b@0", pruner))
    assert evaluate(joint, {"data": data})[student_loss(0)] < 1e-9


def test_the_teacher_ends_at_its_last_tap(pruner):
    joint = TeacherStudent().join(pruner, parse_blocks("res2a@0.5", pruner))
    teacher = {n.name for n in joint.graph.nodes if n.name.startswith(TEACHER)}
    assert any("res2a" in name for name in teacher)
    assert not any("res2b" in name or "res3" in name for name in teacher)
    assert not any(n.op == "BatchNormalization" for n in joint.graph.nodes if n.name in teacher)


def trained(pruner, blocks, data, steps=5):
    joint = TeacherStudent().join(pruner, blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    solver = Solver(type=SolverType.ADAM, base_lr=0.01, momentum=0.9, clip_gradients=0.5)
    graph = build_training_graph(joint, solver, loss=None, losses=losses, frozen=TEACHER)
    session = TrainingSession(graph, Device(threads=1))
    history = [session.step(data, None, 0.01) for _ in range(steps)]
    return TrainingInterface.of(graph), session.weights(), np.array(history)


def test_students_train_as_if_each_were_alone_and_the_teacher_stays(pruner, data):
    blocks = parse_blocks("res2a@0.5,res2a@0.75,res2a@0.5+res2b@0.5", pruner)
    interface, together, history = trained(pruner, blocks, data)
    assert np.all(history[-1] < history[0])
    assert all(not slot.input.startswith(TEACHER) for slot in interface.slots)
    for index, block in enumerate(blocks):
        _, alone, _ = trained(pruner, [block], data)
        for name, values in alone.items():
            other = together[student_prefix(index) + name.removeprefix(student_prefix(0))]
            np.testing.assert_allclose(other, values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_student_learns_to_do_without_a_module(pruner, data):
    """Blocks with a module left out at their beginning, within and at their end, written and read."""
    text = "res2a@0.5+res2b@skip,res2b@skip+res3a@0.5,res2a@0.5+res2b@skip+res3a@0.5"
    blocks = parse_blocks(text, pruner)
    assert blocks[0] == TuningBlock((Symbol(0, 0.5), Symbol(1, SKIP)))
    assert format_blocks(blocks, pruner) == text
    _, weights, history = trained(pruner, blocks, data, steps=20)
    assert np.all(history[-1] < 0.7 * history[0])
    assert not any("res2b" in name for name in weights)


def test_a_student_of_nothing_is_refused(pruner):
    with pytest.raises(PassError, match=r"block 2\(skip\) has nothing to train: all of its modules are left out"):
        TeacherStudent("res2a@0.5,res2b@skip", pruner=pruner).apply(pruner.model)


def test_each_slot_belongs_to_its_students_loss(pruner, data):
    interface, _, _ = trained(pruner, parse_blocks("res2a@0.5,res3b@0.5", pruner), data, steps=1)
    for slot in interface.slots:
        if slot.kind != "optimizer":
            assert slot.loss == student_loss(int(re.match(r"block(\d+)/", slot.input)[1]))


def test_a_student_that_diverges_leaves_the_others_alone(pruner, data):
    blocks = parse_blocks("res2a@0.5,res3b@0.5", pruner)
    joint = TeacherStudent().join(pruner, blocks)
    tensors = joint.graph.tensors()
    poisoned = tensors[student_prefix(0) + "res2a_branch2a.weight"]
    poisoned.values = np.full_like(poisoned.values, np.nan)
    losses = tuple(student_loss(i) for i in range(2))
    graph = build_training_graph(joint, Solver(base_lr=0.01), loss=None, losses=losses, frozen=TEACHER)
    session = TrainingSession(graph, Device(threads=1))
    history = np.array([session.step(data, None, 0.01) for _ in range(3)])
    assert np.isnan(history[:, 0]).all()
    assert np.isfinite(history[:, 1]).all()


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ("res9@0.5", "'res9@0.5' is not MODULE@RATE with one of the modules res2a, res2b, res3a, res3b"),
        ("res2a@half", "'half' is not a rate"),
        ("", "no students: option blocks takes MODULE@RATE,… (modules: res2a, res2b, res3a, res3b)"),
        ("res2a@0.5+res3a@0.5", "the modules of 'res2a@0.5+res3a@0.5' are not consecutive"),
    ],
)
def test_refusals(pruner, blocks, reason):
    with pytest.raises(PassError, match=f"^teacher-student: .*{re.escape(reason)}"):
        TeacherStudent(blocks=blocks).apply(pruner.model)


def test_blocks_are_parsed_into_symbols(pruner):
    assert parse_blocks("res2b@0.5+res3a@0.75, res3b@0", pruner) == (
        TuningBlock((Symbol(1, 0.5), Symbol(2, 0.75))),
        TuningBlock((Symbol(3, 0.0),)),
    )


def test_the_text_of_blocks_gives_them_back(pruner):
    blocks = (
        TuningBlock((Symbol(1, 1 / 3), Symbol(2, (0.75, 0.125)))),
        TuningBlock((Symbol(3, 0.0),)),
    )
    text = format_blocks(blocks, pruner)
    assert text == "res2b@0.3333333333333333+res3a@0.75/0.125,res3b@0.0"
    assert parse_blocks(text, pruner) == blocks
    names = ("a>b", "a+b", "#1", "a@b")
    renamed = replace(pruner, modules=tuple(replace(m, name=n) for m, n in zip(pruner.modules, names, strict=True)))
    text = format_blocks(blocks, renamed)
    assert text == "#2@0.3333333333333333+#3@0.75/0.125,a@b@0.0"
    assert parse_blocks(text, renamed) == blocks


def test_the_text_of_blocks_in_a_chain_says_what_comes_in():
    model = import_caffe(Path(__file__).parent / "networks" / "vgg.prototxt").model
    pruner = BlockPruner.of(model)
    rates = tuple(0.25 + module / 64 for module in range(len(pruner.modules)))
    word = symbols(rates, pruner.input_sources.of_modules)
    blocks = (TuningBlock(word[1:3]), TuningBlock(word[:1]), TuningBlock(word[3:4]))
    assert blocks[0].symbols[0].input_rates == (0.25,)
    text = format_blocks(blocks, pruner)
    assert text.startswith(f"{pruner.modules[0].name}@0.25>")
    assert parse_blocks(text, pruner) == blocks


PRE_ACTIVATION = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N, 2, 2, 2] x) => (float[N, 2, 2, 2] y)
<float[2] s = {2, 3}, float[2] b = {1, -1}, float[2] m = {0.5, 0}, float[2] v = {4, 1},
 float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2, 2, 1, 1] u = {4, 3, 2, 1}> {
  n = BatchNormalization <epsilon = 0.1> (x, s, b, m, v)
  d = Dropout (n)
  r = Relu (d)
  a = Conv (r, w)
  h = Relu (a)
  c = Conv (h, u)
  y = Add (c, r)
}
"""


def test_training_mode_finds_nothing_to_change_in_the_teacher(data):
    """A normalisation that can't be folded (pre-activation, DenseNet) and a dropout stay as they are in inference."""
    model = replace(parse_text(PRE_ACTIVATION), modules=(Module("m", "r", "y"),))
    joint = TeacherStudent(blocks="m@0.5").apply(model).model
    trained = TrainingMode().apply(joint)
    assert not trained.modified
    assert not {n.op for n in trained.model.graph.nodes} & {"BatchNormalization", "Dropout"}
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    teacher = joint.copy()
    teacher.graph.outputs = [teacher.graph.tensors()["teacher/y"]]
    expected = evaluate(model, {"x": x})["y"]
    np.testing.assert_allclose(evaluate(teacher, {"x": x})["teacher/y"], expected, rtol=1e-6, atol=1e-6)


def test_running_statistics_of_students_are_their_own(pruner, data):
    """Equal blocks with one behind the other, and the same block twice, average what they see themselves."""
    blocks = parse_blocks("res2b@0.5,res2a@0.5+res2b@0.5,res2b@0.5", pruner)
    interface, weights, _ = trained(pruner, blocks, data)
    means = [n for n in weights if n.endswith(".mean") and "res2b" in n]
    assert len(means) == 3 * len({n.split("/", 1)[1] for n in means})
    for name in {n.split("/", 1)[1] for n in means}:
        one, behind, twin = (weights[student_prefix(i) + name] for i in range(3))
        np.testing.assert_array_equal(one, twin)
        assert not np.allclose(one, behind, atol=1e-4)
    assert all(slot.input.startswith("block") for slot in interface.slots if slot.kind == "statistic")
