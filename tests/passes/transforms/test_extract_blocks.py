from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import PassError
from wootz.passes.ir.model import constants
from wootz.passes.ir.verifier import verify
from wootz.passes.transforms.assemble import with_weights
from wootz.passes.transforms.extract_blocks import ExtractBlocks
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
