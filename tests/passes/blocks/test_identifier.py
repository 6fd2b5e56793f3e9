"""The tuning-block identifier: Figure 4 of the paper, the invariants, and the maximal runs by brute force."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.blocks.identifier import Method, identify_blocks, symbols
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.subspace import SKIP, Subspace

FIGURE_4 = ((0.3, 0.3, 0.3, 0.5, 0.0), (0.3, 0.3, 0.5, 0.5, 0.0), (0.5, 0.3, 0.3, 0.5, 0.0), (0.0, 0.3, 0.5, 0.5, 0.0))


def subspace(*configurations):
    return Subspace(tuple(f"m{i + 1}" for i in range(len(configurations[0]))), tuple(configurations))


def texts(items):
    return [str(item) if item else "-" for item in items]


@st.composite
def subspaces(draw):
    modules = draw(st.integers(1, 12))
    rates = draw(st.sampled_from([(0.0, 0.3), (0.3, 0.5, 0.7), (0.0, 0.3, (0.3, 0.5), 0.7)]))
    row = st.tuples(*[st.sampled_from(rates)] * modules)
    rows = draw(st.lists(row, min_size=2, max_size=12, unique=True))
    return subspace(*rows)


def maximal_runs(space):
    """The runs of neighbouring symbols that the same networks contain, found by comparing sets of networks."""
    networks = [symbols(configuration) for configuration in space.configurations]
    users = {s: {i for i, n in enumerate(networks) if s in n} for network in networks for s in network}
    runs = set()
    for network in networks:
        run = [network[0]]
        for left, right in pairwise(network):
            if users[left] != users[right]:
                runs.add(tuple(run))
                run = []
            run.append(right)
        runs.add(tuple(run))
    return {TuningBlock(run) for run in runs if len(users[run[0]]) > 1}


def joined_where_networks_agree(plan):
    """The blocks of `plan`, neighbours joined when the same networks use them."""
    users = {block: {i for i, c in enumerate(plan.composites) if block in c} for block in plan.blocks}
    joined = set()
    for composite in plan.composites:
        run: tuple[Symbol, ...] = ()
        last = None
        for block in (*composite, None):
            if last is not None and (block is None or users[block] != users[last]):
                joined.add(TuningBlock(run))
                run = ()
            run += block.symbols if block else ()
            last = block
    return joined


def test_figure_4():
    plan = identify_blocks(subspace(*FIGURE_4), method="paper")
    assert texts(plan.blocks) == ["1(0.3)", "2(0.3)", "3(0.3)", "3(0.5)", "4(0.5) 5(0)"]
    assert [texts(composite) for composite in plan.composites] == [
        ["1(0.3)", "2(0.3)", "3(0.3)", "4(0.5) 5(0)"],
        ["1(0.3)", "2(0.3)", "3(0.5)", "4(0.5) 5(0)"],
        ["-", "2(0.3)", "3(0.3)", "4(0.5) 5(0)"],
        ["-", "2(0.3)", "3(0.5)", "4(0.5) 5(0)"],
    ]


def test_figure_4_has_no_pieces_to_join():
    assert identify_blocks(subspace(*FIGURE_4), "maximal") == identify_blocks(subspace(*FIGURE_4), "paper")


def test_maximal_joins_what_the_paper_splits():
    """Sequitur makes a rule of 1(0.5) 2(0.3) 3(0.3), in which 3(0.3) is the more frequent: a dead end."""
    space = subspace((0.3, 0.5, 0.3, 0.3), (0.5, 0.3, 0.3, 0.5), (0.5, 0.3, 0.3, 0.3))
    assert texts(identify_blocks(space, "paper").blocks) == ["1(0.5)", "2(0.3)", "3(0.3)", "4(0.3)"]
    plan = identify_blocks(space, "maximal")
    assert texts(plan.blocks) == ["1(0.5) 2(0.3)", "3(0.3)", "4(0.3)"]
    assert [texts(composite) for composite in plan.composites] == [
        ["-", "-", "3(0.3)", "4(0.3)"],
        ["1(0.5) 2(0.3)", "3(0.3)", "-"],
        ["1(0.5) 2(0.3)", "3(0.3)", "4(0.3)"],
    ]


def test_modules_by_themselves_are_not_joined():
    space = subspace((0.3, 0.5, 0.3, 0.3), (0.5, 0.3, 0.3, 0.5), (0.5, 0.3, 0.3, 0.3))
    plan = identify_blocks(space, "modules")
    assert texts(plan.blocks) == ["1(0.5)", "2(0.3)", "3(0.3)", "4(0.3)"]
    assert texts(plan.composites[1]) == ["1(0.5)", "2(0.3)", "3(0.3)", "-"]


def test_without_blocks_every_module_is_of_the_network_itself():
    plan = identify_blocks(subspace((0.3, 0.5), (0.3, 0.5)), "none")
    assert plan.blocks == ()
    assert [texts(composite) for composite in plan.composites] == [["-", "-"], ["-", "-"]]
    assert [texts([symbol]) for _, symbol in plan.uncovered] == [["1(0.3)"], ["2(0.5)"]] * 2


@pytest.mark.parametrize("method", [method for method in get_args(Method) if method != "none"])
@given(space=subspaces(), is_chain=st.booleans())
def test_invariants(method, space, is_chain):
    sources = {module: (module - 1,) for module in range(1, len(space.modules))} if is_chain else {}
    plan = identify_blocks(space, method, sources)
    networks = [list(symbols(configuration, sources)) for configuration in space.configurations]
    frequency = Counter(symbol for network in networks for symbol in network)
    covered = Counter(symbol for block in plan.blocks for symbol in block.symbols)
    assert covered == {symbol: 1 for symbol, count in frequency.items() if count > 1}
    for network, composite in zip(networks, plan.composites, strict=True):
        uncovered = iter(s for s in network if frequency[s] == 1)
        assembled = [s for block in composite for s in (block.symbols if block else [next(uncovered)])]
        assert assembled == network
    once = [(n, symbol) for n, network in enumerate(networks) for symbol in network if frequency[symbol] == 1]
    assert list(plan.uncovered) == once
    assert [block.modules[0] for block in plan.blocks] == sorted(block.modules[0] for block in plan.blocks)


@given(space=subspaces())
def test_maximal_is_the_canonical_maximal_runs(space):
    plan = identify_blocks(space, "maximal")
    assert set(plan.blocks) == maximal_runs(space) == joined_where_networks_agree(identify_blocks(space, "paper"))


@given(space=subspaces(), random=st.randoms(use_true_random=False))
def test_maximal_does_not_depend_on_the_order_of_networks(space, random):
    rows = list(space.configurations)
    random.shuffle(rows)
    assert set(identify_blocks(subspace(*rows)).blocks) == set(identify_blocks(space).blocks)


@pytest.mark.parametrize("method", ["paper", "maximal"])
def test_in_a_chain_modules_differ_by_the_rate_before_them(method):
    rows = ((0.3, 0.5, 0.0), (0.5, 0.5, 0.0), (0.3, 0.5, 0.3))
    plan = identify_blocks(subspace(*rows), method, sources={1: (0,), 2: (1,)})
    assert texts(plan.blocks) == ["1(0.3) 2(0.5 after 0.3)", "3(0 after 0.5)"]
    assert texts(plan.composites[1]) == ["-", "-", "3(0 after 0.5)"]


def test_an_input_may_have_several_sources_and_not_the_module_before():
    rows = ((0.3, 0.5, 0.0, 0.7), (0.3, 0.5, 0.3, 0.7), (0.3, 0.3, 0.3, 0.7))
    plan = identify_blocks(subspace(*rows), sources={3: (0, 1)})
    assert texts(plan.blocks) == ["1(0.3)", "2(0.5)", "3(0.3)", "4(0.7 after 0.3, 0.5)"]


def test_in_a_chain_every_convolution_of_a_module_decides():
    rows = (((0.3, 0.5), 0.3), ((0.7, 0.5), 0.3), ((0.7, 0.5), 0.5), (0.5, 0.3))
    plan = identify_blocks(subspace(*rows), sources={1: (0,)})
    assert texts(plan.blocks) == ["1(0.7/0.5)"], (
        "modules of parallel convolutions (SqueezeNet) have several at the exit"
    )
    assert str(Symbol(1, 0.3, ((0.7, 0.5),))) == "2(0.3 after 0.7/0.5)"


def test_blocks_at_rate_0_equal_the_teacher():
    plan = identify_blocks(subspace((0.0, 0.0, 0.3), (0.0, 0.0, 0.5)))
    assert texts(plan.blocks) == ["1(0) 2(0)"]
    assert not plan.blocks[0].is_pruned


def test_a_module_at_rate_0_behind_a_pruned_one_is_pruned():
    assert not Symbol(1, 0.0).is_pruned
    assert not Symbol(1, 0.0, input_rates=(0.0,)).is_pruned
    assert Symbol(1, 0.0, input_rates=(0.0, 0.3)).is_pruned


def test_an_open_module_is_pruned_by_what_its_input_loses():
    assert not Symbol(0, 0.5, is_open=True).is_pruned
    assert not Symbol(1, 0.5, input_rates=(0.0,), is_open=True).is_pruned
    assert Symbol(1, 0.0, input_rates=(0.3,), is_open=True).is_pruned


def test_what_is_left_out_has_nothing_to_learn():
    plan = identify_blocks(subspace((0.5, SKIP, 0.3, SKIP), (0.5, SKIP, 0.5, SKIP)))
    assert texts(plan.blocks) == ["1(0.5) 2(skip)", "4(skip)"]
    assert [block.is_pruned for block in plan.blocks] == [True, False]
    assert not TuningBlock((Symbol(0, 0.0), Symbol(1, SKIP))).is_pruned


@pytest.mark.parametrize("method", get_args(Method))
def test_a_single_network_shares_nothing(method):
    plan = identify_blocks(subspace((0.3, 0.5)), method)
    assert plan.blocks == ()
    assert plan.composites == ((None, None),)
