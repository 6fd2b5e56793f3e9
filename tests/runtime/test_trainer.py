"""What is kept of trainings, those that diverge too, and under which keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import wootz.runtime.trainer as trainer_module
from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.model import constants, with_weights
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime.dataset import Dataset, Split
from wootz.runtime.outcome import Failed
from wootz.runtime.session import Device
from wootz.runtime.store import ResultStore
from wootz.runtime.trainer import TrainedBlock, Trainer

MODULE = """
layer { name: "conv2" type: "Convolution" bottom: "conv" top: "conv2" module: "m"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3" module: "m"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
"""
TRANSFORM = InputTransform(channel_order="RGB")


@pytest.fixture(params=[False, True], ids=["host", "device"])
def trainer(request, split, tmp_path):
    dataset = Dataset(("dark", "bright"), split, split, None)
    store = ResultStore(tmp_path / "store")
    return Trainer(dataset, TRANSFORM, TRANSFORM, "onnx", Device(threads=1), store, data_on_device=request.param)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (2, "the training diverged, the weights are not finite after step 2 (learning rate 1e+30): lower base_lr"),
        (5, "the training diverged, the loss is not finite at step 3 (learning rate 1e+30): lower base_lr"),
    ],
)
def test_a_network_that_diverges_has_failed_and_is_not_trained_again(trainer, network, steps, reason, monkeypatch):
    solver = Solver(base_lr=1e30, max_iter=steps, batch_size=16)
    outcome = trainer.fine_tune(network, solver, "net")
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith(reason)
    assert trainer.stored_weights(network, solver) is None
    monkeypatch.setattr(Trainer, "_fine_tune", lambda *_: pytest.fail("it is trained again"))
    assert trainer.fine_tune(network, solver, "another title") == outcome


def test_a_block_that_the_last_step_spoils_is_marked_and_the_others_are_kept(trainer, pruner, monkeypatch):
    solver = Solver(base_lr=0.01, max_iter=4, batch_size=16)
    blocks = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    open_steps = Trainer._open

    def open_spoiled(self, graph, solver):
        session, steps = open_steps(self, graph, solver)
        advance = steps.advance

        def spoil_the_last(first, stop):
            losses = advance(first, stop)
            if first + len(losses) == solver.max_iter:
                name = student_prefix(1) + "conv2.weight"
                session.write_slot(name, np.full_like(session.read_slot(name), np.nan))
            return losses

        monkeypatch.setattr(steps, "advance", spoil_the_last)
        return session, steps

    monkeypatch.setattr(Trainer, "_open", open_spoiled)
    trained = trainer.pretrain(pruner, blocks, solver, "blocks")
    assert [type(trained[block]) for block in blocks] == [TrainedBlock, Failed, TrainedBlock]
    assert trained[blocks[1]].reason.startswith("the training diverged, the weights are not finite after step 4 ")
    stored = trainer.stored_blocks(pruner, blocks, solver)
    assert stored[blocks[1]] == trained[blocks[1]]
    assert (stored[blocks[0]].steps, stored[blocks[0]].final_error) == (4, trained[blocks[0]].final_error)


@pytest.fixture
def pruner(tmp_path, prototxt):
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "net.prototxt").write_text(
        head + MODULE + 'layer { name: "fc"' + classifier.replace('"conv"', '"conv3"')
    )
    return BlockPruner.of(import_caffe(tmp_path / "net.prototxt").model, "l1")


def plain_trainer(split, **changes):
    fields = {
        "dataset": Dataset(("dark", "bright"), split, split, None),
        "train_transform": TRANSFORM,
        "test_transform": TRANSFORM,
        "target": "onnx",
        "device": Device(threads=1),
        "store": ResultStore(Path("nowhere")),
    }
    return Trainer(**{**fields, **changes})


def keys(trainer, pruner, solver=None):
    """Of a network, and of a block."""
    solver = solver or Solver(batch_size=16)
    block = TuningBlock((Symbol(0, 0.5),))
    return trainer._network_key(pruner.model, solver), trainer._block_keys(pruner, [block], solver)[block]


def other_pixels(split):
    return Split(split.images + np.float32(0.01), split.labels)


def other_labels(split):
    return Split(split.images, 1 - split.labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda split: {"dataset": Dataset(("dark", "bright"), other_pixels(split), split, None)},
        lambda split: {"dataset": Dataset(("dark", "bright"), other_labels(split), split, None)},
        lambda split: {"dataset": Dataset(("dark", "bright"), split, other_pixels(split), None)},
        lambda split: {"dataset": Dataset(("dark", "light"), split, split, None)},
        lambda split: {"train_transform": replace(TRANSFORM, mirror=True)},
        lambda split: {"test_transform": replace(TRANSFORM, mean=(1.0,))},
        lambda split: {"target": "ort-training"},
        lambda split: {"precision": "float16"},
        lambda split: {"device": Device("cuda")},
    ],
)
def test_what_changes_a_result_changes_its_key(split, pruner, change):
    before, after = keys(plain_trainer(split), pruner), keys(plain_trainer(split, **change(split)), pruner)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("change", [{"data_on_device": True}, {"device": Device(threads=7)}])
def test_what_changes_no_result_changes_no_key(split, pruner, change):
    assert keys(plain_trainer(split), pruner) == keys(plain_trainer(split, **change), pruner)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (trainer_module.metadata, "version", lambda package: f"99 of {package}"),
        (trainer_module, "runtime_version", lambda: "onnxruntime 99"),
    ],
)
def test_keys_have_the_versions(split, pruner, monkeypatch, module, name, value):
    before = keys(plain_trainer(split), pruner)
    monkeypatch.setattr(module, name, value)
    after = keys(plain_trainer(split), pruner)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_key_of_a_network_has_its_weights_and_every_field_of_the_solver(split, pruner):
    trainer, solver = plain_trainer(split), Solver(batch_size=16)
    before = trainer._network_key(pruner.model, solver)
    for changed in (replace(solver, momentum=0.5), replace(solver, random_seed=1), replace(solver, max_iter=7)):
        assert trainer._network_key(pruner.model, changed) != before
    for name in constants(pruner.model.graph):
        weight = constants(pruner.model.graph)[name]
        other = with_weights(pruner.model, {name: np.asarray(weight + 1, weight.dtype)})
        assert trainer._network_key(other, solver) != before, name


def test_the_key_of_a_block_has_the_teacher_beyond_the_block_its_rate_and_the_solver(split, pruner):
    trainer = plain_trainer(split)
    _, before = keys(trainer, pruner)
    for beyond in ("fc.weight", "conv.weight", "bn.mean"):
        weight = constants(pruner.model.graph)[beyond]
        teacher = BlockPruner.of(with_weights(pruner.model, {beyond: weight + np.float32(1)}), "l1")
        assert keys(trainer, teacher)[1] != before, beyond
    assert keys(trainer, pruner, Solver(batch_size=16, base_lr=0.5))[1] != before
    rates = [TuningBlock((Symbol(0, rate),)) for rate in (0.25, 0.5, 0.75)]
    together = trainer._block_keys(pruner, rates, Solver(batch_size=16))
    assert len(set(together.values())) == 3
    assert together[rates[1]] == before, "blocks that are trained beside it have no part in it"


LEARNS = Solver(base_lr=0.1, momentum=0.9, max_iter=30, batch_size=16, test_interval=10, random_seed=3)


def fine_tuned(tmp_path, network, dataset, test_transform=TRANSFORM, solver=LEARNS):
    trainer = Trainer(dataset, TRANSFORM, test_transform, "onnx", Device(threads=1), ResultStore(tmp_path / "store"))
    return trainer.fine_tune(network, solver, "net")


def test_accuracies_are_those_of_the_validation_images_prepared_for_testing(split, network, tmp_path):
    """Validation images with the other labels are as wrong as the network is right; without contrast all are equal."""
    validation = Split(split.images, 1 - split.labels)
    learned = fine_tuned(tmp_path, network, Dataset(("dark", "bright"), split, validation, split))
    assert learned.final_accuracy < 0.1
    assert [step for step, _ in learned.curve] == [0, 10, 20, 30]
    grey = replace(TRANSFORM, scale=(0.0,))
    assert fine_tuned(tmp_path, network, Dataset(("dark", "bright"), split, split, None), grey).final_accuracy == 0.5


def test_test_iter_bounds_the_accuracies_on_the_way_alone(split, network, tmp_path):
    """Two batches of 16 are tested: the first 16 images are right in the end, the other 48 wrong."""
    validation = Split(split.images, np.where(np.arange(64) < 16, split.labels, 1 - split.labels))
    dataset = Dataset(("dark", "bright"), split, validation, None)
    curve = dict(fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, test_iter=2)).curve)
    assert 0.4 < curve[20] < 0.6
    assert curve[30] < 0.35


def test_the_random_seed_of_the_solver_draws_the_batches(split, network, tmp_path):
    dataset = Dataset(("dark", "bright"), split, split, None)
    one, same, other = (
        fine_tuned(tmp_path / str(i), network, dataset, solver=replace(LEARNS, random_seed=seed)).weights
        for i, seed in enumerate((3, 3, 4))
    )
    np.testing.assert_array_equal(one["conv.weight"], same["conv.weight"])
    assert not np.array_equal(one["conv.weight"], other["conv.weight"])


def test_snapshots_are_taken_at_their_interval(split, network, tmp_path):
    dataset = Dataset(("dark", "bright"), split, split, None)
    trained = fine_tuned(tmp_path, network, dataset, solver=replace(LEARNS, snapshot=12))
    files = sorted((tmp_path / "snapshots").iterdir())
    assert [f.name for f in files] == ["snapshot_net_iter_12.npz", "snapshot_net_iter_24.npz"]
    with np.load(files[0]) as early, np.load(files[1]) as late:
        assert set(early.files) == set(trained.weights)
        assert not np.array_equal(early["conv.weight"], late["conv.weight"])


def test_the_errors_of_a_block_are_those_of_its_first_and_last_steps(split, pruner, tmp_path):
    trainer = plain_trainer(split, store=ResultStore(tmp_path))
    solver = Solver(base_lr=0.02, momentum=0.9, max_iter=100, batch_size=16)
    block = TuningBlock((Symbol(0, 0.5),))
    trained = trainer.pretrain(pruner, [block], solver, "block")[block]
    assert trained.steps == 100
    assert trained.final_error < 0.5 * trained.initial_error
