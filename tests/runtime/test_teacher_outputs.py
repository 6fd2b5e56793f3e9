"""Trainings that are given what the full network says of each image: as if it ran in each step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import wootz.runtime.tasks.trainer as trainer_module
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime import teacher_outputs as module
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.executors.control import Stopped
from wootz.runtime.inputs import Inputs
from wootz.runtime.schedule import Choice
from wootz.runtime.session import Device, InferenceSession, fastest_target
from wootz.runtime.store import Store
from wootz.runtime.tasks.program import Program
from wootz.runtime.tasks.trainer import Trainer
from wootz.runtime.teacher_outputs import TeacherOutputs, can_be_kept, examples_once, teacher_outputs, values_of_example
from wootz.runtime.training import train

CPU = Device(threads=1)
PLAIN = InputTransform(mean=(1.0,), scale=(0.5,), channel_order="RGB")
MIRRORED = replace(PLAIN, mirror=True)
LESSON = Lesson(distill=0.5)
SOLVER = Solver(base_lr=0.05, momentum=0.9, max_iter=16, batch_size=16)
OTHERS = {"conv.weight": 0.5, "fc.weight": -1.0}


@pytest.fixture
def asymmetric(split):
    """Images that are brighter on the right, more or less so."""
    ramp = np.arange(4) * np.arange(64)[:, None, None, None] / 32
    return Split((split.images + ramp).astype(np.float32), split.labels)


@pytest.fixture
def student(network):
    return with_weights(
        network, {name: w * np.float32(OTHERS[name]) for name, w in constants(network.graph).items() if name in OTHERS}
    )


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


def a_trainer(split, store, **changes):
    fields = {
        "dataset": Dataset(("dark", "bright"), split, split.part(slice(8)), None),
        "train_transform": PLAIN,
        "test_transform": PLAIN,
        "target": "onnx",
        "device": CPU,
        "store": store,
    }
    return Trainer(**{**fields, **changes})


def without(monkeypatch) -> None:
    """The full network runs in each step."""
    monkeypatch.setattr(trainer_module, "examples_once", lambda *_: 0)


def trained(trainer, model, solver, lesson, teacher):
    """The training program, and the weights after all steps."""
    program = trainer.network_program(model, solver, "net", lesson, teacher)
    session, steps = trainer.open(program.graph, solver, teacher=trainer.teacher_outputs(program))
    train(steps, solver)
    return program, session.weights()


SETTINGS = {
    "plain": {},
    "mirrored": {"train_transform": MIRRORED},
    "on the device": {"data_on_device": True},
    "mirrored on the device": {"train_transform": MIRRORED, "data_on_device": True},
    "fastest kernels": {"target": fastest_target(CPU), "train_transform": MIRRORED},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("lesson", [LESSON, Lesson((), distill=1.0, scores=True)], ids=["mixed", "alone"])
def test_weights_are_those_of_a_training_with_the_teacher_in_the_graph(
    setting, lesson, asymmetric, student, network, store, monkeypatch
):
    trainer = a_trainer(asymmetric, store, **SETTINGS[setting])
    solvers = SOLVER, Solver(type=SolverType.ADAM, base_lr=0.02, momentum=0.9, max_iter=11, batch_size=12, iter_size=2)
    for solver in solvers:
        program, found = trained(trainer, student, solver, lesson, network)
        assert program.teacher is not None
        with monkeypatch.context() as patch:
            without(patch)
            other, expected = trained(trainer, student, solver, lesson, network)
        assert other.teacher is None
        assert program.digest != other.digest
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
        assert not np.allclose(found["fc.weight"], constants(student.graph)["fc.weight"], atol=1e-3)


def test_each_row_belongs_to_its_image(asymmetric, network):
    """Also where the images are no multiple of those that the network is run on at once."""
    session = InferenceSession(network, CPU)
    images = np.tile(asymmetric.images, (4, 1, 1, 1))[:230]
    images[100:] += np.arange(130, dtype=np.float32)[:, None, None, None] / 10
    for transform in (PLAIN, MIRRORED):
        found = teacher_outputs(network, Split(images), transform, CPU)
        (values,) = found.tensors.values()
        assert len(values) == 230 * (1 + transform.mirror)
        chosen = np.array([0, 229, 100, 99, 100, 63])
        flips = np.array([False, True, True, False, False, True]) if transform.mirror else None
        data = (images[chosen] - 1) * 0.5
        if flips is not None:
            data[flips] = data[flips, ..., ::-1]
        (given,) = found.of(Choice(chosen, None, None, flips)).values()
        np.testing.assert_allclose(given, session.run(data), rtol=1e-5, atol=1e-6)


def test_with_a_limit_only_the_first_are_computed(asymmetric, network):
    found = teacher_outputs(network, asymmetric, MIRRORED, CPU, limit=10)
    (values,) = found.tensors.values()
    assert values[:20].any(axis=1).all()
    assert not values[20:].any()
    assert len(values) == 128


INPUTS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2,6] x, int64[N] kind) => (float[N,3,6] y) {
  t = Gather <axis = 0> (embedding, kind)
  u = Unsqueeze (t, last)
  a = Add (x, u)
  [conv1] b = Conv <pads = [1, 1]> (a, w1)
  [relu1] c = Relu (b)
  [conv2] y = Conv (c, w2)
}"""


