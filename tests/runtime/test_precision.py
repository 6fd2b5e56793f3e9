"""Training in float16 by the runtime: what is stored under which key."""

import numpy as np
import pytest

from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.trainer import Trainer

SOLVER = Solver(base_lr=0.1, momentum=0.9, max_iter=40, batch_size=16)


@pytest.fixture
def dataset(split):
    return Dataset(("dark", "bright"), split, split, split)


@pytest.fixture
def trainer(dataset, tmp_path):
    as_it_is = InputTransform(channel_order="RGB")

    def make(precision):
        return Trainer(
            dataset=dataset,
            train_transform=as_it_is,
            test_transform=as_it_is,
            target="onnx",
            device=Device(threads=1),
            store=Store.open(tmp_path / "store"),
            precision=precision,
        )

    return make


def test_a_network_is_trained_in_float16_and_kept_in_float32(network, trainer):
    half = trainer("float16")
    trained = half.store.get(half.fine_tune(network, SOLVER, "half").key)
    assert trained.record["curve"][-1] == [40, 1.0]
    assert {w.dtype for w in trained.weights.values()} == {np.dtype(np.float32)}


def test_the_precision_is_part_of_the_key(network, trainer):
    in_half = trainer("float16").fine_tune(network, SOLVER, "half")
    assert trainer("float16").fine_tune(network, SOLVER, "again") == in_half
    assert trainer("float32").fine_tune(network, SOLVER, "whole").key != in_half.key
