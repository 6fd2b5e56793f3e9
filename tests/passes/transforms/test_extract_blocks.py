from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.model import constants, with_weights
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.pruning import stored_keep_sets
from wootz.passes.transforms.assemble import assemble
from wootz.passes.transforms.extract_blocks import ExtractBlocks
from wootz.passes.transforms.prune_blocks import PruneBlocks
from wootz.runtime.session import evaluate

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"


@pytest.fixture(scope="module")
def model():
    return import_caffe(DIGITS).model


def test_the_block_computes_what_it_does_inside_the_network(model):
    block = ExtractBlocks(first="res2b", last="res3a").apply(model).model
    verify(block)
    entry, exit_ = model.module("res2b").entry, model.module("res3a").exit
    assert ([t.name for t in block.graph.inputs], [t.name for t in block.graph.outputs]) == ([entry], [exit_])
    assert [m.name for m in block.modules] == ["res2b", "res3a"]
    tapped = model.copy()
    tensors = tapped.graph.tensors()
    tapped.graph.outputs = [tensors[entry], tensors[exit_]]
    tapped.graph.cleanup()
    inside = evaluate(tapped, {"data": np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)})
    np.testing.assert_array_equal(evaluate(block, {entry: inside[entry]})[exit_], inside[exit_])


def test_a_block_put_back_gives_the_network_bit_for_bit(model):
    zeroed = {name: np.zeros_like(w) for name, w in constants(model.graph).items() if name.startswith("res3a")}
    assert zeroed
    block = ExtractBlocks(first="res3a").apply(model).model
    restored = with_weights(with_weights(model, zeroed), constants(block.graph))
    data = {"data": np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)}
    assert not np.array_equal(evaluate(with_weights(model, zeroed), data)["prob"], evaluate(model, data)["prob"])
    np.testing.assert_array_equal(evaluate(restored, data)["prob"], evaluate(model, data)["prob"])
    assert restored.to_proto().SerializeToString() == model.to_proto().SerializeToString()


def test_the_model_is_left_as_it_was(model):
    before = model.to_proto().SerializeToString()
    ExtractBlocks(first="res2a", last="res3b").apply(model)
    assert model.to_proto().SerializeToString() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "extract-blocks: option first is missing: the name of a module"),
        ({"first": "res9"}, "extract-blocks: no module named 'res9' in the model .modules: res2a, res2b, res3a, res3b"),
        ({"first": "res3a", "last": "res2a"}, "extract-blocks: res2a comes before res3a"),
    ],
)
def test_refusals(model, options, reason):
    with pytest.raises(PassError, match=reason):
        ExtractBlocks(**options).apply(model)


def test_a_pruned_block_carries_its_keep_sets(model):
    pruned = PruneBlocks(rates=(0.5, 0.25, 0.75, 0.0)).apply(model)
    block = ExtractBlocks(first="res2b", last="res3a").apply(pruned.model).model
    expected = {e.layer: e.keep for e in pruned.plan.layers if e.is_pruned and e.layer.startswith(("res2b", "res3a"))}
    assert len(expected) == 4
    assert stored_keep_sets(block.metadata) == expected


def test_a_block_of_a_chain_carries_the_keep_set_of_its_input():
    model = import_caffe(Path(__file__).parent / "networks" / "vgg.prototxt").model
    model = replace(model, modules=find_modules(model)[0])
    pruned = PruneBlocks(rates=(0.5, 0.25, 0.75, 0.5)).apply(model)
    block = ExtractBlocks(first="module2", last="module3").apply(pruned.model).model
    assert list(stored_keep_sets(block.metadata)) == ["conv1_1", "conv1_2", "conv2_1"]
    again = PruneBlocks(rates=(0.5, 0.0, 0.0, 0.0)).apply(pruned.model).model
    first, second = (stored_keep_sets(m.metadata)["conv1_1"] for m in (pruned.model, again))
    assert set(second) < set(first), "indices stay those of the unpruned network"


def test_a_block_of_other_keep_sets_is_not_put_in(model):
    network, other = (PruneBlocks(rates=(r, 0.5, 0.5, 0.5)).apply(model).model for r in (0.5, 0.25))
    for pruned in (other, model):
        with pytest.raises(WootzError, match=r"^the block keeps other filters of 'res2a_\w+' than the network does"):
            assemble(network, ExtractBlocks(first="res2a").apply(pruned).model)
    block = ExtractBlocks(first="res2b").apply(other).model
    assert assemble(network, block).to_proto().SerializeToString() == network.to_proto().SerializeToString()