def test_networks_of_several_inputs_are_given_it_too(store, monkeypatch):
    random = np.random.default_rng(0)
    model = parse_text(INPUTS)
    tensors = model.graph.tensors()
    for name, shape in {"embedding": (5, 2), "w1": (6, 2, 3), "w2": (3, 6, 1)}.items():
        tensors[name].to_constant(random.normal(size=shape).astype(np.float32))
    tensors["last"].to_constant(np.array([2]))
    model = replace(model, modules=find_modules(model)[0])
    pruner = BlockPruner.of(model)
    pruned = pruner.materialize(pruner.plan({m.name: 0.5 * (i == 0) for i, m in enumerate(pruner.modules)}))
    arrays = {"x": random.normal(size=(40, 2, 6)).astype(np.float32), "kind": random.integers(0, 5, 40)}
    split = Split(Inputs(arrays), random.normal(size=(40, 3, 6)).astype(np.float32))
    trainer = a_trainer(split, store, train_transform=InputTransform(mirror=True))
    lesson, solver = Lesson((), distill=1.0), replace(SOLVER, max_iter=5, batch_size=8)

    program, expected = trained(trainer, pruned, solver, lesson, model)
    assert program.teacher is None, "18 values of an example are more than its 13"
    monkeypatch.setattr(trainer_module, "can_be_kept", lambda *_: True)
    program, found = trained(trainer, pruned, solver, lesson, model)
    assert program.teacher is not None
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)


def test_the_teacher_runs_once_a_process_whatever_networks_learn_from_it(
    asymmetric, student, network, store, monkeypatch
):
    trainer = a_trainer(asymmetric, store)
    computed = []

    def counted(*arguments):
        computed.append(arguments)
        return teacher_outputs(*arguments)

    monkeypatch.setattr(trainer_module, "teacher_outputs", counted)
    first = trainer.fine_tune(student, SOLVER, "net", lesson=LESSON, teacher=network)
    trainer.fine_tune(network, SOLVER, "another", lesson=LESSON, teacher=network)
    assert len(computed) == 1
    assert trainer.fine_tune(student, SOLVER, "again", lesson=LESSON, teacher=network).outcome == first.outcome
    assert trainer.known_network(student, SOLVER, "again", lesson=LESSON, teacher=network).key == first.key
    mirrored = replace(trainer, train_transform=MIRRORED)
    mirrored.fine_tune(student, SOLVER, "mirrored", lesson=LESSON, teacher=network)
    assert len(computed) == 2
    softer = with_weights(network, {"fc.weight": constants(network.graph)["fc.weight"] / 2})
    mirrored.fine_tune(student, SOLVER, "softer", lesson=LESSON, teacher=softer)
    assert len(computed) == 3


@pytest.mark.parametrize("stops", [1, 4])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(stops, asymmetric, student, network, tmp_path):
    """Also one that was interrupted before the first step, while the full network was running."""

    def fine_tuned(folder, **changes):
        trainer = a_trainer(asymmetric, Store.open(tmp_path / folder), train_transform=MIRRORED, **changes)
        return trainer.store.get(trainer.fine_tune(student, SOLVER, "net", lesson=LESSON, teacher=network).key)

    expected, asked = fine_tuned("whole"), iter(range(100))
    with pytest.raises(Stopped):
        fine_tuned("interrupted", should_stop=lambda: next(asked) >= stops - 1)
    found = fine_tuned("interrupted")
    assert found.record["kept"] == expected.record["kept"] > 0
    for name, values in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], values, err_msg=name)


def test_keys_follow_the_teacher_though_the_graph_has_none_of_it(asymmetric, student, network, store):
    softer = with_weights(network, {"fc.weight": constants(network.graph)["fc.weight"] / 2})
    other_images = Split(asymmetric.images + np.float32(0.01), asymmetric.labels)

    def key(teacher, split=asymmetric, lesson=LESSON):
        trainer = a_trainer(split, store)
        program = trainer.network_program(student, SOLVER, "net", lesson, teacher)
        assert program.teacher is not None
        return trainer._network_recipe(program, SOLVER, None, lesson).key

    alone = Lesson((), distill=1.0, scores=True)
    keys = [
        key(network),
        key(softer),
        key(network, other_images),
        key(network, lesson=alone),
        key(softer, lesson=alone),
    ]
    assert len(set(keys)) == len(keys)
    assert key(network) == keys[0]


