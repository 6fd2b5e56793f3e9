"""What a subspace costs, by few networks that are really pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.costs import network_cost
from wootz.passes.ir.model import constants
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.subspace import Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.survey import one_group, subspace_costs, survey_subspace
from wootz.tools.models import open_network

NETWORKS = Path(__file__).parents[1] / "passes" / "transforms" / "networks"
RESIDUAL = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"


def pruner_of(path):
    network = open_network(str(path)).model
    return BlockPruner.of(replace(network, modules=find_modules(network)[0]))


PRUNERS = {path.stem: pruner_of(path) for path in (RESIDUAL, NETWORKS / "lenet.prototxt", NETWORKS / "vgg.prototxt")}


@pytest.mark.parametrize("name", PRUNERS)
@given(data=st.data())
@settings(max_examples=10)
def test_the_sum_over_pieces_is_what_the_pruned_network_costs(name, data):
    pruner = PRUNERS[name]
    row = st.tuples(*(st.sampled_from([0.0, 0.3, 0.5, 0.9] if c.prunable else [0.0]) for c in pruner.convolutions))
    rows = data.draw(st.lists(row, min_size=1, max_size=8, unique=True))
    subspace = Subspace(tuple(module.name for module in pruner.modules), tuple(rows))
    costs = subspace_costs(pruner, subspace, pruner.input_sources)
    for configuration, cost in zip(rows, costs.networks, strict=True):
        rates = dict(zip(subspace.modules, configuration, strict=True))
        assert cost == network_cost(pruner.materialize(pruner.plan(rates)))


def test_few_networks_are_pruned(monkeypatch):
    pruner = PRUNERS["net"]
    rates = (0.3, 0.5, 0.7)
    rows = tuple(tuple(rates[i // 3**m % 3] for m in range(4)) for i in range(81))
    pruned = []
    materialize = BlockPruner.materialize
    monkeypatch.setattr(BlockPruner, "materialize", lambda self, plan: pruned.append(plan) or materialize(self, plan))
    subspace = Subspace(tuple(module.name for module in pruner.modules), rows)
    survey = survey_subspace(pruner, subspace, "maximal", one_group)
    assert len(survey.costs) == 81
    assert len(pruned) <= 12, "one a symbol at most"


@pytest.mark.parametrize("name", ["lenet", "vgg"])
def test_a_block_of_a_chain_is_narrowed_to_what_a_network_keeps_of_it(name):
    """The teacher's remaining weights are in every block and every network, so that each has a part of the other."""
    pruner = PRUNERS[name]
    prunable = [table.module for table in pruner.convolutions if table.prunable]
    behind = {position: sources for position, sources in pruner.input_sources.of_modules.items() if len(sources) == 1}
    assert behind
    for position, (source,) in behind.items():
        block = TuningBlock((Symbol(position, 0.0, (0.5,), is_open=True),))
        rates = dict.fromkeys(prunable, 0.25) | {pruner.modules[source].name: 0.5}
        network = pruner.materialize(pruner.plan(rates))
        student = constants(pruner.student(block).model.graph)
        own = {n: w for n, w in student.items() if n in constants(network.graph) and w.dtype == np.float32}
        narrowed = pruner.narrowed(block, own, rates)
        assert own
        for weight, values in narrowed.items():
            np.testing.assert_array_equal(values, constants(network.graph)[weight])
