"""Networks of several inputs, of any element type: pruned, taught in blocks and as a whole, and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.distill import Distill
from wootz.passes.training.embed_batches import EmbedBatches
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import parse_blocks
from wootz.runtime.session import Device, TrainingSession, evaluate

SOLVER = Solver(type=SolverType.ADAM, base_lr=0.01, momentum=0.9)
SIGNAL = """g (float[N, 2, 16] x, int64[N] kind, bool[N, 1, 16] mask, float[N, 4, 16] state)
 => (float[N, 3, 16] y, float[N, 4, 16] next) {
  [stem] a = Conv <pads = [1, 1]> (x, w1)
  [table] t = Gather <axis = 0> (embedding, kind)
  [wide] u = Unsqueeze (t, last)
  [add] b = Add (a, u)
  [keep] c = Where (mask, b, zero)
  [conv1] d = Conv <pads = [1, 1]> (c, w2)
  [relu1] e = Relu (d)
  [conv2] f = Conv <pads = [1, 1]> (e, w3)
  [join] h = Add (f, c)
  [remember] next = Add (h, state)
  [conv3] i = Conv <pads = [1, 1]> (next, w4)
  [relu3] j = Relu (i)
  [head] y = Conv (j, w5)
}"""
VOLUME = """g (float[N, 1, 4, 4, 4] x, float[N, 1, 4, 4, 4] other) => (float[N, 2, 4, 4, 4] y) {
  [one1] a = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, v1)
  [relu1] b = Relu (a)
  [one2] c = Conv <pads = [1, 1, 1, 1, 1, 1]> (b, v2)
  [two1] d = Conv <pads = [1, 1, 1, 1, 1, 1]> (other, v1)
  [relu2] e = Relu (d)
  [two2] f = Conv <pads = [1, 1, 1, 1, 1, 1]> (e, v2)
  [difference] h = Sub (c, f)
  [last1] i = Conv (h, v3)
  [relu3] j = Relu (i)
  [last2] y = Conv (j, v4)
}"""


@pytest.fixture(params=["signal", "volume"])
def network(request: pytest.FixtureRequest, make_model: Callable[..., Model]) -> Model:
    if request.param == "signal":
        shapes = {"w1": (4, 2, 3), "w2": (6, 4, 3), "w3": (4, 6, 3), "w4": (6, 4, 3), "w5": (3, 6, 1)}
        settings = {"embedding": (5, 4), "last": np.array([2]), "zero": np.zeros((), np.float32)}
        model = make_model(SIGNAL, **shapes, **settings)
    else:
        shapes = {"v1": (4, 1, 3, 3, 3), "v2": (4, 4, 3, 3, 3), "v3": (6, 4, 1, 1, 1), "v4": (2, 6, 1, 1, 1)}
        model = make_model(VOLUME, **shapes)
    return replace(model, modules=find_modules(model)[0])


def feeds_for(model: Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    feeds = {}
    for tensor in model.graph.inputs:
        values = random.standard_normal([extent if isinstance(extent, int) else 3 for extent in tensor.shape])
        kind = np.dtype(tensor.dtype).kind
        feeds[tensor.name] = (np.abs(values) if kind == "i" else values > 0 if kind == "b" else values).astype(
            tensor.dtype
        )
    return feeds


def test_modules_are_pruned_as_the_masked_network_and_learn_in_blocks(network: Model, oracles: ModuleType) -> None:
    pruner, feeds = BlockPruner.of(network), feeds_for(network)
    assert len(network.modules) == 2
    plan = pruner.plan({module.name: 0.5 for module in network.modules})
    pruned = pruner.materialize(plan)
    for a, b in zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(network, plan), feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE
    blocks = parse_blocks(",".join(f"{module.name}@0.5" for module in network.modules), pruner)
    losses = learnt(joint_training_graph(pruner, blocks, SOLVER), feeds)[0]
    assert (losses[-1] < losses[0] * 0.7).all()


def test_a_pruned_network_learns_from_the_full_one(network: Model) -> None:
    pruner, feeds = BlockPruner.of(network), feeds_for(network)
    pruned = pruner.materialize(pruner.plan({module.name: 0.5 for module in network.modules}))
    graph = build_training_graph(pruned, SOLVER, loss=None, distill=Distill(network=network))
    interface = TrainingInterface.of(graph)
    assert (interface.data, *interface.more_data) == tuple(feeds)
    losses, weights = learnt(graph, feeds)
    assert losses[-1] < losses[0] / 2
    outputs = [evaluate(model, feeds) for model in (network, pruned, with_weights(pruned, weights))]
    wanted, before, after = (given["y"] for given in outputs)
    assert np.square(after - wanted).mean() < np.square(before - wanted).mean()
    with pytest.raises(PassError, match="embed-batches: the network has several inputs"):
        EmbedBatches(batch_size=3, window=2).apply(graph)


def learnt(graph: Model, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    session = TrainingSession(graph, Device(threads=1))
    losses = np.array([session.step(feeds, None, 0.01) for _ in range(40)])
    return losses, session.weights()
