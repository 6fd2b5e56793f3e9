"""What the training of blocks leaves alone: weights that layers of several modules share."""

from dataclasses import replace

from wootz.passes.ir.model import Module
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.joint_graph import joint_training_graph

MODULE = """
    {0}u = Conv({1}, shared) {0}n = BatchNormalization({0}u, scale, bias, mean, variance) {0}r = Relu({0}n)
    {0}v = Conv({0}r, {0}_first) {0}s = Relu({0}v) {0}w = Conv({0}s, {0}_second) {0} = Add({0}w, {1})
"""
SHARED = {"shared": (4, 4, 1, 1), "scale": (4,), "bias": (4,), "mean": (4,), "variance": (4,)}
OWN = {f"{module}_{layer}": (4, 4, 1, 1) for module in "ab" for layer in ("first", "second")}


def pruner(make_model):
    weights = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in {**SHARED, **OWN}.items())
    body = MODULE.format("a", "x") + MODULE.format("b", "a") + "p = GlobalAveragePool(b) y = Flatten(p)"
    model = make_model(f"g (float[N,4,4,4] x) => (float[N,4] y) <{weights}> {{ {body} }}", **SHARED, **OWN)
    return BlockPruner.of(replace(model, modules=(Module("A", "x", "a"), Module("B", "a", "b"))))


def trained(found, *blocks):
    interface = TrainingInterface.of(joint_training_graph(found, blocks, Solver()))
    return {slot.input for slot in interface.slots if slot.kind == "parameter"}


def test_weights_that_layers_outside_a_block_read_are_not_trained(make_model):
    found = pruner(make_model)
    apart = [TuningBlock((Symbol(module, 0.5),)) for module in (0, 1)]
    assert {"block0/a_first", "block0/a_second", "block1/b_first", "block1/b_second"} == trained(found, *apart)
    assert found.student(apart[0]).shared == found.student(apart[1]).shared == set(SHARED)


def test_weights_that_layers_of_one_block_share_are_trained(make_model):
    found = pruner(make_model)
    together = TuningBlock((Symbol(0, 0.5), Symbol(1, 0.5)))
    parameters = [name for name in (*SHARED, *OWN) if name not in ("mean", "variance")]
    assert trained(found, together) == {f"block0/{name}" for name in parameters}
    assert not found.student(together).shared
