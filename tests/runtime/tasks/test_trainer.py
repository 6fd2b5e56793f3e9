"""What is kept of trainings, those that diverge too, under which keys, and how they go on after an interruption."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wootz.runtime.tasks.trainer as trainer_module
from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.objective import parse_objective
from wootz.passes.errors import PassError, StorageError
from wootz.passes.ir.model import MULTIPLIERS_KEY, constants, with_weights
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.memory import training_memory
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.executors.control import Stopped
from wootz.runtime.latency import Latency
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.progress import Progress
from wootz.runtime.session import Device, evaluate
from wootz.runtime.store import Store
from wootz.runtime.tasks.closed_form import ClosedForm
from wootz.runtime.tasks.early_end import early_end
from wootz.runtime.tasks.plateau import PLATEAU, Plateau
from wootz.runtime.tasks.task import reached
from wootz.runtime.tasks.trainer import Trainer

MODULE = """
layer { name: "conv2" type: "Convolution" bottom: "conv" top: "conv2" module: "m"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3" module: "m"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
"""
TRANSFORM = InputTransform(channel_order="RGB")
CLASSES = ("dark", "bright")


class Trainings(Progress):
    """Counts the trainings that are begun, and their steps."""

    def __init__(self):
        self.titles = []
        self.steps = 0

    def begin(self, title, total, display=0):
        self.titles.append(title)

    def advance(self, done, note=""):
        self.steps += 1


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


def a_trainer(split, store, **changes):
    fields = {
        "dataset": Dataset(CLASSES, split, split, None),
        "train_transform": TRANSFORM,
        "test_transform": TRANSFORM,
        "target": "onnx",
        "device": Device(threads=1),
        "store": store,
        "progress": Trainings(),
        "run": "this",
    }
    return Trainer(**{**fields, **changes})


@pytest.fixture(params=[False, True], ids=["host", "device"])
def trainer(request, split, store):
    return a_trainer(split, store, data_on_device=request.param)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (2, "the training diverged, the weights are not finite after step 2 (learning rate 1e+30): lower base_lr"),
        (5, "the training diverged, the loss is not finite at step 3 (learning rate 1e+30): lower base_lr"),
    ],
)
def test_a_network_that_diverges_has_failed_and_is_not_trained_again(trainer, network, steps, reason):
    solver = Solver(base_lr=1e30, max_iter=steps, batch_size=16)
    found = trainer.fine_tune(network, solver, "net")
    assert isinstance(found.outcome, Failed)
    assert found.outcome.reason.startswith(reason)
    assert not found.reused
    assert trainer.stored_weights(found.key) is None
    assert trainer.fine_tune(network, solver, "another title") == found
    assert replace(trainer, run="another").fine_tune(network, solver, "title") == replace(found, reused=True)
    assert trainer.progress.titles == ["net"]


def test_a_block_that_the_last_step_spoils_is_marked_and_the_others_are_kept(trainer, pruner, monkeypatch):
    solver = Solver(base_lr=0.01, max_iter=4, batch_size=16)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    open_steps = Trainer.open

    def open_spoiled(self, graph, solver, *more):
        session, steps = open_steps(self, graph, solver, *more)
        advance = steps.advance

        def spoil_the_last(first, stop):
            losses = advance(first, stop)
            if first + len(losses) == solver.max_iter:
                name = student_prefix(1) + "conv2.weight"
                session.write_slot(name, np.full_like(session.read_slot(name), np.nan))
            return losses

        monkeypatch.setattr(steps, "advance", spoil_the_last)
        return session, steps

    monkeypatch.setattr(Trainer, "open", open_spoiled)
    keys = trainer.block_keys(pruner, blocks, solver)
    trained = trainer.pretrain(pruner, keys, solver, "blocks")
    assert [isinstance(trained[block].outcome, Failed) for block in blocks] == [False, True, False]
    assert trained[blocks[1]].outcome.reason.startswith(
        "the training diverged, the weights are not finite after step 4 "
    )
    assert trainer.store.get(keys[blocks[1]]) == trained[blocks[1]].outcome
    stored = trainer.store.get(keys[blocks[0]])
    assert (stored.record["steps"], stored.record["final_error"]) == (4, trained[blocks[0]].outcome["final_error"])


@pytest.fixture
def pruner(tmp_path, prototxt):
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "net.prototxt").write_text(
        head + MODULE + 'layer { name: "fc"' + classifier.replace('"conv"', '"conv3"')
    )
    return BlockPruner.of(import_caffe(tmp_path / "net.prototxt").model, "l1")


def keys(trainer, pruner, solver=None):
    """Of a network, and of a block."""
    solver = solver or Solver(batch_size=16)
    block = TuningBlock((Symbol(0, 0.5),))
    return network_key(trainer, pruner.model, solver), trainer.block_keys(pruner, [block], solver)[block]


def network_key(trainer, model, solver, end=None):
    return trainer._network_recipe(trainer.network_program(model, solver, "net"), solver, end).key


def other_pixels(split):
    return Split(split.images + np.float32(0.01), split.labels)


def other_labels(split):
    return Split(split.images, 1 - split.labels)


@pytest.mark.parametrize(
    ("change", "of_blocks"),
    [
        (lambda split: {"dataset": Dataset(CLASSES, other_pixels(split), split, None)}, True),
        (lambda split: {"dataset": Dataset(CLASSES, other_labels(split), split, None)}, False),
        (lambda split: {"dataset": Dataset(CLASSES, split, other_pixels(split), None)}, False),
        (lambda split: {"train_transform": replace(TRANSFORM, mirror=True)}, True),
        (lambda split: {"test_transform": replace(TRANSFORM, mean=(1.0,))}, True),
        (lambda split: {"target": "ort-training"}, True),
        (lambda split: {"precision": "float16"}, True),
        (lambda split: {"device": Device("cuda")}, True),
    ],
)
def test_what_a_result_depends_on_is_in_its_key(split, store, pruner, change, of_blocks):
    """Blocks read neither labels nor validation images; they begin with training images prepared as for a test."""
    before, after = keys(a_trainer(split, store), pruner), keys(a_trainer(split, store, **change(split)), pruner)
    assert before[0] != after[0]
    assert (before[1] != after[1]) == of_blocks


@pytest.mark.parametrize(
    "change",
    [
        lambda split: {"dataset": Dataset(("black", "white"), split, split, other_pixels(split))},
        lambda split: {"progress": Progress()},
    ],
)
def test_what_changes_no_result_changes_no_key(split, store, pruner, change):
    """Names of classes, and test images, are read by no training."""
    assert keys(a_trainer(split, store), pruner) == keys(a_trainer(split, store, **change(split)), pruner)


def test_threads_are_in_the_key_exactly_where_they_change_numbers(split, store, pruner, monkeypatch):
    """Of what the graph says is asked once, and never on one thread."""
    asked = []

    def order_of_sums(self, graph, batch_size):
        asked.append(self.threads)
        return f"{self.threads} threads" if self.threads == 3 else ""

    monkeypatch.setattr(Device, "order_of_sums", order_of_sums)
    found = [keys(a_trainer(split, store, device=Device(threads=n)), pruner) for n in (1, 2, 3, 3)]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]
    assert asked == [2, 2, 3, 3], "a network and a block"


@pytest.mark.parametrize("change", [{"display": 5}, {"snapshot": 9}, {"average_loss": 3}, {"snapshot_prefix": "s"}])
def test_what_a_solver_says_of_the_display_changes_no_key(split, store, pruner, change):
    solver = Solver(batch_size=16)
    assert keys(a_trainer(split, store), pruner, solver) == keys(
        a_trainer(split, store), pruner, replace(solver, **change)
    )


def test_the_key_of_a_network_has_its_weights_and_the_solver(split, store, pruner):
    trainer, solver = a_trainer(split, store), Solver(batch_size=16)
    before = network_key(trainer, pruner.model, solver)
    for changes in (
        {"momentum": 0.5},
        {"random_seed": 1},
        {"max_iter": 7},
        {"lr_policy": "cosine"},
        {"base_lr": 0.5},
        {"iter_size": 2},
        {"test_interval": 5},
        {"weight_decay": 0.1},
        {"batch_size": 8},
    ):
        assert network_key(trainer, pruner.model, replace(solver, **changes)) != before, changes
    for name in constants(pruner.model.graph):
        weight = constants(pruner.model.graph)[name]
        other = with_weights(pruner.model, {name: np.asarray(weight + 1, weight.dtype)})
        assert network_key(trainer, other, solver) != before, name
    bound = early_end(parse_objective("min ModelSize constraint Accuracy > 0.5", "test"), 1.0)
    assert network_key(trainer, pruner.model, solver, bound) != before


def test_keys_have_the_multipliers_of_learning_rates(split, store, pruner):
    """They are in no operator of the network, but in what trains it: also where its digest is remembered."""
    trainer, slow = a_trainer(split, store), {"conv2.weight": [0.1, 1.0]}
    other = replace(pruner.model, metadata={**pruner.model.metadata, MULTIPLIERS_KEY: json.dumps(slow)})
    before, after = keys(trainer, pruner), keys(trainer, BlockPruner.of(other, "l1"))
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert trainer.digests.program(pruner.model) != trainer.digests.program(other)


def test_the_key_of_a_block_has_what_it_computes_with_and_nothing_behind_it(split, store, pruner):
    trainer = a_trainer(split, store)
    _, before = keys(trainer, pruner)
    for name, is_read in (("conv.weight", True), ("bn.mean", True), ("conv3.weight", True), ("fc.weight", False)):
        weight = constants(pruner.model.graph)[name]
        teacher = BlockPruner.of(with_weights(pruner.model, {name: weight + np.float32(1)}), "l1")
        assert (keys(trainer, teacher)[1] != before) == is_read, name
    assert keys(trainer, pruner, Solver(batch_size=16, base_lr=0.5))[1] != before
    rates = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    together = trainer.block_keys(pruner, rates, Solver(batch_size=16))
    assert len(set(together.values())) == 3
    assert together[rates[1]] == before, "blocks that are trained beside it have no part in it"


LEARNS = Solver(base_lr=0.1, momentum=0.9, max_iter=30, batch_size=16, test_interval=10, random_seed=3)


def fine_tuned(tmp_path, network, dataset, test_transform=TRANSFORM, solver=LEARNS, end=None):
    """The outcome of a training in a store of its own."""
    store = Store.open(tmp_path / "store")
    trainer = a_trainer(None, store, dataset=dataset, test_transform=test_transform)
    found = trainer.fine_tune(network, solver, "net", end, snapshots=tmp_path / "snapshots")
    return store.get(found.key)


def curve_of(outcome):
    return dict(outcome.record["curve"])


def test_accuracies_are_those_of_the_validation_images_prepared_for_testing(split, network, tmp_path):
    """Validation images with the other labels are as wrong as the network is right; without contrast all are equal."""
    validation = Split(split.images, 1 - split.labels)
    learned = fine_tuned(tmp_path, network, Dataset(CLASSES, split, validation, split))
    assert curve_of(learned)[30] < 0.1
    assert list(curve_of(learned)) == [0, 10, 20, 30]
    grey = replace(TRANSFORM, scale=(0.0,))
    assert curve_of(fine_tuned(tmp_path, network, Dataset(CLASSES, split, split, None), grey))[30] == 0.5


def forgetting(split):
    """Training teaches the opposite of what three quarters of the validation images ask for."""
    return Dataset(
        CLASSES, split, Split(split.images, np.where(np.arange(64) < 16, split.labels, 1 - split.labels)), None
    )


@pytest.mark.parametrize("changes", [{}, {"test_iter": 2}], ids=["whole tests", "tests of few"])
def test_the_weights_of_the_best_test_are_kept(split, network, tmp_path, changes):
    """Of tests on all validation images: others say too little."""
    dataset = forgetting(split)
    found = fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, **changes))
    curve, kept = curve_of(found), found.record["kept"]
    whole = curve if not changes else {step: curve[step] for step in (0, 30)}
    assert curve[kept] == max(whole.values()) > curve[30]
    assert reached(found.record) == curve[kept]
    again = a_trainer(split, Store.open(tmp_path / "again"), dataset=dataset)
    assert again.quality_of(with_weights(network, found.weights), dataset.validation) == curve[kept]


def test_of_equally_good_weights_the_last_ones_are_kept(split, network, tmp_path):
    found = fine_tuned(tmp_path, network, Dataset(CLASSES, split, split, None), replace(TRANSFORM, scale=(0.0,)))
    assert set(curve_of(found).values()) == {0.5}
    assert found.record["kept"] == 30


def test_kept_weights_outlive_interruptions(split, network, tmp_path):
    dataset = forgetting(split)
    expected = fine_tuned(tmp_path, network, dataset)
    assert expected.record["kept"] < 30
    store = Store.open(tmp_path / "interrupted")
    while True:
        trainer = a_trainer(split, store, dataset=dataset, should_stop=StopAfter(1))
        try:
            found = store.get(trainer.fine_tune(network, LEARNS, "net").key)
            break
        except Stopped:
            continue
    assert found.record["kept"] == expected.record["kept"]
    for name, values in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], values, err_msg=name)


def test_test_iter_bounds_the_accuracies_on_the_way_alone(split, network, tmp_path):
    """Two batches of 16 are tested: the first 16 images are right in the end, the other 48 wrong."""
    validation = Split(split.images, np.where(np.arange(64) < 16, split.labels, 1 - split.labels))
    dataset = Dataset(CLASSES, split, validation, None)
    curve = curve_of(fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, test_iter=2)))
    assert 0.4 < curve[20] < 0.6
    assert curve[30] < 0.35


def test_the_random_seed_of_the_solver_draws_the_batches(split, network, tmp_path):
    dataset = Dataset(CLASSES, split, split, None)
    one, same, other = (
        fine_tuned(tmp_path / str(i), network, dataset, solver=replace(LEARNS, random_seed=seed)).weights
        for i, seed in enumerate((3, 3, 4))
    )
    np.testing.assert_array_equal(one["conv.weight"], same["conv.weight"])
    assert not np.array_equal(one["conv.weight"], other["conv.weight"])


def test_snapshots_are_taken_at_their_interval(split, network, tmp_path):
    dataset = Dataset(CLASSES, split, split, None)
    trained = fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, snapshot=12))
    files = sorted((tmp_path / "snapshots").iterdir())
    assert [f.name for f in files] == ["snapshot_net_iter_12.npz", "snapshot_net_iter_24.npz"]
    with np.load(files[0]) as early, np.load(files[1]) as late:
        assert set(early.files) == set(trained.weights)
        assert not np.array_equal(early["conv.weight"], late["conv.weight"])


# What is kept of a block

HALF = TuningBlock((Symbol(0, 0.5),))
TRAINED_NAMES = {"conv2.weight", "conv2.bias", "conv3.weight", "conv3.bias"}


def error_of_half(pruner, weights, split):
    """The error of a pruned pair of 1×1 convolutions on every fifth image, in NumPy."""
    tapped = pruner.model.copy()
    tensors = tapped.graph.tensors()
    source, target = pruner.modules[0].entry, pruner.modules[0].exit
    tapped.graph.outputs = [tensors[source], tensors[target]]
    tapped.graph.cleanup()
    teacher = evaluate(replace(tapped, modules=()), {tapped.graph.inputs[0].name: split.images[4::5]})
    hidden = np.einsum("oi,nihw->nohw", weights["conv2.weight"][:, :, 0, 0], teacher[source])
    hidden = hidden + weights["conv2.bias"][:, None, None]
    output = np.einsum("oi,nihw->nohw", weights["conv3.weight"][:, :, 0, 0], hidden)
    output = output + weights["conv3.bias"][:, None, None]
    return np.mean(np.square(output - teacher[target], dtype=np.float64))


def first_weights(trainer, pruner, block):
    """What a block begins with."""
    student = pruner.student(block)
    given = constants(student.model.graph)
    solved = (
        {} if trainer.block_start == "remaining" else trainer.closed_form(pruner).weights([student], [set(given)])[0]
    )
    return {**given, **solved}


@pytest.mark.parametrize("start", ["closed-form", "remaining"])
def test_errors_of_a_block_are_those_of_its_weights_before_and_after(split, pruner, store, start):
    trainer = a_trainer(split, store, block_start=start)
    solver = Solver(base_lr=0.02, momentum=0.9, max_iter=100, batch_size=16)
    outcome = pretrained(trainer, pruner, [HALF], solver)[HALF]
    assert (outcome.record["steps"], outcome.record["kept"]) == (100, "last weights")
    first = first_weights(trainer, pruner, HALF)
    assert outcome.record["initial_error"] == pytest.approx(error_of_half(pruner, first, split), rel=1e-4)
    assert outcome.record["final_error"] == pytest.approx(error_of_half(pruner, outcome.weights, split), rel=1e-4)
    assert outcome.record["final_error"] < outcome.record["initial_error"]


@pytest.mark.parametrize("start", ["closed-form", "remaining"])
def test_a_block_that_training_makes_worse_keeps_its_first_weights(split, pruner, store, start):
    trainer = a_trainer(split, store, block_start=start)
    solver = Solver(type=SolverType.ADAM, base_lr=0.5, momentum=0.9, max_iter=4, batch_size=16)
    outcome = pretrained(trainer, pruner, [HALF], solver)[HALF]
    first = first_weights(trainer, pruner, HALF)
    assert (outcome.record["steps"], outcome.record["kept"]) == (4, "first weights")
    assert outcome.record["final_error"] == outcome.record["initial_error"]
    assert outcome.record["final_error"] == pytest.approx(error_of_half(pruner, first, split), rel=1e-4)
    assert set(outcome.weights) == TRAINED_NAMES
    for name, values in outcome.weights.items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.floats(-4, 0.5).map(lambda exponent: 10**exponent),
    steps=st.integers(1, 8),
    type_=st.sampled_from([SolverType.SGD, SolverType.ADAM]),
    start=st.sampled_from(["closed-form", "remaining"]),
)
def test_no_block_is_worse_than_it_began(split, two_modules, rate, steps, type_, start):
    solver = Solver(type=type_, base_lr=rate, momentum=0.9, max_iter=steps, batch_size=16)
    blocks = [TuningBlock((Symbol(module, 0.5),)) for module in (0, 1)]
    with TemporaryDirectory() as folder:
        found = pretrained(a_trainer(split, Store.open(Path(folder)), block_start=start), two_modules, blocks, solver)
    for outcome in found.values():
        if isinstance(outcome, Trained):
            before, after = outcome.record["initial_error"], outcome.record["final_error"]
            assert after < before or (outcome.record["kept"], after) == ("first weights", before)


def test_first_weights_outlive_interruptions_and_graphs_of_fewer_blocks(split, two_modules, tmp_path, monkeypatch):
    errors = ClosedForm.errors

    def worse_after_training(self, students, weights):
        measured = errors(self, students, weights)
        is_start = [len(of_block) == 2 and not of_block[0] for of_block in weights]
        return [
            of_block if solved or not of_block else [of_block[0], 2 * of_block[0]]
            for solved, of_block in zip(is_start, measured, strict=True)
        ]

    monkeypatch.setattr(ClosedForm, "errors", worse_after_training)
    sizes, build = [], Trainer.joint_graph
    store = Store.open(tmp_path / "store")
    blocks = [TuningBlock((Symbol(module, rate),)) for module in (0, 1) for rate in RATES]
    a_trainer(split, store, plateau=EARLY).block_keys(two_modules, blocks, FALLING)
    monkeypatch.setattr(Trainer, "joint_graph", lambda *given: sizes.append(len(given[2])) or build(*given))
    attempts = 0
    while True:
        attempts += 1
        trainer = a_trainer(split, store, plateau=EARLY, should_stop=StopAfter(10 if attempts == 1 else 3))
        try:
            found = pretrained(trainer, two_modules, blocks)
            break
        except Stopped:
            continue
    assert attempts > 2
    assert min(sizes) < len(blocks)
    for block, outcome in found.items():
        assert outcome.record["kept"] == "first weights"
        first = first_weights(trainer, two_modules, block)
        for name, values in outcome.weights.items():
            np.testing.assert_array_equal(values, first[name], err_msg=name)


@pytest.mark.filterwarnings("error")
def test_huge_images_fail_without_a_warning(split, pruner, store):
    huge = Split(split.images * np.float32(1e30), split.labels)
    outcome = pretrained(a_trainer(huge, store), pruner, [HALF], replace(FALLING, max_iter=3))[HALF]
    assert isinstance(outcome, Failed)


def test_the_rule_of_what_is_kept_is_in_the_keys_of_blocks(split, store, pruner, monkeypatch):
    for start in ("closed-form", "remaining"):
        trainer = a_trainer(split, store, block_start=start)
        before = keys(trainer, pruner)
        with monkeypatch.context() as patched:
            patched.setattr(ClosedForm, "judge", "otherwise")
            after = keys(trainer, pruner)
        assert before[0] == after[0]
        assert before[1] != after[1]


# Early ends


def rule(bound, gives_up=False):
    return early_end(parse_objective(f"min ModelSize constraint Accuracy >= {bound}", "test"), 1.0, gives_up)


def test_a_network_is_done_when_it_meets_the_bound_with_the_weights_of_that_step(split, network, tmp_path):
    dataset = Dataset(CLASSES, split, split, None)
    whole = fine_tuned(tmp_path / "whole", network, dataset)
    curve = curve_of(whole)
    assert curve[0] < curve[10], "it learns"
    ended = fine_tuned(tmp_path / "ended", network, dataset, end=rule(curve[10]))
    assert (ended.record["ended"], ended.record["steps"]) == ("bound met", 10)
    assert curve_of(ended) == {0: curve[0], 10: curve[10]}
    ten = fine_tuned(tmp_path / "ten", network, dataset, solver=replace(LEARNS, max_iter=10))
    for name, values in ten.weights.items():
        np.testing.assert_array_equal(ended.weights[name], values)
    at_once = fine_tuned(tmp_path / "at once", network, dataset, end=rule(0.0))
    assert (at_once.record["ended"], at_once.record["steps"]) == ("bound met", 0)
    np.testing.assert_array_equal(at_once.weights["conv.weight"], constants(network.graph)["conv.weight"])


def test_a_bound_that_some_images_meet_has_to_be_met_by_all(split, network, tmp_path):
    """The first 32 images, which tests on the way look at, are right in the end, the others wrong."""
    validation = Split(split.images, np.where(np.arange(64) < 32, split.labels, 1 - split.labels))
    dataset = Dataset(CLASSES, split, validation, None)
    ended = fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, test_iter=2), end=rule(0.9))
    assert curve_of(ended)[20] > 0.9
    assert (ended.record["ended"], ended.record["steps"]) == ("all steps", 30)


def test_a_hopeless_network_is_given_up_if_that_is_asked_for(split, network, tmp_path):
    dataset = Dataset(CLASSES, split, Split(split.images, 1 - split.labels), None)
    solver = replace(LEARNS, test_interval=5)
    ended = fine_tuned(tmp_path, network, dataset, solver=solver, end=rule(0.99, gives_up=True))
    assert (ended.record["ended"], ended.record["steps"]) == ("given up", 10)


def test_a_training_serves_another_bound_where_that_would_have_ended_it_alike(split, network, store):
    validation = Split(split.images, np.where(np.arange(64) < 8, 1 - split.labels, split.labels))
    trainer = a_trainer(split, store, dataset=Dataset(CLASSES, split, validation, None))
    whole = trainer.fine_tune(network, LEARNS, "whole")
    highest = max(accuracy for _, accuracy in whole.outcome["curve"])
    missed = trainer.fine_tune(network, LEARNS, "missed", rule(highest + 0.01))
    assert missed == whole
    met = trainer.fine_tune(network, LEARNS, "met", rule(whole.outcome["curve"][1][1]))
    assert met.key != whole.key
    assert trainer.progress.titles == ["whole", "met"]


# Interruptions


class StopAfter:
    """Says stop when a training has made so many steps."""

    def __init__(self, steps):
        self.steps = steps
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return self.asked > self.steps


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("changes", [{}, {"iter_size": 2}, {"type": SolverType.ADAM, "momentum": 0.9}])
def test_a_network_goes_on_where_it_was_stopped_and_is_the_same(split, network, tmp_path, on_device, changes):
    solver = replace(LEARNS, **changes)
    dataset = Dataset(CLASSES, split, split, None)
    whole = a_trainer(split, Store.open(tmp_path / "whole"), data_on_device=on_device)
    expected = whole.store.get(whole.fine_tune(network, solver, "net").key)
    store = Store.open(tmp_path / "interrupted")
    attempts = 0
    while True:
        attempts += 1
        trainer = a_trainer(split, store, dataset=dataset, data_on_device=on_device, should_stop=StopAfter(1))
        try:
            found = trainer.fine_tune(network, solver, "net")
            break
        except Stopped:
            continue
    assert attempts > 2
    got = store.get(found.key)
    assert {k: v for k, v in got.record.items() if k != "seconds"} == {
        k: v for k, v in expected.record.items() if k != "seconds"
    }
    for name, values in expected.weights.items():
        np.testing.assert_array_equal(got.weights[name], values, err_msg=name)
    assert store.get_checkpoint(found.key) is None


@pytest.mark.parametrize("start", ["closed-form", "remaining"])
def test_blocks_go_on_where_they_were_stopped_and_are_the_same(split, pruner, tmp_path, start):
    solver = Solver(base_lr=0.02, momentum=0.9, max_iter=20, batch_size=16)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5)]
    whole = a_trainer(split, Store.open(tmp_path / "whole"), block_start=start)
    keys = whole.block_keys(pruner, blocks, solver)
    whole.pretrain(pruner, keys, solver, "blocks")
    store = Store.open(tmp_path / "interrupted")
    stopped = a_trainer(split, store, should_stop=StopAfter(12), block_start=start)
    with pytest.raises(Stopped):
        stopped.pretrain(pruner, keys, solver, "blocks")
    again = a_trainer(split, store, block_start=start)
    again.pretrain(pruner, keys, solver, "blocks")
    assert stopped.progress.steps > 5
    assert again.progress.steps == 20 - stopped.progress.steps
    for key in keys.values():
        expected, got = whole.store.get(key), store.get(key)
        assert isinstance(got, Trained)
        assert got.record["final_error"] == expected.record["final_error"]
        for name, values in expected.weights.items():
            np.testing.assert_array_equal(got.weights[name], values, err_msg=name)


def test_blocks_begin_in_closed_form_alone_and_beside_others_alike(split, pruner, tmp_path):
    """The third filter of the first layer is twice the first one: what is left of them can say the same."""
    solver = Solver(base_lr=0.0, max_iter=3, batch_size=64)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    weights = constants(pruner.model.graph)["conv2.weight"].copy()
    weights[2] = 2 * weights[0]
    pruner = BlockPruner.of(with_weights(pruner.model, {"conv2.weight": weights}), "l1")
    found = {}
    for name, changes in (("closed", {}), ("remaining", {"block_start": "remaining"})):
        trainer = a_trainer(split, Store.open(tmp_path / name), **changes)
        keys = trainer.block_keys(pruner, blocks, solver)
        found[name] = trainer.pretrain(pruner, keys, solver, "blocks")
        alone = a_trainer(split, Store.open(tmp_path / f"{name} alone"), **changes)
        assert alone.block_keys(pruner, blocks[1:2], solver) == {blocks[1]: keys[blocks[1]]}
        alone.pretrain(pruner, {blocks[1]: keys[blocks[1]]}, solver, "block")
        one, other = (store.get(keys[blocks[1]]).weights for store in (trainer.store, alone.store))
        for weight, values in one.items():
            np.testing.assert_array_equal(other[weight], values, err_msg=weight)
    closed, remaining = found["closed"], found["remaining"]
    assert not {finished.key for finished in closed.values()} & {finished.key for finished in remaining.values()}
    for block in blocks:
        assert closed[block].outcome["initial_error"] < 0.8 * remaining[block].outcome["initial_error"]


EARLY = Plateau(window=3, least_fall=0.1, windows_in_turn=1, first=6, fade=3)
FALLING = Solver(base_lr=0.02, momentum=0.9, max_iter=40, batch_size=16)
RATES = (0.25, 0.5, 0.75)


@pytest.fixture
def two_modules(tmp_path, prototxt):
    """Blocks of two modules end at different steps."""
    head, classifier = prototxt.split('layer { name: "fc"')
    second = MODULE.replace('"conv2"', '"conv4"').replace('"conv3"', '"conv5"').replace('"m"', '"n"')
    modules = MODULE + second.replace('"conv"', '"conv3"')
    (tmp_path / "two.prototxt").write_text(
        head + modules + 'layer { name: "fc"' + classifier.replace('"conv"', '"conv5"')
    )
    return BlockPruner.of(import_caffe(tmp_path / "two.prototxt").model, "l1")


def pretrained(trainer, pruner, blocks, solver=FALLING):
    """The outcomes of blocks."""
    keys = trainer.block_keys(pruner, blocks, solver)
    trainer.pretrain(pruner, keys, solver, "blocks")
    return {block: trainer.store.get(key) for block, key in keys.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for block, expected in one.items():
        found = other[block]
        assert {**found.record, "seconds": 0} == {**expected.record, "seconds": 0}
        for name, values in expected.weights.items():
            np.testing.assert_array_equal(found.weights[name], values, err_msg=name)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("changes", [{}, {"type": SolverType.ADAM, "base_lr": 0.01}, {"iter_size": 2, "base_lr": 0.04}])
def test_blocks_end_when_their_errors_no_longer_fall_beside_others_as_alone(
    split, two_modules, tmp_path, monkeypatch, on_device, changes
):
    blocks = [TuningBlock((Symbol(module, rate),)) for module in (0, 1) for rate in RATES]
    solver = replace(FALLING, **changes)
    fields = {"plateau": EARLY, "data_on_device": on_device}
    trainer = a_trainer(split, Store.open(tmp_path / "all"), **fields)
    trainer.block_keys(two_modules, blocks, solver)
    sizes, build = [], Trainer.joint_graph
    monkeypatch.setattr(Trainer, "joint_graph", lambda *given: sizes.append(len(given[2])) or build(*given))
    together = pretrained(trainer, two_modules, blocks, solver)
    assert sizes[0] == 6
    assert len(sizes) > 1, "what is left gets a graph of its own"
    assert all(after <= before / 2 for before, after in itertools.pairwise(sizes))
    steps = [outcome.record["steps"] for outcome in together.values()]
    assert min(steps) < max(steps)
    for block, outcome in together.items():
        is_early = outcome.record["steps"] < 40
        assert outcome.record["ended"] == ("error no longer falls" if is_early else "all steps")
        alone = a_trainer(split, Store.open(tmp_path / str(block)), **fields)
        assert_same({block: outcome}, pretrained(alone, two_modules, [block], solver))


def test_a_block_ends_as_by_a_schedule_that_falls_when_the_error_no_longer_does(
    split, two_modules, tmp_path, monkeypatch
):
    block = TuningBlock((Symbol(0, 0.5),))
    ended = pretrained(a_trainer(split, Store.open(tmp_path / "a"), plateau=EARLY), two_modules, [block])[block]
    steps = ended.record["steps"]
    assert steps < FALLING.max_iter
    fade = EARLY.fade
    monkeypatch.setattr(Solver, "learning_rate", lambda self, step: self.base_lr * min(1, (steps - step) / fade))
    cut = replace(FALLING, max_iter=steps)
    whole = pretrained(a_trainer(split, Store.open(tmp_path / "b"), plateau=None), two_modules, [block], cut)[block]
    assert whole.record["ended"] == "all steps"
    for name, values in whole.weights.items():
        np.testing.assert_allclose(ended.weights[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("on_device", [False, True])
def test_blocks_that_end_early_go_on_where_they_were_stopped(split, two_modules, tmp_path, on_device):
    blocks = [TuningBlock((Symbol(module, rate),)) for module in (0, 1) for rate in RATES]
    fields = {"plateau": EARLY, "data_on_device": on_device, "block_start": "remaining"}
    expected = pretrained(a_trainer(split, Store.open(tmp_path / "whole"), **fields), two_modules, blocks)
    store = Store.open(tmp_path / "interrupted")
    attempts = 0
    while True:
        attempts += 1
        trainer = a_trainer(split, store, should_stop=StopAfter(2), **fields)
        try:
            found = pretrained(trainer, two_modules, blocks)
            break
        except Stopped:
            continue
    assert attempts > 2
    assert_same(expected, found)


def test_a_block_whose_outcome_has_gone_is_trained_anew_though_others_are_under_way(split, two_modules, tmp_path):
    """At its rate of 0 the weights in the checkpoint are the same, but running statistics have gone on."""
    blocks = [TuningBlock((Symbol(module, rate),)) for module in (0, 1) for rate in RATES[:2]]
    fields = {"plateau": EARLY, "block_start": "remaining"}
    expected = pretrained(a_trainer(split, Store.open(tmp_path / "whole"), **fields), two_modules, blocks)
    ends = [outcome.record["steps"] for outcome in expected.values()]
    assert ends.count(min(ends)) == 1, "the others are more than half of the graph"
    store = Store.open(tmp_path / "interrupted")
    trainer = a_trainer(split, store, should_stop=StopAfter(min(ends)), **fields)
    keys = trainer.block_keys(two_modules, blocks, FALLING)
    with pytest.raises(Stopped):
        trainer.pretrain(two_modules, keys, FALLING, "blocks")
    first = keys[blocks[ends.index(min(ends))]]
    assert store.get(first) is not None
    store.layout.entry(first).unlink()
    assert_same(expected, pretrained(a_trainer(split, store, **fields), two_modules, blocks))


def test_a_block_that_diverges_leaves_the_others_alone(split, two_modules, tmp_path, monkeypatch):
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in RATES]
    expected = pretrained(a_trainer(split, Store.open(tmp_path / "whole"), plateau=EARLY), two_modules, blocks)
    open_steps = Trainer.open

    def open_spoiled(self, graph, solver, *more):
        session, steps = open_steps(self, graph, solver, *more)
        advance = steps.advance

        def spoil_the_fourth(first, stop):
            if first == 3:
                name = student_prefix(1) + "conv2.weight"
                session.write_slot(name, np.full_like(session.read_slot(name), np.nan))
            return advance(first, stop)

        monkeypatch.setattr(steps, "advance", spoil_the_fourth)
        return session, steps

    monkeypatch.setattr(Trainer, "open", open_spoiled)
    found = pretrained(a_trainer(split, Store.open(tmp_path / "spoiled"), plateau=EARLY), two_modules, blocks)
    assert isinstance(found[blocks[1]], Failed)
    assert found[blocks[1]].reason.startswith("the training diverged, the loss is not finite at step 4 ")
    assert_same({b: expected[b] for b in (blocks[0], blocks[2])}, {b: found[b] for b in (blocks[0], blocks[2])})


def test_the_rule_is_in_the_keys_of_blocks(split, store, pruner):
    before = keys(a_trainer(split, store), pruner)
    after = keys(a_trainer(split, store, plateau=replace(PLATEAU, fade=1)), pruner)
    without = keys(a_trainer(split, store, plateau=None), pruner)
    assert before[0] == after[0] == without[0]
    assert len({before[1], after[1], without[1]}) == 3


def test_a_block_that_is_stored_begins_no_more(split, pruner, store, monkeypatch):
    solver, blocks = Solver(base_lr=0.02, max_iter=3, batch_size=16), [TuningBlock((Symbol(0, 0.5),))]
    trainer = a_trainer(split, store)
    first = trainer.pretrain(pruner, trainer.block_keys(pruner, blocks, solver), solver, "block")
    monkeypatch.setattr(trainer_module.ClosedForm, "weights", lambda *_: pytest.fail("it is solved again"))
    again = a_trainer(split, store)
    assert again.pretrain(pruner, again.block_keys(pruner, blocks, solver), solver, "block") == first


def test_a_kill_between_two_blocks_that_are_stored_loses_no_step(split, pruner, store, monkeypatch):
    solver = Solver(base_lr=0.02, momentum=0.9, max_iter=20, batch_size=16)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    trainer = a_trainer(split, store)
    keys = trainer.block_keys(pruner, blocks, solver)
    put = Store.put

    def killed_at_the_second(self, key, outcome, **options):
        if key == keys[blocks[1]]:
            raise KeyboardInterrupt
        put(self, key, outcome, **options)

    monkeypatch.setattr(Store, "put", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        trainer.pretrain(pruner, keys, solver, "blocks")
    monkeypatch.setattr(Store, "put", put)
    again = a_trainer(split, store)
    found = again.pretrain(pruner, keys, solver, "blocks")
    assert again.progress.steps == 0
    assert not any(isinstance(f.outcome, Failed) or f.reused for f in found.values())


def test_a_store_that_gives_no_lease_of_one_block_keeps_none_of_the_others(split, pruner, store, monkeypatch):
    """A worker goes on after that, and with it its leases would."""
    solver = Solver(base_lr=0.02, momentum=0.9, max_iter=20, batch_size=16)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5)]
    trainer = a_trainer(split, store)
    keys = trainer.block_keys(pruner, blocks, solver)
    lease = Store.lease

    def full_at_the_second(self, key):
        if key == keys[blocks[1]]:
            raise StorageError("the disk is full")
        return lease(self, key)

    monkeypatch.setattr(Store, "lease", full_at_the_second)
    with pytest.raises(StorageError):
        trainer.pretrain(pruner, keys, solver, "blocks")
    monkeypatch.setattr(Store, "lease", lease)
    with store.lease(keys[blocks[0]]) as free:
        assert free.is_held


def test_the_memory_of_a_group_is_that_of_its_graph_which_is_built_once(split, pruner, store, monkeypatch):
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5)]
    trainer, solver = a_trainer(split, store), Solver(batch_size=16)
    expected = training_memory(trainer.joint_graph(pruner, blocks, solver), 16).total
    assert trainer.block_memory(pruner, blocks[:1], solver) < expected
    assert trainer.block_memory(pruner, blocks, solver) == expected
    assert trainer.block_memory(pruner, blocks, replace(solver, batch_size=32)) > expected
    monkeypatch.setattr(Trainer, "joint_graph", lambda *arguments: pytest.fail("built again"))
    assert a_trainer(split, store).block_memory(pruner, blocks, solver) == expected


def test_measurements_are_made_once(split, network, store, monkeypatch):
    trainer = a_trainer(split, store)
    accuracy, measured = trainer.quality_of(network, split), trainer.latencies(network, network)
    monkeypatch.setattr(trainer_module, "InferenceSession", lambda *_: pytest.fail("it is run again"))
    monkeypatch.setattr(trainer_module, "latencies", lambda *_: pytest.fail("it is measured again"))
    assert trainer.quality_of(network, split) == accuracy
    assert trainer.latencies(network, network) == measured


def test_another_number_of_threads_and_another_machine_have_latencies_of_their_own(split, network, store, monkeypatch):
    measured = []
    one = Latency(0.9, 1.0, 1.1)
    monkeypatch.setattr(
        trainer_module, "latencies", lambda models, shape, device: measured.append(device.threads) or (one, one)
    )
    for threads in (1, 2, 2):
        a_trainer(split, store, device=Device(threads=threads)).latencies(network, network)
    assert measured == [1, 2]
    monkeypatch.setattr(trainer_module.platform, "node", lambda: "another machine")
    a_trainer(split, store).latencies(network, network)
    assert measured == [1, 2, 1]


def test_scores_are_measured_once_together(split, network, store, monkeypatch):
    trainer = a_trainer(split, store)
    weights = constants(network.graph)["conv.weight"]
    scaled = {scale: with_weights(network, {"conv.weight": weights * np.float32(scale)}) for scale in (1, 2, np.inf)}
    first = trainer.scores(network, {1: scaled[1], 2: scaled[2]}, split)
    assert first[1].quality == trainer.quality_of(network, split)
    assert first[2].divergence > first[1].divergence == 0.0
    asked = []
    measure = trainer_module.score_variants
    monkeypatch.setattr(trainer_module, "score_variants", lambda *a: asked.append(list(a[1])) or measure(*a))
    found = a_trainer(split, store, run="another").scores(network, scaled, split)
    assert asked == [[np.inf]]
    assert {key: found[key] for key in first} == first
    assert found[np.inf].divergence == np.inf
    assert trainer.scores(network, scaled, split) == found
    assert asked == [[np.inf]]
    trainer.scores(scaled[2], {1: scaled[1]}, split)
    trainer.scores(network, {1: scaled[1]}, split.part(slice(32)))
    assert asked == [[np.inf], [1], [1]]


def test_a_look_is_taken_once_with_statistics_of_training_images(split, store, network, monkeypatch):
    trainer = a_trainer(split, store)
    spoiled = with_weights(network, {"bn.mean": np.float32([5, -5, 5, -5])})
    beyond = trainer.statistics_offsets(network)
    (look,) = trainer.looks([spoiled], [beyond])
    assert [look] == trainer.looks([network], [beyond]), "the statistics that a network comes with don't matter"
    assert look.quality == trainer.quality_of(network, split)

    def measured_again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(trainer_module, "recalibrated", measured_again)
    assert a_trainer(split, store, run="another").looks([spoiled], [beyond]) == [look]
    others = replace(trainer, dataset=Dataset(CLASSES, other_pixels(split), split, None))
    for trains_on, differs_by in ((others, beyond), (trainer, {n: v + np.float32(1) for n, v in beyond.items()})):
        with pytest.raises(AssertionError, match="measured again"):
            trains_on.looks([spoiled], [differs_by])


def outputs(model, images):
    (found,) = evaluate(model, {model.graph.inputs[0].name: images}, Device(threads=1)).values()
    return found


def test_a_network_learns_from_the_full_one_without_labels(split, trainer, network, pruner):
    """Those of the data are of no use here: all are 0."""
    unlabelled = Split(split.images, np.zeros_like(split.labels))
    trainer = replace(trainer, dataset=Dataset(CLASSES, unlabelled, unlabelled, None))
    other = with_weights(network, {n: w[::-1].copy() for n, w in constants(network.graph).items() if n == "fc.weight"})
    solver = Solver(base_lr=0.05, momentum=0.9, max_iter=60, batch_size=16)
    found = trainer.fine_tune(other, solver, "net", lesson=Lesson((), distill=1.0, scores=True), teacher=network)
    trained = with_weights(other, trainer.stored_weights(found.key))
    wanted, before, after = (outputs(m, split.images).argmax(1) for m in (network, other, trained))
    assert np.mean(after == wanted) > max(0.9, np.mean(before == wanted))


def test_keys_of_distilled_networks_follow_their_teacher_and_lesson(split, trainer, network):
    solver = Solver(max_iter=1, batch_size=16)
    softer = with_weights(network, {n: w / 2 for n, w in constants(network.graph).items() if n == "fc.weight"})
    relabelled = replace(trainer, dataset=Dataset(CLASSES, Split(split.images, 1 - split.labels), split, None))

    def key(trainer, lesson, teacher):
        program = trainer.network_program(network, solver, "net", lesson, teacher)
        return trainer._network_recipe(program, solver, None, lesson).key

    alone, mixed = Lesson((), distill=1.0, scores=True), Lesson(distill=0.5)
    lessons = alone, replace(alone, temperature=9.0), mixed
    taught = itertools.product((trainer, relabelled), lessons, (network, softer))
    keys = [key(trainer, Lesson(), None), *itertools.starmap(key, taught)]
    assert len(set(keys)) == len(keys) - 4  # without targets, labels are not read


def test_a_rehearsal_finds_a_teacher_of_another_shape(trainer, network, prototxt, tmp_path):
    (tmp_path / "wide.prototxt").write_text(prototxt.replace("num_output: 2", "num_output: 3"))
    wide = import_caffe(tmp_path / "wide.prototxt").model
    with pytest.raises(PassError, match=r"^distill: fc: it has shape"):
        trainer.rehearse(network, Solver(batch_size=16), Lesson(distill=0.5), wide)
