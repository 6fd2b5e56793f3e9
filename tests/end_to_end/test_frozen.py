"""Parameters that a run leaves as they are."""

import numpy as np
import tiny

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.files import load
from wootz.passes.ir.model import constants
from wootz.passes.training.parameters import with_frozen
from wootz.passes.transforms.prune_blocks import PruneBlocks


def test_what_is_frozen_is_in_the_networks_as_it_came(wootz, tiny_job, tmp_path):
    done = wootz(*tiny.arguments(tiny_job, tmp_path / "out", tmp_path / "store"), "--freeze", "conv*")
    assert done.code == 0, done.err
    before = constants(import_caffe(tiny_job / "net.prototxt", None).model.graph)
    for file in ("teacher.onnx", "best.onnx"):
        after = constants(load(tmp_path / "out" / file).graph)
        changed = [name for name in before if name in after and not np.array_equal(after[name], before[name])]
        assert [name for name in before if name.startswith("conv")] == ["conv.weight", "conv.bias"]
        assert "fc.weight" in changed
        assert not {"conv.weight", "conv.bias"} & set(changed)


def test_a_name_that_is_none_is_told(wootz, tiny_job, tmp_path):
    done = wootz(*tiny.arguments(tiny_job, tmp_path / "out", tmp_path / "store"), "--freeze", "cnv.weight")
    assert done.code == 1
    assert "--freeze: 'cnv.weight' names no constant of the network" in done.err
    assert not (tmp_path / "out").exists()


def test_pruning_takes_filters_of_what_is_frozen(tiny_job):
    model = with_frozen(import_caffe(tiny_job / "net.prototxt", None).model, ["ma*"])
    pruned = constants(PruneBlocks(rate=0.5).apply(model).model.graph)["ma.weight"]
    before = constants(model.graph)["ma.weight"]
    assert len(pruned) == len(before) / 2
    assert all(any(np.array_equal(left, given) for given in before) for left in pruned)