def test_what_is_known_of_a_network_is_found_without_building_graphs(asymmetric, student, network, store, monkeypatch):
    def key():
        return a_trainer(asymmetric, store).fine_tune(student, SOLVER, "net", lesson=LESSON, teacher=network).key

    found = key()

    def built(self):
        raise AssertionError("built")

    monkeypatch.setattr(Program, "graph", property(built))
    assert key() == found


def test_it_pays_where_a_training_sees_as_many_images_as_there_are(asymmetric):
    def once(transform=PLAIN, split=asymmetric, **changes):
        return examples_once(split, transform, replace(SOLVER, **{"max_iter": 4, "batch_size": 16, **changes}))

    assert once() == 64
    assert once(max_iter=3) == 0
    assert once(max_iter=2, iter_size=2) == 64
    assert once(batch_size=15) == 0
    assert once(MIRRORED) == 0
    assert once(MIRRORED, max_iter=8) == 128
    assert once(MIRRORED, max_iter=8, batch_size=15) == 0
    assert once(replace(PLAIN, crop_size=3), max_iter=100) == 0
    assert once(replace(PLAIN, least_area=0.5), max_iter=100) == 0
    others = Split(Inputs({"x": np.zeros((64, 3), np.float32)}))
    assert once(MIRRORED, others) == 64, "others than images aren't mirrored"


def test_as_much_is_kept_as_an_example_has_itself(asymmetric, network, monkeypatch):
    assert can_be_kept(32, 64, asymmetric)
    assert not can_be_kept(33, 64, asymmetric)
    several = Split(Inputs({"x": np.zeros((9, 3, 2), np.float32), "kind": np.zeros(9, np.int64)}))
    assert can_be_kept(7, 9, several)
    assert not can_be_kept(8, 9, several)
    monkeypatch.setattr(module, "MOST_BYTES", 4 * 10 * 64)
    assert can_be_kept(10, 64, asymmetric)
    assert not can_be_kept(10, 65, asymmetric)
    assert values_of_example(network) == 2


def test_what_is_drawn_at_random_or_of_unknown_size_is_not_kept():
    def values(body):
        return values_of_example(parse_text(f'<ir_version: 8, opset_import: ["" : 18]> g {body}'))

    assert values("(float[N,3] x) => (float[N,3] y, float[N,2,5] z) { y = Relu(x) z = Expand(x, x) }") == 13
    assert values("(float[N,3] x) => (float[N,M] y) { y = Relu(x) }") is None
    assert values("(float[N,3] x) => (float[N,3] y) { y = RandomNormalLike(x) }") is None


FLAT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2,4,4] x) => (float[2,N] y) <float[2,2,4,4] w, float[2,2,1,1] v> {
  a = Conv(x, w) r = Relu(a) b = Conv(r, v) f = Flatten(b) y = Transpose<perm=[1,0]>(f)
}"""


def test_a_teacher_whose_outputs_have_no_batch_in_front_runs_in_each_step(asymmetric, store):
    pair = [parse_text(FLAT) for _ in range(2)]
    for seed, model in enumerate(pair):
        random = np.random.default_rng(seed)
        for name, shape in {"w": (2, 2, 4, 4), "v": (2, 2, 1, 1)}.items():
            model.graph.tensors()[name].to_constant(random.normal(size=shape).astype(np.float32))
    trainer = a_trainer(asymmetric, store)
    lesson = Lesson((), distill=1.0)
    program, weights = trained(trainer, pair[0], SOLVER, lesson, pair[1])
    assert program.teacher is None
    assert not np.allclose(weights["w"], constants(pair[0].graph)["w"])


def test_a_rehearsal_asks_the_teacher_of_few_images(asymmetric, student, network, store, monkeypatch):
    asked: list[int | None] = []

    def counted(part: Model, split, transform, device, limit, check) -> TeacherOutputs:
        asked.append(limit)
        return teacher_outputs(part, split, transform, device, limit, check)

    monkeypatch.setattr(trainer_module, "teacher_outputs", counted)
    trainer = a_trainer(asymmetric, store)
    trainer.rehearse(student, SOLVER, LESSON, network)
    trainer.fine_tune(student, SOLVER, "net", lesson=LESSON, teacher=network)
    assert asked == [module.TEACHER_BATCH, None]
