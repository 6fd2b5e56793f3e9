import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Module, constants, with_weights
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.metadata import typed
from wootz.passes.plan.pruning import stored_keep_sets
from wootz.passes.transforms.annotate_modules import AnnotateModules
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


U_NET = """<ir_version: 8, opset_import: ["" : 18]>
unet (float[N, 3, 8, 8] x) => (float[N, 2, 8, 8] y) {
  [stem] s = Conv (x, w0)
  [down1] a = Conv <pads = [1, 1, 1, 1]> (s, w1)
  [relu1] b = Relu (a)
  [down2] c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  [pool] d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
  [low] e = Conv <pads = [1, 1, 1, 1]> (d, w3)
  [up] f = ConvTranspose <strides = [2, 2]> (e, w4)
  [join] g = Concat <axis = 1> (c, f, s)
  [last1] h = Conv (g, w5)
  [last2] y = Conv (h, w6)
}"""
TABLE = [
    {"name": "down", "entry": "s", "exit": "d", "more_exits": ["c"]},
    {"name": "up", "entry": "d", "exit": "y", "more_entries": ["c", "s"]},
]


@pytest.fixture
def unet(tmp_path):
    """A network of two modules with several ends each, whose table is read from a file."""
    model = parse_text(U_NET)
    random, tensors = np.random.default_rng(0), model.graph.tensors()
    shapes = ((4, 3, 1, 1), (6, 4, 3, 3), (4, 6, 3, 3), (6, 4, 3, 3), (6, 4, 2, 2), (6, 12, 1, 1), (2, 6, 1, 1))
    for i, shape in enumerate(shapes):
        tensors[f"w{i}"].to_constant((random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    return AnnotateModules(table=tmp_path / "table.json").apply(model).model


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt"])
@pytest.mark.parametrize(
    ("last", "inputs", "outputs"),
    [("down", ["s"], ["d", "c"]), ("up", ["s"], ["y"])],
)
def test_regions_are_pruned_cut_out_written_trained_elsewhere_and_put_back(
    unet, tmp_path, suffix, last, inputs, outputs
):
    pruned = PruneBlocks(rates=(0.5, 0.5), evaluator=evaluate).apply(unet).model
    assert pruned.modules == unet.modules == tuple(typed(TABLE, tuple[Module, ...]))
    save(ExtractBlocks(first="down", last=last).apply(pruned).model, tmp_path / f"block{suffix}")
    block = load(tmp_path / f"block{suffix}")
    verify(block)
    assert [t.name for t in block.graph.inputs] == inputs
    assert [t.name for t in block.graph.outputs] == outputs
    image = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    tapped = pruned.copy()
    tensors = tapped.graph.tensors()
    tapped.graph.outputs = [tensors[name] for name in dict.fromkeys(["s", "d", "c", "y"])]
    for tensor in tapped.graph.outputs:
        tensor.dtype = np.dtype(np.float32)
    inside = evaluate(tapped, image)
    given = evaluate(block, {name: inside[name] for name in inputs})
    for name in outputs:
        np.testing.assert_allclose(given[name], inside[name], rtol=1e-5, atol=1e-6)
    trained = with_weights(block, {"w1": constants(block.graph)["w1"] * 2})
    network = assemble(pruned, trained)
    np.testing.assert_array_equal(constants(network.graph)["w1"], constants(pruned.graph)["w1"] * 2)
    assert evaluate(network, image)["y"].shape == (2, 2, 8, 8)


def test_regions_are_not_left_out(unet):
    with pytest.raises(WootzError, match="module 'down' can't be left out: it has more than one entry and one exit"):
        PruneBlocks(rates=("skip", 0.5)).apply(unet)


def test_a_table_that_is_none_is_refused(unet, tmp_path):
    (tmp_path / "other.json").write_text('[{"name": "a", "entry": "s", "exit": "d", "more_exits": "c"}]')
    with pytest.raises(PassError, match=r'is no list of .*: at \[0\].more_exits there is "c"'):
        AnnotateModules(table=tmp_path / "other.json").apply(unet)
