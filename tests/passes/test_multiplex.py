from pathlib import Path

import numpy as np
import pytest

import wootz
from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import constants, with_weights
from wootz.passes.ir.verifier import verify
from wootz.passes.transforms.extract_blocks import ExtractBlocks
from wootz.passes.transforms.prune_blocks import PruneBlocks

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"
RATES = {"res2a": 0.5, "res3b": 0.25}


@pytest.fixture(scope="module")
def model():
    return import_caffe(DIGITS).model


def test_full(model):
    assert wootz.multiplex(model, "full") is model


def test_pretrain(model):
    joint = wootz.multiplex(model, "pretrain", wootz.PruneInfo(blocks="res2a@0.5,res2a@0.5+res2b@0.3"))
    verify(joint)
    assert [t.name for t in joint.graph.outputs] == ["block0/loss", "block1/loss"]


def test_finetune_without_trained_blocks_is_the_default_network(model):
    network = wootz.multiplex(model, "finetune", wootz.PruneInfo(rates=RATES))
    expected = PruneBlocks(rates=(0.5, 0.0, 0.0, 0.25)).apply(model).model
    assert network.to_proto().SerializeToString() == expected.to_proto().SerializeToString()


def test_finetune_puts_trained_blocks_in(model):
    default = wootz.multiplex(model, "finetune", wootz.PruneInfo(rates=RATES))
    block = ExtractBlocks(first="res3b").apply(default).model
    doubled = {name: 2 * w for name, w in constants(block.graph).items() if w.dtype == np.float32}
    info = wootz.PruneInfo(rates=RATES, trained=(with_weights(block, doubled),))
    before, after = constants(default.graph), constants(wootz.multiplex(model, "finetune", info).graph)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], doubled.get(name, values))
    with pytest.raises(WootzError, match=r"^the block keeps other filters of 'res3b_\w+' than the network does$"):
        wootz.multiplex(model, "finetune", wootz.PruneInfo(rates={"res3b": 0.5}, trained=(block,)))


def test_faults(model):
    with pytest.raises(WootzError, match=r"^there are no blocks to pre-train"):
        wootz.multiplex(model, "pretrain")
    with pytest.raises(WootzError, match=r"^no mode 'train': full, pretrain or finetune$"):
        wootz.multiplex(model, "train")
    with pytest.raises(WootzError, match=r"^no module named 'res9'"):
        wootz.multiplex(model, "finetune", wootz.PruneInfo(rates={"res9": 0.5}))
