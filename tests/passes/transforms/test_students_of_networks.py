"""Students of plain chains (LeNet, VGG), and of Inception and DenseNet modules: what they read, learn and fit into."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.blocks.identifier import identify_blocks
from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model, Module, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.subspace import Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.teacher_student import (
    TEACHER,
    TeacherStudent,
    parse_blocks,
    student_loss,
    student_prefix,
)
from wootz.runtime.session import Device, TrainingSession, evaluate

NETWORKS = Path(__file__).parent / "networks"
CHAINS = ("lenet", "vgg")
LAYER_BEFORE = {
    "lenet": {"pool1": "conv1", "pool2": "conv2"},
    "vgg": {"bn1": "conv1_1", "pool1": "conv1_2", "conv2_1": "conv2_1", "pool2": "conv2_2"},
}
CONFIGURATIONS = {
    "lenet": ((0.5, 0.5), (0.5, 0.25), (0.25, 0.5), (0.0, 0.5), (0.5, 0.5)),
    "vgg": ((0.5, 0.5, 0.3, 0.5), (0.5, 0.5, 0.5, 0.5), (0.3, 0.5, 0.5, 0.5), (0.3, 0.0, 0.5, 0.5)),
    "inception": ((0.5, 0.5, 0.3), (0.5, 0.3, 0.3), (0.3, 0.5, 0.3), (0.3, 0.5, 0.5)),
    "densenet": ((0.5, 0.5, 0.3, 0.5), (0.5, 0.5, 0.5, 0.5), (0.3, 0.5, 0.5, 0.5), (0.3, 0.0, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Case:
    """A network with weights, and activations, of its own; its blocks for a few configurations."""

    name: str
    pruner: BlockPruner
    subspace: Subspace
    data: np.ndarray

    @property
    def model(self) -> Model:
        return self.pruner.model

    def plan(self):
        return identify_blocks(self.subspace, sources=self.pruner.input_sources.of_modules)

    def pruned(self, configuration) -> Model:
        rates = dict(zip(self.subspace.modules, configuration, strict=True))
        return self.pruner.materialize(self.pruner.plan(rates))


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def case(request):
    model = import_caffe(NETWORKS / f"{request.param}.prototxt").model
    generator = np.random.default_rng(0)
    for name, tensor in model.graph.tensors().items():
        if name.endswith((".mean", ".bias")):
            tensor.values = generator.normal(0, 0.2, tensor.shape).astype(np.float32)
        elif name.endswith(".variance"):
            tensor.values = generator.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
    pruner = BlockPruner.of(model)
    subspace = Subspace(tuple(m.name for m in pruner.modules), CONFIGURATIONS[request.param])
    shape = (4, *model.graph.inputs[0].shape[1:])
    return Case(request.param, pruner, subspace, generator.normal(0, 1, shape).astype(np.float32))


def activations(model, names, data):
    tapped = model.copy()
    tensors = tapped.graph.tensors()
    tapped.graph.outputs = [tensors[name] for name in names]
    tapped.graph.cleanup()
    found = evaluate(tapped, {"data": data} if tapped.graph.inputs else {})
    return {"data": data, **found}


def pretrained(case, blocks, steps=15):
    joint = TeacherStudent().join(case.pruner, blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    solver = Solver(type=SolverType.ADAM, momentum=0.9)
    graph = build_training_graph(joint, solver, loss=None, losses=losses, frozen=TEACHER)
    session = TrainingSession(graph, Device(threads=1))
    history = np.array([session.step(case.data, None, 0.002) for _ in range(steps)])
    weights = session.weights()
    prefixes = [student_prefix(i) for i in range(len(blocks))]
    own = [{n.removeprefix(p): w for n, w in weights.items() if n.startswith(p)} for p in prefixes]
    return own, history


def test_each_loss_is_the_distance_to_the_teachers_channels_that_are_kept(case):
    blocks = case.plan().blocks
    joint = TeacherStudent().join(case.pruner, blocks)
    verify(joint)
    losses = evaluate(joint, {"data": case.data})
    for i, (block, student) in enumerate(zip(blocks, map(case.pruner.student, blocks), strict=True)):
        verify(student.model)
        entry, exit_ = case.pruner.modules[block.modules[0]].entry, case.pruner.modules[block.modules[-1]].exit
        teacher = activations(case.model, [exit_, *([entry] if entry != "data" else [])], case.data)
        inner, outer = teacher[entry], teacher[exit_]
        if case.name in CHAINS:
            keep_sets = json.loads(student.model.metadata.get("wootz.keep-sets", "{}"))
            inner = inner[:, keep_sets.get(LAYER_BEFORE[case.name].get(entry), slice(None))]
            outer = outer[:, keep_sets.get(LAYER_BEFORE[case.name][exit_], slice(None))]
        output = evaluate(student.model, {entry: inner})[exit_]
        assert output.shape == outer.shape
        expected = np.mean((output - outer) ** 2)
        assert losses[student_loss(i)] == pytest.approx(expected, rel=1e-4, abs=1e-9), str(block)


def test_blocks_fit_the_networks_that_use_them_and_compute_there_what_they_do_alone(case):
    plan = case.plan()
    blocks = [b for b in plan.blocks if b.is_pruned]
    weights, history = pretrained(case, blocks)
    assert np.all(history[-1] < history[0])
    students = dict(zip(blocks, map(case.pruner.student, blocks), strict=True))
    trained = dict(zip(blocks, weights, strict=True))
    used = 0
    for configuration, composite in zip(case.subspace.configurations, plan.composites, strict=True):
        network = case.pruned(configuration)
        for block in composite:
            if block in trained:
                network = with_weights(network, trained[block])
        verify(network)
        assert np.isfinite(evaluate(network, {"data": case.data})["prob"]).all()
        for block in (b for b in composite if b in trained):
            entry, exit_ = case.pruner.modules[block.modules[0]].entry, case.pruner.modules[block.modules[-1]].exit
            inside = activations(network, [exit_, *([entry] if entry != "data" else [])], case.data)
            alone = with_weights(students[block].model, trained[block])
            np.testing.assert_allclose(evaluate(alone, {entry: inside[entry]})[exit_], inside[exit_], atol=1e-6)
            used += 1
    assert used


def test_without_pre_training_assembly_gives_the_default_network_bit_for_bit(case):
    plan = case.plan()
    for configuration, composite in zip(case.subspace.configurations, plan.composites, strict=True):
        network = case.pruned(configuration)
        blocks = [b for b in composite if b is not None]
        assembled = network
        for student in map(case.pruner.student, blocks):
            assembled = with_weights(assembled, constants(student.model.graph))
        assert assembled.to_proto().SerializeToString() == network.to_proto().SerializeToString()


def test_the_first_layers_of_a_chain_have_nothing_to_learn(case):
    firsts = [b for b in case.plan().blocks if b.modules == (0,)]
    assert firsts or case.name == "vgg"
    losses = evaluate(TeacherStudent().join(case.pruner, firsts), {"data": case.data}) if firsts else {}
    for i, block in enumerate(firsts):
        assert block.is_pruned == (case.name not in CHAINS)
        assert (losses[student_loss(i)] > 1e-9) == block.is_pruned


def test_a_block_of_a_chain_is_written_with_the_rates_before_it():
    pruner = BlockPruner.of(import_caffe(NETWORKS / "vgg.prototxt").model)
    blocks = parse_blocks("module1@0.5>module2@0.3+module3@0.5, module2@0.3", pruner)
    assert [str(b) for b in blocks] == ["2(0.3 after 0.5) 3(0.5 after 0.3)", "2(0.3 after 0)"]


def test_a_chain_gathers_each_part_of_a_tap_once():
    model = import_caffe(NETWORKS / "vgg.prototxt").model
    joint = TeacherStudent(blocks="module1@0.5>module2@0.5,module1@0.5>module2@0.3,module1@0.5").apply(model).model
    gathered = [n.inputs[0].name for n in joint.graph.nodes if n.op == "Gather"]
    assert sorted(gathered) == ["teacher/bn1", "teacher/pool1", "teacher/pool1"]


FLATTENED = """<ir_version: 8, opset_import: ["" : 18]>
net (float[N, 1, 2, 2] x) => (float[N, 2] y)
<float[4, 1, 1, 1] a = {1, 2, 3, 4}, float[2, 16] b = {%s}> {
  h = Conv (x, a)
  f = Flatten (h)
  y = Gemm <transB = 1> (f, b)
}
"""


def test_a_module_that_ends_behind_a_flatten_keeps_the_elements_of_its_channels():
    model = parse_text(FLATTENED % ", ".join(map(str, range(32))))
    model = replace(model, modules=(Module("m", "x", "f"),))
    joint = TeacherStudent(blocks="m@0.5").apply(model).model
    indices = next(t.values for t in joint.graph.tensors().values() if t.name.endswith("f.indices"))
    assert indices.tolist() == list(range(8, 16))
    assert evaluate(joint, {"x": np.ones((1, 1, 2, 2), np.float32)})["block0/loss"] == 0


def test_what_cannot_be_pruned_is_refused():
    model = import_caffe(NETWORKS / "inception.prototxt").model
    with pytest.raises(PassError, match=r"teacher-student: 1\.5 is not a pruning rate"):
        TeacherStudent(blocks="inception_3a@1.5").apply(model)


def gradients(model, feeds, **options):
    """The gradients of a model with losses, in training mode, by parameter."""
    training = BuildGradients(**options).apply(TrainingMode().apply(model).model).model
    found = evaluate(Legalize().apply(training).model, feeds)
    return {name.removesuffix(".grad"): g for name, g in found.items() if name.endswith(".grad")}


def test_gradients_in_the_joint_graph_are_those_of_each_student_alone_on_recorded_activations(case):
    blocks = [b for b in case.plan().blocks if b.is_pruned]
    joint = TeacherStudent().join(case.pruner, blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    together = gradients(joint, {"data": case.data}, losses=losses, frozen=(TEACHER,))
    assert not any(name.startswith(TEACHER) for name in together)
    compared = 0
    for i, student in enumerate(map(case.pruner.student, blocks)):
        entry, exit_ = student.model.graph.inputs[0].name, student.model.graph.outputs[0].name
        recorded = activations(case.model, [exit_, *([entry] if entry != "data" else [])], case.data)
        alone = AttachLoss(loss="mse", target="recorded").apply(student.model).model
        feeds = {
            entry: of_channels(recorded[entry], student, entry),
            "recorded": of_channels(recorded[exit_], student, exit_),
        }
        expected = gradients(alone, feeds)
        largest = max(np.max(np.abs(g)) for g in expected.values())  # biases before a normalisation have none
        for name, gradient in expected.items():
            difference = np.max(np.abs(together[student_prefix(i) + name] - gradient))
            assert difference <= 1e-5 * max(np.max(np.abs(gradient)), 0.1 * largest), f"{blocks[i]} {name}"
            compared += 1
    assert compared == len(together)


def of_channels(values, student, tensor):
    kept = student.kept(tensor)
    return values if kept.all() else values[:, np.flatnonzero(kept.ravel())]
