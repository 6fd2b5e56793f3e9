"""Full-size chains of the real zoo (AlexNet, CaffeNet, VGG-16, LeNet): blocks, joint graph, survey; structures only."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_network
from wootz.frontend.caffe.network import NetState, read_network
from wootz.frontend.caffe.prototxt import read_prototxt
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.groups import group_blocks
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.teacher_student import TeacherStudent, student_loss
from wootz.runtime.survey import survey_subspace

ROOT = Path(__file__).parents[3]
STRUCTURES = Path(os.environ.get("WOOTZ_SHARED", ROOT.parent / "shared")) / "zoo" / "structures"
MODULES = {
    "LisaAnne_lisa-caffe-public_examples_mnist_lenet": 2,
    "LisaAnne_lisa-caffe-public_examples_cifar10_cifar10_full": 3,
    "BXuan694_Caffe_models_bvlc_alexnet_deploy": 5,
    "BXuan694_Caffe_models_bvlc_reference_caffenet_deploy": 5,
    "BXuan694_Caffe_models_vggnet_VGG_ILSVRC_16_layers_deploy": 13,
    "soeaver_caffe-model_cls_vgg_deploy_vgg16bn-pytorch": 13,
}
LOCKED = {"alexnet": {"module1", "module2"}, "caffenet": {"module1", "module2"}}
"""Their outputs are normalised across channels."""

pytestmark = pytest.mark.skipif(not STRUCTURES.is_dir(), reason="no WOOTZ_SHARED with the zoo")


class WeightsOfNoSize:
    """Weights that take no memory."""

    initialised = ()

    def stored_sizes(self, layer):
        return []

    def values(self, layer, expected):
        return [np.broadcast_to(np.float32(1), e.shape) for e in expected]


@pytest.fixture(scope="module", params=MODULES)
def chain(request):
    network = read_network(read_prototxt(STRUCTURES / f"{request.param}.prototxt"))
    model = import_network(network, WeightsOfNoSize(), NetState(), {}).model
    pruner = BlockPruner.of(replace(model, modules=find_modules(model)[0]))
    assert len(pruner.modules) == MODULES[request.param]
    locked = {table.module for table in pruner.convolutions if not table.prunable}
    least = pruner.least_rates((0.3, 0.5))
    assert {module for module, of_rates in least.items() if not any(of_rates.values())} == locked
    assert locked == next((names for part, names in LOCKED.items() if part in request.param), set())
    return pruner, sample_subspace(tuple(least), (0.3, 0.5), 4, 0, "runs", least)


def test_a_module_loses_inputs_with_the_one_before_it(chain):
    pruner, _ = chain
    prunable = [i for i, table in enumerate(pruner.convolutions) if table.prunable]
    expected = {i: (i - 1,) for i in range(1, len(pruner.modules)) if i - 1 in prunable}
    assert pruner.input_sources.of_modules == expected


@pytest.mark.parametrize("method", ["paper", "maximal"])
def test_every_block_gets_a_student_and_a_cost(chain, method):
    pruner, subspace = chain
    survey = survey_subspace(pruner, subspace, method, group_blocks)
    blocks = [use.block for use in survey.uses if use.block.is_pruned]
    assert sorted(map(str, (b for group in survey.groups for b in group))) == sorted(map(str, blocks))
    assert all(use.cost.parameters > 0 for use in survey.uses)
    joint = TeacherStudent().join(pruner, blocks)
    verify(joint)
    assert [t.name for t in joint.graph.outputs] == [student_loss(i) for i in range(len(blocks))]
