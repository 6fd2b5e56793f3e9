"""What is kept of trainings, those that diverge too, and under which keys."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.transforms.prune_blocks import BlockPruner
from wootz.passes.transforms.teacher_student import student_prefix
from wootz.runtime.dataset import Dataset
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


def test_a_block_that_the_last_step_spoils_is_marked_and_the_others_are_kept(trainer, tmp_path, prototxt, monkeypatch):
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "net.prototxt").write_text(
        head + MODULE + 'layer { name: "fc"' + classifier.replace('"conv"', '"conv3"')
    )
    pruner = BlockPruner.of(import_caffe(tmp_path / "net.prototxt").model, "l1")
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
