"""What is kept of trainings that diverge."""

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
from wootz.runtime.session import Device
from wootz.runtime.store import ResultStore
from wootz.runtime.trainer import DivergenceError, Trainer

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


def test_a_network_that_the_last_step_spoils_is_not_kept(trainer, network):
    solver = Solver(base_lr=1e30, max_iter=2, batch_size=16)
    reason = (
        r"net: the training diverged, the weights are not finite after step 2 \(learning rate 1e\+30\): lower base_lr"
    )
    with pytest.raises(DivergenceError, match=reason):
        trainer.fine_tune(network, solver, "net")
    assert trainer.stored_weights(network, solver) is None


def test_a_network_whose_loss_is_not_finite_is_not_kept(trainer, network):
    solver = Solver(base_lr=1e30, max_iter=5, batch_size=16)
    with pytest.raises(DivergenceError, match="net: the training diverged, the loss is not finite at step 3 "):
        trainer.fine_tune(network, solver, "net")
    assert trainer.stored_weights(network, solver) is None


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
    assert [block.diverged_at for block in trained] == [None, 4, None]
    assert [all(np.isfinite(w).all() for w in block.weights.values()) for block in trained] == [True, False, True]
    stored = trainer.stored_blocks(pruner, blocks, solver)
    assert [stored[block].diverged_at for block in blocks] == [None, 4, None]
